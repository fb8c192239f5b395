package configfile

import (
	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/seal"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// isSealed reports whether a layer has a SEAL header.
func isSealed(l layerDraft) bool {
	_, sealed := l.kind.Framing().(framing.SEAL)
	return sealed
}

// readSEALPort reads the UDP port of packets with a SEAL header, which is the same as a path in
// "fou". Their UDP checksum is 0.
func readSEALPort(r *problem.Report, e tree.Entry, d *draft) {
	n, _, ok := value.Number(r, e, 0, 1<<16-1)
	_, given := d.Source.Keys["path"]
	switch last := len(d.layers) - 1; {
	case !ok || !d.known() || n == 0 && isSealed(d.layers[last]):
	case !isSealed(d.layers[last]):
		r.Add(e.KeyAt, `udp_port contradicts %s, whose outermost layer has no SEAL header: leave it out, or choose mode "seal"`, d.what())
	case given:
		r.Add(e.KeyAt, `udp_port contradicts path, whose encap says what packets travel in: leave it out, and set encap to "fou" and port to %d there`, n)
	default:
		p := &pathDraft{header: e.KeyAt, in: d, hub: d.Hub}
		p.setEncap("fou")
		p.Port, p.LocalPort, p.Checksum = uint16(n), uint16(n), false
		d.paths = []*pathDraft{p}
	}
}

// readIdentification reads the identification of the first packet.
func readIdentification(r *problem.Report, e tree.Entry, d *draft) {
	if d.known() && !d.has(isSealed) {
		r.Add(e.KeyAt, `identification contradicts %s, which has no SEAL header: leave it out, or choose mode "seal"`, d.what())
		return
	}
	d.seal.Given, d.seal.First = value.Word32(r, e)
}

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
