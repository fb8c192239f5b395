package subject

import (
	"io/fs"
	"os"
)

// Options selects what to check.
type Options struct {
	Config string // path; "": that of the running daemon, or else the default
	Socket string // control socket; "": the configured one, or else the default
	// Names are the tunnels, or peers as TUNNEL/PEER, to check; empty: all tunnels, with
	// the first peers of each.
	Names []string
	// NATServer is a Teredo server by which the NAT is found out, or its two addresses,
	// separated by a comma; empty: that of the configuration.
	NATServer string
	Paths     Paths
}

// Paths are the locations of system files; the zero value means the usual ones.
type Paths struct {
	Config  string   // /etc/sixfour.toml
	Socket  string   // /run/sixfour/control.sock
	Tun     string   // /dev/net/tun
	Modules string   // /sys/module
	Proc    string   // /proc
	Units   []string // directories of systemd units
}

// OrDefault fills in the usual locations.
func (p Paths) OrDefault() Paths {
	for _, d := range []struct {
		path *string
		at   string
	}{
		{&p.Config, "/etc/sixfour.toml"}, {&p.Socket, "/run/sixfour/control.sock"},
		{&p.Tun, "/dev/net/tun"}, {&p.Modules, "/sys/module"}, {&p.Proc, "/proc"},
	} {
		if *d.path == "" {
			*d.path = d.at
		}
	}
	if p.Units == nil {
		p.Units = unitDirs
	}
	return p
}

// ModulesFS returns the directory in which the kernel lists its modules.
func (p Paths) ModulesFS() fs.FS { return os.DirFS(p.Modules) }

// MaxPeers is how many peers of a tunnel are checked if none is named.
const MaxPeers = 20
