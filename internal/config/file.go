package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// fileKeys are the top-level tables of a file.
var fileKeys = []key[*Config]{
	{"log", func(r *report, e entry, c *Config) {
		if isTable(r, e) {
			readTable(r, "[log]", e.value, logKeys, &c.Log)
		}
	}},
	{"control", func(r *report, e entry, c *Config) {
		if isTable(r, e) {
			readTable(r, "[control]", e.value, controlKeys, &c.Control)
		}
	}},
	{"metrics", func(r *report, e entry, c *Config) {
		if isTable(r, e) {
			c.Metrics.Listen = defaultListen
			readTable(r, "[metrics]", e.value, metricsKeys, &c.Metrics)
		}
	}},
	{"security", func(r *report, e entry, c *Config) {
		if isTable(r, e) {
			readTable(r, "[security]", e.value, securityKeys, &c.Security)
		}
	}},
	{"tunnel", readTunnels},
	{"gateway", readGateway},
}

var logKeys = []key[*Log]{
	{"level", func(r *report, e entry, l *Log) {
		if w, ok := wordOf(r, e, "debug", "info", "warn", "error"); ok {
			l.Level = w
		}
	}},
	{"format", func(r *report, e entry, l *Log) {
		if w, ok := wordOf(r, e, "auto", "console", "json", "journal"); ok {
			l.Format = w
		}
	}},
}

var controlKeys = []key[*Control]{
	{"socket", readSocket},
}

var securityKeys = []key[*Security]{
	{"sandbox", func(r *report, e entry, s *Security) {
		if w, ok := wordOf(r, e, "auto", "off"); ok {
			s.NoSandbox = w == "off"
		}
	}},
	{"packet_filter", func(r *report, e entry, s *Security) {
		if w, ok := wordOf(r, e, "auto", "on"); ok {
			s.PacketFilter = w == "on"
		}
	}},
}

// readFile reads the top-level table.
func readFile(r *report, root *value) *Config {
	c := &Config{
		Log:     Log{Level: defaultLevel, Format: defaultFormat},
		Control: Control{Socket: defaultSocket},
	}
	s := readTable(r, "", root, fileKeys, c)
	if r.found == 0 {
		for _, d := range r.tunnels {
			d.checkRouted(r, func(version int) bool {
				return c.Gateway.DefaultRoute == d.Name && (version == 4 && c.Gateway.IPv4 || version == 6 && c.Gateway.IPv6)
			})
		}
	}
	if !s.set["tunnel"] {
		r.add(root.at, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	return c
}

// strayPeer reports [[tunnel.peer]] in a file without a [[tunnel]] for it.
func strayPeer(r *report, e entry) bool {
	peer, ok := e.table["peer"]
	if e.kind != unstable.InlineTable || !ok || len(e.table) > 1 {
		return false
	}
	r.add(peer.keyAt, "[[tunnel.peer]] stands before the [[tunnel]] that it belongs to: put it below that")
	return true
}

func isTable(r *report, e entry) bool {
	if e.kind != unstable.InlineTable {
		refuseType(r, e, fmt.Sprintf("a table, which begins with [%s]", e.name))
		return false
	}
	return true
}

// maxSocket is the longest path that fits into sun_path of unix(7) with the final NUL.
const maxSocket = 107

func readSocket(r *report, e entry, c *Control) {
	const want = "an absolute path"
	path, ok := stringOf(r, e, want)
	switch {
	case !ok:
	case !filepath.IsAbs(path):
		refuse(r, e, want+", such as "+quote(defaultSocket))
	case strings.ContainsRune(path, 0):
		refuse(r, e, want+" without NUL")
	case strings.HasSuffix(path, "/"), strings.HasSuffix(path, "/."), strings.HasSuffix(path, "/.."):
		refuse(r, e, want+" of a file, such as "+quote(defaultSocket))
	case len(path) > maxSocket:
		r.add(e.at, "%s has %d bytes: a socket's path has at most %d", e.name, len(path), maxSocket)
	default:
		c.Socket, c.Explicit = path, true
	}
}

// maxTunnels is more interfaces than a host can use in practice.
const maxTunnels = 10_000

// readTunnels reads all [[tunnel]] tables, and checks them against each other.
func readTunnels(r *report, e entry, c *Config) {
	const want = "an array of tables, each of which begins with [[tunnel]]"
	if strayPeer(r, e) {
		return
	}
	if e.kind != unstable.Array {
		refuseType(r, e, want)
		return
	}
	if len(e.items) == 0 {
		r.add(e.at, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	if n := len(e.items); n > maxTunnels {
		r.add(e.items[maxTunnels].at, "there are %d tunnels: at most %d are possible: name the right file with -config, or give a tunnel many peers ([[tunnel.peer]])", n, maxTunnels)
		return
	}
	var near neighbours
	var all []*draft
	for _, item := range e.items {
		if r.full(item.at) {
			return
		}
		if item.kind != unstable.InlineTable {
			r.add(item.at, "tunnel has %s in it: it must be %s", kindNames[item.kind], want)
			continue
		}
		d := readTunnel(r, item)
		near.check(r, d)
		all = append(all, d)
		c.Tunnels = append(c.Tunnels, d.Tunnel)
	}
	checkOwnRemotes(r, all)
	checkNesting(r, all)
	r.tunnels = all
}
