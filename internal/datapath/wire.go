package datapath

import (
	"net/netip"
	"slices"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/liveness"
	"sixfour/internal/pathmtu"
	"sixfour/internal/probe"
	"sixfour/transport"
	"sixfour/transport/xdp"
)

// Wire is how the packets of a path are sent and received now: their headers, their sizes,
// and the sockets. It is immutable; another one replaces it.
type Wire struct {
	Path    *Path
	Layers  []encap.Layer // innermost first
	Options encap.Options
	Version int // of the settings of the tunnel from which the wire was made
	Hop     Hop
	MTU     encap.PathMTU // path MTU as far as known; not larger than that of the first hop
	By      pathmtu.Source
	Life    liveness.Settings // Every is 0: no liveness checks
	Between []probe.Pair      // inner addresses that the two ends may have
	Stack   *encap.Stack
	Clamp   Clamp
	Whole   int                // larger inner packets are cut in two pieces, if the tunnel does that at all
	Senders []transport.Sender // one for each queue

	// Unsummed means that the senders write the checksum of the outermost UDP header.
	Unsummed bool
}

// Hop is the first hop of a path. Without an AF_XDP port, packets use sockets only, and
// from and to are zero.
type Hop struct {
	Device    int           // index of the interface
	Interface string        // name of the interface
	MTU       encap.PathMTU // of the interface or the route
	Port      *xdp.Port
	From, To  [6]byte // Ethernet addresses
}

// Outer returns the outermost layer, whose addresses are in the packets that leave the
// host.
func (w *Wire) Outer() *encap.Layer { return &w.Layers[len(w.Layers)-1] }

// encapsulate wraps a packet whose headers are in b[off:] and whose payload, tail, is
// elsewhere, for the senders of the wire.
func (w *Wire) encapsulate(b []byte, off int, tail []byte) ([]byte, drop.Reason) {
	if w.Unsummed {
		return w.Stack.EncapsulateUnsummed(b, off, tail)
	}
	return w.Stack.EncapsulateSegment(b, off, tail)
}

// sum completes a packet that encapsulate has made, before it is shown, fragmented, or sent
// through other senders than those of the wire.
func (w *Wire) sum(pkt *transport.Packet) {
	if w.Unsummed {
		header.WriteUDPChecksum(pkt.Head, pkt.Body)
	}
}

// Automatic reports whether outer destinations are derived from the packets.
func (w *Wire) Automatic() bool {
	return slices.ContainsFunc(w.Layers, func(l encap.Layer) bool { return l.Resolver != nil })
}

// StackTo returns a stack for packets of our own on the wire of an automatic tunnel. The
// given resolver, instead of the mechanism's own, decides on their outer destination.
func (w *Wire) StackTo(r resolve.Resolver) (*encap.Stack, error) {
	layers := slices.Clone(w.Layers)
	for i := range layers {
		if layers[i].Resolver != nil {
			layers[i].Resolver = r
		}
	}
	return encap.New(layers, w.MTU, w.Options, nil, w.Path.Record)
}

// StaticHop is a static next hop: a resolver that always returns the same outer address.
type StaticHop struct{ Endpoint resolve.Endpoint }

// To returns the outer address.
func (h *StaticHop) To([]byte) (resolve.Endpoint, drop.Reason) { return h.Endpoint, drop.None }

// From accepts no packet: a static next hop is only for sending.
func (h *StaticHop) From(_, _ resolve.Endpoint, _ []byte) drop.Reason { return drop.ForeignSource }

// CarriesIPv4 says that packets of both IP versions have this next hop.
func (h *StaticHop) CarriesIPv4() {}

// Is reports whether a wire, which may be nil, has the given layers and first-hop MTU.
func (w *Wire) Is(layers []encap.Layer, hop encap.PathMTU) bool {
	return w != nil && w.Hop.MTU == hop && slices.Equal(w.Layers, layers)
}

// Same reports whether two wires have the same layers and hops and make the same packets.
// The first may be nil.
func (w *Wire) Same(o *Wire) bool {
	return w.Is(o.Layers, o.Hop.MTU) && w.MTU == o.MTU && w.By == o.By && w.Hop == o.Hop && w.Version == o.Version && slices.Equal(w.Between, o.Between)
}

// Clamp is the largest inner TCP packet by IP version; 0: no limit. It is part of the
// wire, so that new connections fit it.
type Clamp struct{ IPv4, IPv6 encap.TunnelMTU }

// apply lowers the MSS option of a TCP SYN.
func (c *Clamp) apply(inner []byte) {
	mtu := c.IPv4
	if header.Version(inner) == 6 {
		mtu = c.IPv6
	}
	if mtu != 0 {
		encap.ClampMSS(inner, mtu)
	}
}

// Groups returns the multicast groups at which a layer receives packets.
func Groups(l *encap.Layer) []netip.Addr {
	if j, ok := l.Resolver.(resolve.Joiner); ok {
		return j.Groups()
	}
	return nil
}
