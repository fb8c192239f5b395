package configfile

import (
	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/seal"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// readReserve reads the size of the packets that pass any path. It is also the MTU of the
// interface.
func readReserve(r *problem.Report, e tree.Entry, d *draft) {
	n, _, ok := value.Number(r, e, int64(encap.MinTunnelMTU6), 9000)
	mtu, given := d.Source.Keys["mtu"]
	switch {
	case !ok || !d.known():
	case d.Mode.Session:
		r.Add(e.KeyAt, "reserve contradicts %s: the server does not join the two pieces of a packet: leave it out", d.what())
	case d.Mode.Automatic && d.Mode.Carries(4):
		r.Add(e.KeyAt, "reserve contradicts %s: the second piece of a packet has no ports, by which the other end is found: leave it out", d.what())
	case given && !d.state.Bad["mtu"] && d.MTU != 0 && int64(d.MTU) != n:
		r.Add(mtu, "mtu contradicts reserve, which is the MTU of the interface: leave it out")
	case int(n) > d.mostInPieces():
		r.Add(e.At, "reserve is %d: two pieces carry at most %d over a path of %d bytes: set it to 1500, or less", n, d.mostInPieces(), encap.MinTunnelMTU6)
	default:
		d.Reserve, d.MTU = int(n), encap.TunnelMTU(n)
	}
}

// mostInPieces returns the size of the largest packet that two pieces carry over a path of 1280
// bytes, with the mode's own headers.
func (d *draft) mostInPieces() int {
	one := int(encap.MinTunnelMTU6) - encap.Overhead(d.bare(), d.Options) - header.IPv6Len - seal.HeaderLen
	return header.IPv6Len + one&^7 + one
}
