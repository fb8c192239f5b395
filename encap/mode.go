package encap

import (
	"slices"

	"sixfour/encap/header"
)

// Kind names a layer: which IP version it carries over which.
type Kind uint8

const (
	SixInFour Kind = iota // RFC 4213: IPv6 in IPv4, protocol 41
	FourInSix             // RFC 2473: IPv4 in IPv6, next header 4
	SixInSix              // RFC 2473: IPv6 in IPv6, next header 41
)

// kinds is what is fixed about each layer, whatever its addresses.
var kinds = [...]struct {
	name    string
	carries int // IP version inside
	over    int // IP version of the delivery header
}{
	SixInFour: {"6in4", 6, 4},
	FourInSix: {"4in6", 4, 6},
	SixInSix:  {"6in6", 6, 6},
}

// String is the layer's name in the configuration's words.
func (k Kind) String() string { return kinds[k].name }

// Over is the IP version of the layer's delivery header, and so the version of
// the local and remote address that the layer needs.
func (k Kind) Over() int { return kinds[k].over }

// Carries is the IP version of the packets that the layer carries.
func (k Kind) Carries() int { return kinds[k].carries }

// overhead is what the layer adds to a packet, in bytes.
func (k Kind) overhead(o Options) int {
	if k.Over() == 4 {
		return header.IPv4Len
	}
	if o.EncapLimit != NoEncapLimit {
		return header.IPv6Len + header.EncapLimitLen
	}
	return header.IPv6Len
}

// Mode is a named stack of layers, innermost first. Inner packets enter it at
// the first layer that carries their IP version: in 4in6in4 an IPv4 packet
// passes both layers, and an IPv6 packet only the outer one.
type Mode struct {
	Name   string
	Layers []Kind
}

// Modes is the table of what can be configured as a tunnel's mode.
var Modes = []Mode{
	{"4in6in4", []Kind{FourInSix, SixInFour}},
	{"6in4", []Kind{SixInFour}},
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

// Overhead is the number of bytes that the whole stack adds to a packet that
// enters at its innermost layer (mechanisms 1.5).
func (m Mode) Overhead(o Options) int {
	n := 0
	for _, k := range m.Layers {
		n += k.overhead(o)
	}
	return n
}

// Needs6 reports whether a layer of the stack is delivered over IPv6, so that
// the tunnel needs the IPv6 layer's addresses (local6, remote6).
func (m Mode) Needs6() bool {
	return slices.ContainsFunc(m.Layers, func(k Kind) bool { return k.Over() == 6 })
}

// Carries reports whether a layer of the stack carries the IP version.
func (m Mode) Carries(version int) bool {
	return slices.ContainsFunc(m.Layers, func(k Kind) bool { return k.Carries() == version })
}

// MaxDepth is how many layers a host may put around a packet, in all the tunnels
// that it passes: what RFC 2473 section 4.1.1 recommends as a limit.
const MaxDepth = 4

// PathMTU is the largest outer packet that the path to the peer carries whole,
// in bytes and with every header.
type PathMTU int

// TunnelMTU is the largest inner packet, in bytes: the MTU of the interface.
type TunnelMTU int

// The least MTUs: of IPv4 (RFC 791) and of IPv6 (RFC 8200 section 5).
const (
	MinTunnelMTU4 TunnelMTU = 68
	MinTunnelMTU6 TunnelMTU = 1280
)

// maxIPv4 is what the total length field of an IPv4 header can say.
const maxIPv4 = 65535

// MaxTunnelMTU is the largest inner packet that the length field of the
// outermost header leaves room for.
func (m Mode) MaxTunnelMTU(o Options) TunnelMTU {
	return TunnelMTU(maxIPv4 - m.Overhead(o))
}

// TunnelMTU is the MTU that the stack leaves of a path's: the path MTU less the
// overhead of all layers (1440 of 1500 in 4in6in4). The interface's MTU is at
// least 1280 if it has IPv6 (ipv6), at least 68 otherwise: what then does not
// fit the path is carried in fragments of the outer packet (RFC 4213 3.2.2).
func (m Mode) TunnelMTU(p PathMTU, o Options, ipv6 bool) TunnelMTU {
	least := MinTunnelMTU4
	if ipv6 {
		least = MinTunnelMTU6
	}
	return max(least, min(TunnelMTU(int(p)-m.Overhead(o)), m.MaxTunnelMTU(o)))
}
