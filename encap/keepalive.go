package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Keepalive reports whether an inner packet, with which Decapsulate returned
// drop.OwnSource, is the keepalive of a router: an answer that it has written to
// itself, in GRE and from our address to its own, and which needs only to be sent
// on (mechanisms 8). One is taken off its TTL, as is done when a packet is
// forwarded.
func (s *Stack) Keepalive(inner []byte) bool {
	last := s.layers[len(s.layers)-1]
	if !last.Kind.IsGRE() || header.Version(inner) != last.Kind.Over() {
		return false
	}
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		if ip.NextHeader() != header.GRE || ip.Src() != last.Local || ip.Dst() != last.Remote || ip.HopLimit() < 2 || !answersKeepalive(ip.Payload()) {
			return false
		}
		ip[7]--
		return true
	}
	ip := header.IPv4(inner)
	if ip.Protocol() != header.GRE || ip.IsFragment() || ip.Src() != last.Local || ip.Dst() != last.Remote || ip.TTL() < 2 || !answersKeepalive(ip.Payload()) {
		return false
	}
	ip[8]--
	ip.SetChecksum()
	return true
}

// answersKeepalive reports whether a GRE packet is what the sender of a keepalive
// waits for: of no protocol.
func answersKeepalive(b []byte) bool {
	h, r := header.ParseGRE(b)
	return r == drop.None && h.Protocol == header.GREKeepalive
}
