package configfile

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Default values.
const (
	defaultLevel  = "info"
	defaultFormat = "auto"
	defaultSocket = "/run/sixfour/control.sock"

	defaultKeepalive = 25 * time.Second // some address translators forget a mapping after 30 seconds
	defaultDeadAfter = 5
	defaultListen    = "127.0.0.1:9640" // for a [metrics] table without listen
)

// fileDraft is a file that is being read.
type fileDraft struct {
	config.Config
	tunnels []*draft // set when all are read
}

// fileKeys are the top-level tables of a file.
var fileKeys = []tree.Key[*fileDraft]{
	{Name: "log", Read: func(r *problem.Report, e tree.Entry, c *fileDraft) {
		if isTable(r, e) {
			readTable(r, "[log]", e.Value, logKeys, &c.Log)
		}
	}},
	{Name: "control", Read: func(r *problem.Report, e tree.Entry, c *fileDraft) {
		if isTable(r, e) {
			readTable(r, "[control]", e.Value, controlKeys, &c.Control)
		}
	}},
	{Name: "metrics", Read: func(r *problem.Report, e tree.Entry, c *fileDraft) {
		if isTable(r, e) {
			c.Metrics.Listen = defaultListen
			readTable(r, "[metrics]", e.Value, metricsKeys, &c.Metrics)
		}
	}},
	{Name: "security", Read: func(r *problem.Report, e tree.Entry, c *fileDraft) {
		if isTable(r, e) {
			readTable(r, "[security]", e.Value, securityKeys, &c.Security)
		}
	}},
	{Name: "tunnel", Read: readTunnels},
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

// readFile reads the top-level table.
func readFile(r *problem.Report, root *tree.Value) *config.Config {
	c := &fileDraft{Config: config.Config{
		Log:     config.Log{Level: defaultLevel, Format: defaultFormat},
		Control: config.Control{Socket: defaultSocket},
	}}
	s := readTable(r, "", root, fileKeys, c)
	if r.Found == 0 {
		for _, d := range c.tunnels {
			d.checkRouted(r, func(version int) bool {
				return c.Gateway.DefaultRoute == d.Name && (version == 4 && c.Gateway.IPv4 || version == 6 && c.Gateway.IPv6)
			})
		}
	}
	if !s.Set["tunnel"] {
		r.Add(root.At, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	return &c.Config
}

// strayPeer reports [[tunnel.peer]] in a file without a [[tunnel]] for it.
func strayPeer(r *problem.Report, e tree.Entry) bool {
	peer, ok := e.Table["peer"]
	if e.Kind != tree.Table || !ok || len(e.Table) > 1 {
		return false
	}
	r.Add(peer.KeyAt, "[[tunnel.peer]] stands before the [[tunnel]] that it belongs to: put it below that")
	return true
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

// maxTunnels is more interfaces than a host can use in practice.
const maxTunnels = 10_000

// readTunnels reads all [[tunnel]] tables, and checks them against each other.
func readTunnels(r *problem.Report, e tree.Entry, c *fileDraft) {
	const want = "an array of tables, each of which begins with [[tunnel]]"
	if strayPeer(r, e) {
		return
	}
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	if len(e.Items) == 0 {
		r.Add(e.At, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	if n := len(e.Items); n > maxTunnels {
		r.Add(e.Items[maxTunnels].At, "there are %d tunnels: at most %d are possible: name the right file with -config, or give a tunnel many peers ([[tunnel.peer]])", n, maxTunnels)
		return
	}
	var near neighbours
	var all []*draft
	for _, item := range e.Items {
		if r.Full(item.At) {
			return
		}
		if item.Kind != tree.Table {
			r.Add(item.At, "tunnel has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		d := readTunnel(r, item)
		near.check(r, d)
		all = append(all, d)
		c.Tunnels = append(c.Tunnels, d.Tunnel)
	}
	checkOwnRemotes(r, all)
	checkNesting(r, all)
	c.tunnels = all
}
