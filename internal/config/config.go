// Package config reads a configuration file in TOML and returns a typed, validated,
// immutable value, or a list of all errors in the file.
package config

import (
	"fmt"
	"net/netip"
	"time"

	"sixfour/encap"
	"sixfour/encap/resolve"
)

// Config is a whole configuration file.
type Config struct {
	Log      Log
	Control  Control
	Metrics  Metrics
	Security Security
	Gateway  Gateway
	Tunnels  []Tunnel // in the order of the file, at least one
}

// Log is the [log] table.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // auto, console, json or journal
}

// Control is the [control] table.
type Control struct {
	Socket   string // an absolute path
	Explicit bool   // the file sets the socket
}

// Metrics is the [metrics] table.
type Metrics struct {
	Listen string // host:port of the HTTP listener; "": none
}

// Security is the [security] table.
type Security struct {
	NoSandbox    bool // sandbox = "off"
	PacketFilter bool // packet_filter = "on"
}

// Tunnel is one [[tunnel]] table.
type Tunnel struct {
	Name string
	// Mode has the name that the file uses. The mode of a stack has the layers of all
	// items, and is automatic if one of them is.
	Mode       encap.Mode
	Layers     []Layer // innermost first, one for each of Mode.Layers
	Peers      []Peer  // at least one; an automatic tunnel has exactly one
	Hub        bool    // the peers are in [[tunnel.peer]] tables
	Address    []netip.Prefix
	Routes     []netip.Prefix  // masked
	MTU        encap.TunnelMTU // 0: derived from the path MTU
	Options    encap.Options
	NoMSSClamp bool   // mss_clamp = false
	Strict     bool   // martians = "strict"
	FwMark     uint32 // GatewayMark if the file sets none and there is a default route
	Queues     int    // of the interface; 0: derived from the number of processors
	NoOffload  bool   // offload = "off"
	IO         IO
	Netns      string // name or absolute path; "": the daemon's own

	Keepalive time.Duration // a peer is probed if it was silent for this long; 0: never
	DeadAfter int           // consecutive lost probes after which the peer is down

	file   string
	header pos               // of the [[tunnel]] header
	values map[string]pos    // of the keys in the table
	sums   map[string]uint64 // hashes of their values, without those of the peers
}

// Layer is the part of a tunnel's layer that is the same for all peers.
type Layer struct {
	Local     netip.Addr // zero: "auto", which only the outermost layer may have
	GRE       encap.GRE
	Mechanism resolve.Mechanism // finds the outer addresses; nil: they are configured
}

// Peer is one remote end of a tunnel.
type Peer struct {
	Name string // "" in the short form
	// Remotes are the remote ends, one for each layer. That of a layer with a Mechanism
	// is the zero Host. Only the outermost one may be a name.
	Remotes []Host
	Allowed []netip.Prefix // masked; nil, in the short form: everything
	Probe   netip.Addr     // inner address that answers echo requests; invalid: not configured

	at pos // of the outermost remote, or of the table if there is none
}

// Host is a remote endpoint. Either its address or its DNS name is set.
type Host = resolve.Host

// IO is how outer packets are sent.
type IO string

// The ways to send: through a raw socket; through AF_XDP, with a fallback to a raw
// socket that causes a warning; or through whichever works.
const (
	IOSocket IO = "socket"
	IOXDP    IO = "xdp"
	IOAuto   IO = "auto"
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

// Stack returns the layers towards a peer, innermost first. Local and remote are the
// addresses of the outermost layer, because the file may have "auto" or a name. Layers
// with a Mechanism still need its resolver.
func (t *Tunnel) Stack(p *Peer, local, remote netip.Addr) []encap.Layer {
	layers := make([]encap.Layer, len(t.Layers))
	for i, l := range t.Layers {
		layers[i] = encap.Layer{Kind: t.Mode.Layers[i], Local: l.Local, Remote: p.Remotes[i].Addr, GRE: l.GRE}
	}
	outermost := &layers[len(layers)-1]
	outermost.Local, outermost.Remote = local, remote
	return layers
}

// Problem returns a problem at the position of a key's value, or of the tunnel's header
// if the table does not have the key. It is for checks that need the system, such as
// whether the interface name is in use.
func (t *Tunnel) Problem(key, format string, args ...any) Problem {
	at, ok := t.values[key]
	if !ok {
		at = t.header
	}
	return t.problem(at, format, args)
}

// hostKeys are the keys for the outer hosts of a mechanism.
var hostKeys = []string{"routers", "border_relay", "relay"}

// HostProblem is Problem at the position of the outer hosts of a mechanism.
func (t *Tunnel) HostProblem(format string, args ...any) Problem {
	for _, key := range hostKeys {
		if at, ok := t.values[key]; ok {
			return t.problem(at, key+": "+format, args)
		}
	}
	return t.problem(t.header, format, args)
}

// PeerProblem is Problem at the position of a peer's outermost remote end.
func (t *Tunnel) PeerProblem(p *Peer, format string, args ...any) Problem {
	return t.problem(p.at, format, args)
}

func (t *Tunnel) problem(at pos, format string, args []any) Problem {
	return Problem{t.file, at.line, at.column, fmt.Sprintf(format, args...)}
}
