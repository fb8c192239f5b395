package encap

import (
	"fmt"
	"net/netip"

	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// Layer is one layer of a stack, with its addresses.
type Layer struct {
	Kind Kind
	// The outer addresses, of the IP version that Kind.Over returns. Remote is not set if
	// there is a Resolver.
	Local, Remote netip.Addr
	// Resolver finds the outer destination of each packet. If it is nil, the destination is
	// Remote.
	Resolver resolve.Resolver
}

// overhead returns how many bytes the layer adds to a packet.
func (l Layer) overhead(o Options) int {
	p := l.Kind.Properties()
	return overheadOf(l.Kind.Over(), &p, o)
}

// overheadOf is Layer.overhead for a layer over an IP version whose framing has the given
// properties.
func overheadOf(over int, p *framing.Properties, o Options) int {
	n := header.IPv4Len
	if over == 6 {
		n = header.IPv6Len
		if o.EncapLimit != NoEncapLimit && !p.Session {
			n += header.EncapLimitLen
		}
	}
	return n + p.Overhead + p.Hidden
}

// check returns an error if an address is missing or of the wrong family.
func (l Layer) check() error {
	is := netip.Addr.Is4
	if l.Kind.Over() == 6 {
		is = netip.Addr.Is6
	}
	if !is(l.Local) || l.Resolver == nil && !is(l.Remote) {
		return fmt.Errorf("encap: layer %v needs a local and a remote IPv%d address, has %v and %v", l.Kind, l.Kind.Over(), l.Local, l.Remote)
	}
	p := l.Kind.Properties()
	if p.Overhead > framing.MaxLen {
		return fmt.Errorf("encap: layer %v has a header of %d bytes, which is longer than the %d that there is room for", l.Kind, p.Overhead, framing.MaxLen)
	}
	_, dual := l.Resolver.(resolve.DualResolver)
	if l.Resolver != nil && p.Carries4 && !dual {
		return fmt.Errorf("encap: layer %v cannot find its addresses itself", l.Kind)
	}
	return nil
}

// Endpoints are a tunnel's outer addresses. Local6 and Remote6 are the addresses of the
// layers over IPv6.
type Endpoints struct {
	Local, Remote   netip.Addr
	Local6, Remote6 netip.Addr
}

// Between returns the layers of the mode between two endpoints.
func (m Mode) Between(e Endpoints) []Layer {
	layers := make([]Layer, len(m.Layers))
	for i, k := range m.Layers {
		layers[i] = Layer{Kind: k, Local: e.Local, Remote: e.Remote}
		if k.Over() == 6 {
			layers[i].Local, layers[i].Remote = e.Local6, e.Remote6
		}
	}
	return layers
}

// Overhead returns how many bytes all layers add to a packet that enters at the
// innermost one (mechanisms 1.5).
func Overhead(layers []Layer, o Options) int {
	n := 0
	for _, l := range layers {
		n += l.overhead(o)
	}
	return n
}

// maxIPv4 is the largest value of the total length field of an IPv4 header. IPv6 packets
// are not made larger either.
const maxIPv4 = 65535

// MaxMTU returns the size of the largest inner packet for which the length field of the
// outermost header has room.
func MaxMTU(layers []Layer, o Options) TunnelMTU {
	return TunnelMTU(maxIPv4 - Overhead(layers, o))
}

// MTU returns the tunnel MTU: the path MTU less what all layers add (1440 of 1500 in
// 4in6in4). It is at least 1280 if the interface has IPv6 (ipv6), and at least 68
// otherwise: what then does not fit the path is carried in fragments of the outer packet
// (RFC 4213 3.2.2).
func MTU(layers []Layer, p PathMTU, o Options, ipv6 bool) TunnelMTU {
	least := MinTunnelMTU4
	if ipv6 {
		least = MinTunnelMTU6
	}
	return max(least, min(TunnelMTU(int(p)-Overhead(layers, o)), MaxMTU(layers, o)))
}
