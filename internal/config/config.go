// Package config has the daemon's configuration as plain values. Package configfile reads
// them from a file.
package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/mape"
	"sixfour/encap/resolve"
	"sixfour/internal/config/problem"
)

// Config is a whole configuration file.
type Config struct {
	Log      Log
	Control  Control
	Metrics  Metrics
	Security Security
	Gateway  Gateway
	Broker   Broker
	LISP     LISP
	Tunnels  []Tunnel // in the order of the file, at least one unless there is LISP; that of the broker is the last
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

// Gateway is the [gateway] table: it makes one end of a tunnel the internet gateway of
// the other end.
type Gateway struct {
	// Masquerade are the interfaces on which packets from the tunnels get this host's
	// address as source.
	Masquerade []string
	// DefaultRoute is the name of the tunnel for all traffic without another route; ""
	// means none. IPv4 and IPv6 say for which versions: those of which the tunnel has an
	// address.
	DefaultRoute string
	IPv4, IPv6   bool
	Bypass       []netip.Prefix // masked; destinations that keep their old route
	Probe        []netip.Addr   // hosts on the internet that sixfourctl doctor pings
	DefaultProbe bool           // the file does not name Probe
}

// GatewayMark is the firewall mark of outer packets of tunnels without fwmark, if there
// is a DefaultRoute. It is a single bit, so that other programs can use the other bits.
const GatewayMark = 1 << 25

// Tunnel is one [[tunnel]] table.
type Tunnel struct {
	Name string
	// Mode has the name that the file uses. The mode of a stack has the layers of all
	// items, and is automatic if one of them is.
	Mode       encap.Mode
	Layers     []Layer // innermost first, one for each of Mode.Layers
	Peers      []Peer  // at least one; an automatic tunnel has exactly one
	Hub        bool    // the peers are in [[tunnel.peer]] tables
	Options    encap.Options
	NoMSSClamp bool   // mss_clamp = false
	Strict     bool   // martians = "strict"
	FwMark     uint32 // GatewayMark if the file sets none and there is a default route
	IO         IO
	Select     string // name of the policy by which a peer uses its paths; "": the default one
	Servers
	Interface
	Liveness
	Source Source
}

// Interface is the configuration of a tunnel's network interface.
type Interface struct {
	Address   []netip.Prefix
	Routes    []netip.Prefix  // masked
	MTU       encap.TunnelMTU // 0: derived from the path MTU
	Queues    int             // 0: derived from the number of processors
	NoOffload bool            // offload = "off"
	Netns     string          // name or absolute path; "": the daemon's own
	Reserve   int             // size of packets that pass any path, in two pieces if need be; 0: none; MTU is the same then
}

// Liveness says how a tunnel tests whether its peers are reachable.
type Liveness struct {
	Keepalive time.Duration // a peer is probed if it was silent for this long; 0: never
	DeadAfter int           // consecutive lost probes after which the peer is down
}

// Source is the place of a tunnel in a file, for problems. It is zero if the tunnel is in
// no file.
type Source struct {
	File   string
	Header problem.Pos            // of the [[tunnel]] header
	Keys   map[string]problem.Pos // of the values in the table
	Sums   map[string]uint64      // hashes of the values, without those of the peers
}

// Layer is the part of a tunnel's layer that is the same for all peers.
type Layer struct {
	Local     netip.Addr        // zero in the outermost layer, of which each path has its own
	Framing   framing.Framing   // with options; nil: that of the layer's kind, without
	Mechanism resolve.Mechanism // finds the outer addresses; nil: they are configured
}

// Peer is one remote end of a tunnel.
type Peer struct {
	Name string // "" in the short form
	// Paths are the ways to the peer, in order of preference: at least one. An automatic
	// tunnel has exactly one.
	Paths []Path
	// InnerRemotes are the remote ends of the layers inside the outermost one, innermost
	// first. That of a layer with a Mechanism is the zero Addr.
	InnerRemotes []netip.Addr
	Allowed      []netip.Prefix // masked; nil, in the short form: everything
	Probe        netip.Addr     // inner address that answers echo requests; invalid: not configured
}

// Host is a remote endpoint. Either its address or its DNS name is set.
type Host = resolve.Host

// IO is how outer packets are sent.
type IO string

// The ways to send: through a raw socket; through AF_XDP, or carried in the kernel by programs of
// ours, with a fallback to a raw socket that causes a warning; or whichever works, the kernel
// first.
const (
	IOSocket IO = "socket"
	IOXDP    IO = "xdp"
	IOKernel IO = "kernel"
	IOAuto   IO = "auto"
)

// Framed is a resolve.Mechanism whose configuration says the options of its framing.
type Framed interface {
	resolve.Mechanism
	Framing() framing.Framing
}

// Keyed is a resolve.Mechanism with a secret from a file, or from none.
type Keyed interface {
	resolve.Mechanism
	SecretFile() string
}

// secretFiles returns the files of the layers' mechanisms.
func (t *Tunnel) secretFiles() (all []string) {
	for i := range t.Layers {
		if m, ok := t.Layers[i].Mechanism.(Keyed); ok && m.SecretFile() != "" {
			all = append(all, m.SecretFile())
		}
	}
	return all
}

// CounterFiles returns the files with the counters of the layers' mechanisms.
func (t *Tunnel) CounterFiles() (all []string) {
	for i := range t.Layers {
		if m, ok := t.Layers[i].Mechanism.(resolve.Counted); ok && m.CounterFile() != "" {
			all = append(all, m.CounterFile())
		}
	}
	return all
}

// Kind returns the kind of a layer, with the options of its framing.
func (t *Tunnel) Kind(layer int) encap.Kind {
	l := &t.Layers[layer]
	if m, ok := l.Mechanism.(Framed); ok {
		return t.Mode.Layers[layer].With(m.Framing())
	}
	return t.Mode.Layers[layer].With(l.Framing)
}

// Sharer is a resolve.Mechanism of a host that has an IPv4 address, or only some of its ports:
// packets must be translated to these.
type Sharer interface {
	// Share returns the address and its ports. Ok is false if nothing is translated.
	Share() (a netip.Addr, p mape.Ports, ok bool)
}

// Share is Sharer.Share for the tunnel's mechanism.
func (t *Tunnel) Share() (a netip.Addr, p mape.Ports, ok bool) {
	for i := range t.Layers {
		if m, is := t.Layers[i].Mechanism.(Sharer); is {
			return m.Share()
		}
	}
	return a, p, false
}

// Outermost returns the kind of the outermost layer on a path: that of the mode in the
// encapsulation of the path.
func (t *Tunnel) Outermost(p *Path) encap.Kind { return p.Frame(t.Kind(len(t.Layers) - 1)) }

// InOrder reports whether the packets of the tunnel must stay in order.
func (t *Tunnel) InOrder() bool {
	for i := range t.Layers {
		if t.Kind(i).Properties().Ordered {
			return true
		}
	}
	return false
}

// Stack returns the layers on a path to a peer, innermost first. Local and remote are the
// addresses of the outermost layer, because the file may have "auto" or a name. Layers
// with a Mechanism still need its resolver.
func (t *Tunnel) Stack(p *Peer, path *Path, local, remote netip.Addr) []encap.Layer {
	layers := make([]encap.Layer, len(t.Layers))
	for i, l := range t.Layers {
		layers[i] = encap.Layer{Kind: t.Kind(i), Local: l.Local}
		if i < len(p.InnerRemotes) {
			layers[i].Remote = p.InnerRemotes[i]
		}
	}
	outermost := &layers[len(layers)-1]
	outermost.Kind, outermost.Local, outermost.Remote = t.Outermost(path), local, remote
	return layers
}

// LocalOf returns our address in a layer, on a path. It is the zero Addr for "auto", which
// only the outermost layer may have.
func (t *Tunnel) LocalOf(layer int, p *Path) netip.Addr {
	if layer == len(t.Layers)-1 {
		return p.Local
	}
	return t.Layers[layer].Local
}

// Locals returns our different outer addresses, in the order of the paths. The zero Addr
// stands for "auto".
func (t *Tunnel) Locals() (all []netip.Addr) {
	for _, p := range t.AllPaths() {
		if !slices.Contains(all, p.Local) {
			all = append(all, p.Local)
		}
	}
	return all
}

// Problem returns a problem at the position of a key's value, or of the tunnel's header
// if the table does not have the key. It is for checks that need the system, such as
// whether the interface name is in use.
func (t *Tunnel) Problem(key, format string, args ...any) problem.Problem {
	at, ok := t.Source.Keys[key]
	if !ok {
		at = t.Source.Header
	}
	return t.problem(at, format, args)
}

// hostKeys are the keys for the outer hosts of a mechanism.
var hostKeys = []string{"routers", "border_relay", "relay"}

// HostProblem is Problem at the position of the outer hosts of a mechanism.
func (t *Tunnel) HostProblem(format string, args ...any) problem.Problem {
	for _, key := range hostKeys {
		if at, ok := t.Source.Keys[key]; ok {
			return t.problem(at, key+": "+format, args)
		}
	}
	return t.problem(t.Source.Header, format, args)
}

// PathProblem is Problem at the position of a path.
func (t *Tunnel) PathProblem(p *Path, format string, args ...any) problem.Problem {
	return t.problem(p.At, format, args)
}

func (t *Tunnel) problem(at problem.Pos, format string, args []any) problem.Problem {
	return problem.Problem{File: t.Source.File, Line: at.Line, Column: at.Column, Text: fmt.Sprintf(format, args...)}
}

// AddressAt returns the interface's addresses for the outer address local. If the
// configured local address is "auto", addresses that embed the outer address change with
// it.
func (t *Tunnel) AddressAt(local netip.Addr) []netip.Prefix {
	for i, l := range t.Layers {
		if f, ok := l.Mechanism.(resolve.Follower); ok && !t.LocalOf(i, &t.Peers[0].Paths[0]).IsValid() && local.IsValid() {
			list := slices.Clone(t.Address)
			for i, p := range list {
				list[i] = f.AddressAt(p, local)
			}
			return list
		}
	}
	return t.Address
}

// RoutesKey returns the key that sets the routes.
func (t *Tunnel) RoutesKey() string {
	if _, ok := t.Source.Keys["routes"]; ok {
		return "routes"
	}
	return "ds_lite"
}
