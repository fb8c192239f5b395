package engine

import (
	"net/netip"
	"slices"

	"sixfour/encap"
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
	path    *dataPath
	layers  []encap.Layer // innermost first
	options encap.Options
	version int // of the settings of the tunnel from which the wire was made
	hop     hop
	mtu     encap.PathMTU // path MTU as far as known; not larger than that of the first hop
	by      pathmtu.Source
	life    liveness.Settings // Every is 0: no liveness checks
	between []probe.Pair      // inner addresses that the two ends may have
	stack   *encap.Stack
	clamp   clamp
	senders []transport.Sender // one for each queue
}

// hop is the first hop of a path. Without an AF_XDP port, packets use sockets only, and
// from and to are zero.
type hop struct {
	device   int           // index of the interface
	on       string        // name of the interface
	mtu      encap.PathMTU // of the interface or the route
	port     *xdp.Port
	from, to [6]byte // Ethernet addresses
}

// outer returns the outermost layer, whose addresses are in the packets that leave the
// host.
func (w *Wire) outer() *encap.Layer { return &w.layers[len(w.layers)-1] }

// automatic reports whether outer destinations are derived from the packets.
func (w *Wire) automatic() bool {
	return slices.ContainsFunc(w.layers, func(l encap.Layer) bool { return l.Resolver != nil })
}

// is reports whether a wire, which may be nil, has the given layers and first-hop MTU.
func (w *Wire) is(layers []encap.Layer, hop encap.PathMTU) bool {
	return w != nil && w.hop.mtu == hop && slices.Equal(w.layers, layers)
}

// same reports whether two wires have the same layers and hops and make the same packets.
// The first may be nil.
func (w *Wire) same(o *Wire) bool {
	return w.is(o.layers, o.hop.mtu) && w.mtu == o.mtu && w.by == o.by && w.hop == o.hop && w.version == o.version && slices.Equal(w.between, o.between)
}

// send sends one packet outside a batch, and fragments it if necessary.
func (w *Wire) send(pkt, scratch []byte) error {
	for f := range w.stack.Cut(pkt, w.mtu, scratch) {
		if err := w.senders[0].SendOne(f); err != nil {
			return err
		}
	}
	return nil
}

// clamp is the largest inner TCP packet by IP version; 0: no limit. It is part of the
// wire, so that new connections fit it.
type clamp struct{ ipv4, ipv6 encap.TunnelMTU }

// apply lowers the MSS option of a TCP SYN.
func (c *clamp) apply(inner []byte) {
	mtu := c.ipv4
	if header.Version(inner) == 6 {
		mtu = c.ipv6
	}
	if mtu != 0 {
		encap.ClampMSS(inner, mtu)
	}
}

// groups returns the multicast groups at which a layer receives packets.
func groups(l *encap.Layer) []netip.Addr {
	if j, ok := l.Resolver.(resolve.Joiner); ok {
		return j.Groups()
	}
	return nil
}
