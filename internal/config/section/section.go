// Package section reads the tables of a configuration file besides the tunnels.
package section

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Default values.
const (
	defaultLevel  = "info"
	defaultFormat = "auto"
	defaultSocket = "/run/sixfour/control.sock"
	defaultListen = "127.0.0.1:9640" // for a [metrics] table without listen
)

// Names returns the keys of each table.
func Names() map[string][]string {
	return map[string][]string{
		"[log]":           tree.Names(logKeys),
		"[control]":       tree.Names(controlKeys),
		"[metrics]":       tree.Names(metricsKeys),
		"[security]":      tree.Names(securityKeys),
		keys.TableGateway: tree.Names(gatewayKeys),
		keys.TableBroker:  slices.DeleteFunc(tree.Names(brokerKeys), func(name string) bool { return name == "listen" }),

		keys.TableBrokerListen: tree.Names(listenerKeys),
		keys.TableLISP:         slices.DeleteFunc(tree.Names(lispKeys), func(name string) bool { return name == "site" }),
		keys.TableLISPSite:     tree.Names(lispSiteKeys),
	}
}

// Default returns a configuration without tunnels, in which no table is set.
func Default() config.Config {
	return config.Config{
		Log:     config.Log{Level: defaultLevel, Format: defaultFormat},
		Control: config.Control{Socket: defaultSocket},
	}
}

// All are the tables of a file besides the tunnels, which must be read before: [broker] and
// [lisp] are checked against them, and [gateway], the last one, if there was no problem.
var All = []tree.Key[*config.Config]{
	{Name: "log", Read: func(r *problem.Report, e tree.Entry, c *config.Config) {
		if isTable(r, e) {
			keys.Read(r, "[log]", e.Value, logKeys, &c.Log)
		}
	}},
	{Name: "control", Read: func(r *problem.Report, e tree.Entry, c *config.Config) {
		if isTable(r, e) {
			keys.Read(r, "[control]", e.Value, controlKeys, &c.Control)
		}
	}},
	{Name: "metrics", Read: func(r *problem.Report, e tree.Entry, c *config.Config) {
		if isTable(r, e) {
			c.Metrics.Listen = defaultListen
			keys.Read(r, "[metrics]", e.Value, metricsKeys, &c.Metrics)
		}
	}},
	{Name: "security", Read: func(r *problem.Report, e tree.Entry, c *config.Config) {
		if isTable(r, e) {
			keys.Read(r, "[security]", e.Value, securityKeys, &c.Security)
		}
	}},
	{Name: "broker", Read: readBroker},
	{Name: "lisp", Read: readLISP},
	{Name: "gateway", Read: readGateway},
}

var logKeys = []tree.Key[*config.Log]{
	{Name: "level", Read: func(r *problem.Report, e tree.Entry, l *config.Log) {
		if w, ok := value.Word(r, e, "debug", "info", "warn", "error"); ok {
			l.Level = w
		}
	}},
	{Name: "format", Read: func(r *problem.Report, e tree.Entry, l *config.Log) {
		if w, ok := value.Word(r, e, "auto", "console", "json", "journal"); ok {
			l.Format = w
		}
	}},
}

var controlKeys = []tree.Key[*config.Control]{
	{Name: "socket", Read: readSocket},
}

var securityKeys = []tree.Key[*config.Security]{
	{Name: "sandbox", Read: func(r *problem.Report, e tree.Entry, s *config.Security) {
		if w, ok := value.Word(r, e, "auto", "off"); ok {
			s.NoSandbox = w == "off"
		}
	}},
	{Name: "packet_filter", Read: func(r *problem.Report, e tree.Entry, s *config.Security) {
		if w, ok := value.Word(r, e, "auto", "on"); ok {
			s.PacketFilter = w == "on"
		}
	}},
}

func isTable(r *problem.Report, e tree.Entry) bool {
	if e.Kind != tree.Table {
		value.RefuseType(r, e, fmt.Sprintf("a table, which begins with [%s]", e.Name))
		return false
	}
	return true
}

// maxSocket is the longest path that fits into sun_path of unix(7) with the final NUL.
const maxSocket = 107

func readSocket(r *problem.Report, e tree.Entry, c *config.Control) {
	const want = "an absolute path"
	path, ok := value.String(r, e, want)
	switch {
	case !ok:
	case !filepath.IsAbs(path):
		value.Refuse(r, e, want+", such as "+problem.Quote(defaultSocket))
	case strings.ContainsRune(path, 0):
		value.Refuse(r, e, want+" without NUL")
	case strings.HasSuffix(path, "/"), strings.HasSuffix(path, "/."), strings.HasSuffix(path, "/.."):
		value.Refuse(r, e, want+" of a file, such as "+problem.Quote(defaultSocket))
	case len(path) > maxSocket:
		r.Add(e.At, "%s has %d bytes: a socket's path has at most %d", e.Name, len(path), maxSocket)
	default:
		c.Socket, c.Explicit = path, true
	}
}
