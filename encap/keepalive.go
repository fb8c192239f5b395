package encap

import (
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Return says how a router's keepalive goes back to it.
type Return uint8

const (
	NoReturn     Return = iota // the packet is no keepalive
	ReturnBare                 // as it is, between the outer addresses
	ReturnInside               // through the tunnel, like a packet that is forwarded into it
)

// Keepalive tells whether an inner packet is the keepalive of a router, and how it goes
// back: an answer that the router has written to itself, in GRE with no protocol, and
// that only needs to be sent on (mechanisms 8). Own is whether Decapsulate refused the
// packet with drop.OwnSource. One is taken off its TTL, as is done when a packet is
// forwarded.
//
// The answer is from our outer address to the router's. Behind a NAT a router does not
// know its own address as we know it, and if we are behind one it does not know ours.
// So one of the two is enough, and both are what we know of them afterwards: the answer
// goes to the router and to nobody else. Some routers write their answer between the
// inner addresses. It goes back through the tunnel.
func (s *Stack) Keepalive(inner []byte, own bool) Return {
	last := s.layers[len(s.layers)-1]
	if !last.Kind.IsGRE() {
		return NoReturn
	}
	src, dst, ok := keepaliveEnds(inner)
	switch {
	case !ok:
		return NoReturn
	case header.Version(inner) == last.Kind.Over() && (src == last.Local || dst == last.Remote):
		forwardOne(inner, last.Local, last.Remote)
		return ReturnBare
	case own:
		forwardOne(inner, src, dst)
		return ReturnInside
	}
	return NoReturn
}

// keepaliveEnds are the addresses of an answer that may be sent on, if that is what an
// inner packet is.
func keepaliveEnds(inner []byte) (src, dst netip.Addr, ok bool) {
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		return ip.Src(), ip.Dst(), ip.NextHeader() == header.GRE && ip.HopLimit() > 1 && answersKeepalive(ip.Payload())
	}
	ip := header.IPv4(inner)
	return ip.Src(), ip.Dst(), ip.Protocol() == header.GRE && !ip.IsFragment() && ip.TTL() > 1 && answersKeepalive(ip.Payload())
}

// forwardOne makes an inner packet one from src to dst, with one less of its TTL.
func forwardOne(inner []byte, src, dst netip.Addr) {
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		copy(ip.Source(), src.AsSlice())
		copy(ip.Dest(), dst.AsSlice())
		ip[7]--
		return
	}
	ip := header.IPv4(inner)
	copy(ip.Source(), src.AsSlice())
	copy(ip.Dest(), dst.AsSlice())
	ip[8]--
	ip.SetChecksum()
}

// answersKeepalive reports whether a GRE packet is what the sender of a keepalive
// waits for: of no protocol.
func answersKeepalive(b []byte) bool {
	h, r := header.ParseGRE(b)
	return r == drop.None && h.Protocol == header.GREKeepalive
}
