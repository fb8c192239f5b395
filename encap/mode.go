package encap

import (
	"slices"

	"sixfour/encap/framing"
)

// Kind is a type of layer: a delivery header of an IP version, and a framing. Kinds are
// compared with ==.
type Kind struct {
	name    string
	over    int // IP version of the delivery header
	framing framing.Framing
}

// The kinds without ports, with the framings' default options.
var (
	SixInFour  = Kind{"6in4", 4, framing.Bare(6)}                                                            // RFC 4213: IPv6 in IPv4, protocol 41
	FourInFour = Kind{"4in4", 4, framing.Bare(4)}                                                            // RFC 2003: IPv4 in IPv4, protocol 4
	FourInSix  = Kind{"4in6", 6, framing.Bare(4)}                                                            // RFC 2473: IPv4 in IPv6, next header 4
	SixInSix   = Kind{"6in6", 6, framing.Bare(6)}                                                            // RFC 2473: IPv6 in IPv6, next header 41
	GREInFour  = Kind{"gre", 4, framing.GRE{}}                                                               // RFC 2784: either in GRE in IPv4, protocol 47
	InTeredo   = Kind{"teredo", 4, framing.SixInUDP{Local: framing.TeredoPort}}                              // RFC 4380: IPv6 in UDP in IPv4
	InSixA44   = Kind{"6a44", 4, framing.SixInUDP{Local: framing.SixA44Port, Plain: true, NoChecksum: true}} // RFC 6751: IPv6 in UDP in IPv4, and IPv6 in IPv4
	InSixBed4  = Kind{"6bed4", 4, framing.SixInUDP{Local: framing.SixBed4Port, Keepalives: true}}            // draft-vanrein-6bed4-04: IPv6 in UDP in IPv4
	InLISP     = Kind{"lisp", 4, framing.LISP{}}                                                             // RFC 9300: either in UDP in IPv4
	InLISP6    = Kind{"lisp", 6, framing.LISP{}}                                                             // RFC 9300: either in UDP in IPv6
	InSEAL     = Kind{"seal", 4, framing.SEAL{}}                                                             // draft-templin-intarea-seal-68: either in SEAL in IPv4, protocol 44
	GREInSix   = Kind{"gre6", 6, framing.GRE{}}                                                              // RFC 7676: either in GRE in IPv6, next header 47
)

// String returns the layer's name in the configuration.
func (k Kind) String() string { return k.name }

// Over returns the IP version of the layer's delivery header, which is also the version
// of the layer's local and remote address.
func (k Kind) Over() int { return k.over }

// Framing returns what stands between the delivery header and the inner packet.
func (k Kind) Framing() framing.Framing { return k.framing }

// With returns the kind with other options of its framing. Nil leaves it as it is.
func (k Kind) With(f framing.Framing) Kind {
	if f != nil {
		k.framing = f
	}
	return k
}

// Properties returns the properties of the framing.
func (k Kind) Properties() framing.Properties { return k.framing.Properties() }

// Carries reports whether the layer carries packets of an IP version.
func (k Kind) Carries(version int) bool {
	p := k.Properties()
	return p.Carries(version)
}

// Protocol returns the protocol number in the layer's delivery header for what follows
// it.
func (k Kind) Protocol() byte { return k.Properties().Protocol }

// OpenKeepalive returns the payload of a keepalive that has come back, if the framing has
// keepalives. B is what follows an IP header with a protocol number.
func (k Kind) OpenKeepalive(protocol byte, b []byte) (payload []byte, ok bool) {
	f, ok := k.framing.(framing.Keepaliver)
	if !ok || protocol != k.Protocol() {
		return nil, false
	}
	return f.OpenKeepalive(b)
}

// Mode is a named stack of layers, innermost first. Inner packets enter it at
// the first layer that carries their IP version: in 4in6in4 an IPv4 packet
// passes both layers, and an IPv6 packet only the outer one.
type Mode struct {
	Name   string
	Layers []Kind
	// Over6 are the layers if our address is one of IPv6; nil: those of Layers, whichever it is.
	Over6 []Kind
	// Automatic means that the outer destination is not configured: a resolve.Mechanism
	// derives it from the inner packet.
	Automatic bool
	// Session means that the other end is a server, with which the tunnel keeps a session: it
	// grants what the tunnel needs, or learns where this end is. Such a mode has layers that
	// other modes have, and cannot be an item of a stack.
	Session bool
}

// Modes is the table of the modes that can be configured for a tunnel. Those of one or
// more layers can also be items of a stack, except for those of clients.
var Modes = []Mode{
	{Name: "4in6in4", Layers: []Kind{FourInSix, SixInFour}},
	{Name: "6in4", Layers: []Kind{SixInFour}},
	{Name: "6to4", Layers: []Kind{SixInFour}, Automatic: true},
	{Name: "6rd", Layers: []Kind{SixInFour}, Automatic: true},
	{Name: "isatap", Layers: []Kind{SixInFour}, Automatic: true},
	{Name: "v4compat", Layers: []Kind{SixInFour}, Automatic: true},
	{Name: "6over4", Layers: []Kind{SixInFour}, Automatic: true},
	{Name: "teredo", Layers: []Kind{InTeredo}, Automatic: true},
	{Name: "6a44", Layers: []Kind{InSixA44}, Automatic: true},
	{Name: "6bed4", Layers: []Kind{InSixBed4}, Automatic: true},
	{Name: "lisp", Layers: []Kind{InLISP}, Over6: []Kind{InLISP6}, Automatic: true},
	{Name: "4in4", Layers: []Kind{FourInFour}},
	{Name: "4in6", Layers: []Kind{FourInSix}},
	{Name: "6in6", Layers: []Kind{SixInSix}},
	{Name: "map_e", Layers: []Kind{FourInSix}, Automatic: true},
	{Name: "lw4o6", Layers: []Kind{FourInSix}, Automatic: true},
	{Name: "gre", Layers: []Kind{GREInFour}},
	{Name: "gre6", Layers: []Kind{GREInSix}},
	{Name: "seal", Layers: []Kind{InSEAL}},
	{Name: "ayiya", Layers: []Kind{SixInFour}, Session: true},
	{Name: "heartbeat", Layers: []Kind{SixInFour}, Session: true},
	{Name: "tic", Layers: []Kind{SixInFour}, Session: true},
	{Name: "tsp", Layers: []Kind{SixInFour}, Session: true},
	{Name: "json", Layers: []Kind{SixInFour}, Session: true},
}

// ModeByName finds a mode by its name in the configuration.
func ModeByName(name string) (Mode, bool) {
	for _, m := range Modes {
		if m.Name == name {
			return m, true
		}
	}
	return Mode{}, false
}

// To6 returns the mode with IPv6 as delivery header. It is for modes that have Over6, and those
// with a session.
func (m Mode) To6() Mode {
	if m.Layers = m.Over6; m.Layers == nil {
		m.Layers = []Kind{SixInSix}
	}
	return m
}

// Needs6 reports whether a layer of the stack is delivered over IPv6.
func (m Mode) Needs6() bool {
	return slices.ContainsFunc(m.Layers, func(k Kind) bool { return k.Over() == 6 })
}

// Carries reports whether a layer of the stack carries the IP version.
func (m Mode) Carries(version int) bool {
	return slices.ContainsFunc(m.Layers, func(k Kind) bool { return k.Carries(version) })
}

// MaxDepth is how many layers a host may put around a packet in all the tunnels that the
// packet passes: the limit that RFC 2473 section 4.1.1 recommends.
const MaxDepth = 4

// PathMTU is the size of the largest outer packet that the path to the peer carries
// whole, in bytes and with every header.
type PathMTU int

// LeastPathMTU is the smallest MTU of an IPv4 path that is believed when routers report
// it, like the kernel's net.ipv4.route.min_pmtu: with a smaller one, a forged report
// could make us cut every packet into dozens of fragments. The path may carry less than
// that, so DF is clear there (RFC 1191 section 3 allows a sender this choice).
const LeastPathMTU PathMTU = 552

// TunnelMTU is the size of the largest inner packet, in bytes: the MTU of the interface.
type TunnelMTU int

// The minimum MTUs of IPv4 (RFC 791) and of IPv6 (RFC 8200 section 5).
const (
	MinTunnelMTU4 TunnelMTU = 68
	MinTunnelMTU6 TunnelMTU = 1280
)
