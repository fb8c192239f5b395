// Package config turns the TOML of a configuration file into a typed, validated
// value that nobody changes afterwards, or into the list of everything that is
// wrong with it.
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
	Tunnels  []Tunnel // in the file's order, at least one
}

// Log is the [log] table.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // auto, console, json or journal
}

// Control is the [control] table.
type Control struct {
	Socket   string // an absolute path
	Explicit bool   // the file names the socket; it is not the default
}

// Metrics is the [metrics] table.
type Metrics struct {
	Listen string // host:port of the listener over HTTP; "": none
}

// Security is the [security] table.
type Security struct {
	NoSandbox    bool // sandbox = "off"
	PacketFilter bool // packet_filter = "on"
}

// Tunnel is one [[tunnel]] table.
type Tunnel struct {
	Name string
	// Mode is named by the file's word. That of a stack has the layers of all its
	// items, and is automatic if one of them is.
	Mode       encap.Mode
	Layers     []Layer // innermost first, one for each of Mode.Layers
	Peers      []Peer  // at least one; of an automatic tunnel exactly one
	Hub        bool    // the peers are those of [[tunnel.peer]]
	Address    []netip.Prefix
	Routes     []netip.Prefix  // masked
	MTU        encap.TunnelMTU // 0: from the path
	Options    encap.Options
	NoMSSClamp bool   // mss_clamp = false
	Strict     bool   // martians = "strict"
	FwMark     uint32 // GatewayMark if the file has none and there is a default route
	Queues     int    // of the interface; 0: as many as there are processors, within reason
	NoOffload  bool   // offload = "off"
	IO         IO
	Netns      string // name or absolute path; "": the daemon's own

	Keepalive time.Duration // a peer that was silent so long is probed; 0: none is
	DeadAfter int           // probes lost in a row after which it is down

	file   string
	header pos               // of the [[tunnel]] that begins the table
	values map[string]pos    // of the keys that the table has
	sums   map[string]uint64 // of what they say, but for those of the peers
}

// Layer is what a layer of a tunnel has, whoever the peer is.
type Layer struct {
	Local     netip.Addr // zero: "auto", which only the outermost layer's may be
	GRE       encap.GRE
	Mechanism resolve.Mechanism // finds the outer addresses; nil: they are configured
}

// Peer is one remote end of a tunnel.
type Peer struct {
	Name string // "" in the short form
	// Remotes are the remote ends, one for each layer: the zero Host of a layer
	// with a Mechanism, and a name only of the outermost one.
	Remotes []Host
	Allowed []netip.Prefix // masked; nil, in the short form: everything
	Probe   netip.Addr     // inner address that answers echo requests; invalid: none is named

	at pos // of the outermost remote, or of the table if that has none
}

// Host is a remote endpoint: either its address or its DNS name is set.
type Host = resolve.Host

// IO is how outer packets leave.
type IO string

// The ways: through a raw socket, through AF_XDP (and through the socket what
// that does not take, which is worth a warning), or through whichever works.
const (
	IOSocket IO = "socket"
	IOXDP    IO = "xdp"
	IOAuto   IO = "auto"
)

// Defaults of what a file need not say.
const (
	defaultLevel  = "info"
	defaultFormat = "auto"
	defaultSocket = "/run/sixfour/control.sock"

	defaultKeepalive = 25 * time.Second // address translators forget after 30 at worst
	defaultDeadAfter = 5
	defaultListen    = "127.0.0.1:9640" // of a [metrics] that does not say
)

// Stack are the layers towards a peer, innermost first. Local and remote are the
// addresses of the outermost one, which the file need not have as such. Layers
// with a Mechanism still lack its resolver.
func (t *Tunnel) Stack(p *Peer, local, remote netip.Addr) []encap.Layer {
	layers := make([]encap.Layer, len(t.Layers))
	for i, l := range t.Layers {
		layers[i] = encap.Layer{Kind: t.Mode.Layers[i], Local: l.Local, Remote: p.Remotes[i].Addr, GRE: l.GRE}
	}
	outermost := &layers[len(layers)-1]
	outermost.Local, outermost.Remote = local, remote
	return layers
}

// Problem makes a problem at the place of a key's value, or of the tunnel's
// header if the table does not have the key. It is for checks that need the
// system, such as whether the name is taken.
func (t *Tunnel) Problem(key, format string, args ...any) Problem {
	at, ok := t.values[key]
	if !ok {
		at = t.header
	}
	return t.problem(at, format, args)
}

// hostKeys are the keys that name the outer hosts of a mechanism.
var hostKeys = []string{"routers", "border_relay", "relay"}

// HostProblem is Problem at the place of the outer hosts of a mechanism.
func (t *Tunnel) HostProblem(format string, args ...any) Problem {
	for _, key := range hostKeys {
		if at, ok := t.values[key]; ok {
			return t.problem(at, key+": "+format, args)
		}
	}
	return t.problem(t.header, format, args)
}

// PeerProblem is Problem at the place of a peer's outermost remote end.
func (t *Tunnel) PeerProblem(p *Peer, format string, args ...any) Problem {
	return t.problem(p.at, format, args)
}

func (t *Tunnel) problem(at pos, format string, args []any) Problem {
	return Problem{t.file, at.line, at.column, fmt.Sprintf(format, args...)}
}
