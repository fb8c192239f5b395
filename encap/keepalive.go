package encap

import (
	"net/netip"

	"sixfour/encap/header"
)

// Return says how the keepalive of a router is sent back.
type Return uint8

const (
	NoReturn     Return = iota // the packet is not a keepalive
	ReturnBare                 // unchanged, between the outer addresses
	ReturnInside               // through the tunnel, like a packet that is forwarded into it
)

// Keepalive reports whether an inner packet is the keepalive of a router, and how to
// send it back. A keepalive contains the answer that the router expects, written by the
// router itself: a GRE header with protocol type 0, which only has to be sent on
// (mechanisms 8). Own is whether Decapsulate refused the packet with drop.OwnSource.
// Keepalive decrements the TTL of a packet that goes back bare, as for a forwarded packet,
// and sets that of a packet that goes back inside to 1.
//
// The answer goes from our outer address to the router's. A router behind a NAT does not
// know the address by which we know it, and if we are behind one, the router does not
// know ours. So only one of the two addresses has to match. Keepalive then sets both to
// the addresses that we know, so the answer goes only to the router. Some routers write
// their answer between the inner addresses. Such an answer goes back through the tunnel.
func (s *Stack) Keepalive(inner []byte, own bool) Return {
	if !s.echoes {
		return NoReturn
	}
	last := &s.layers[len(s.layers)-1]
	back, src, dst, ttl := s.keepalive(inner, own)
	switch back {
	case ReturnBare:
		returnTo(inner, last.Local, last.Remote, ttl-1)
	case ReturnInside:
		// A router is a neighbour inside the tunnel. Where another host has the source
		// address as well, such as one that all hosts give to a bridge, the answer must not
		// come back for ever.
		returnTo(inner, src, dst, 1)
	}
	return back
}

// IsKeepalive reports whether Keepalive would return another value than NoReturn.
func (s *Stack) IsKeepalive(inner []byte, own bool) bool {
	return s.echoes && s.returns(inner, own)
}

func (s *Stack) returns(inner []byte, own bool) bool {
	back, _, _, _ := s.keepalive(inner, own)
	return back != NoReturn
}

// keepalive returns how an inner packet goes back, and the addresses and the TTL that it
// has.
func (s *Stack) keepalive(inner []byte, own bool) (back Return, src, dst netip.Addr, ttl byte) {
	last := &s.layers[len(s.layers)-1]
	src, dst, ttl, ok := s.keepaliveEnds(inner)
	switch {
	case !ok:
	case header.Version(inner) == last.Kind.Over() && (src == last.Local || dst == last.Remote):
		back = ReturnBare
	case own:
		back = ReturnInside
	}
	return back, src, dst, ttl
}

// isKeepalive reports whether what follows an inner IP header is the answer to a keepalive.
func (s *Stack) isKeepalive(protocol byte, payload []byte) bool {
	_, ok := s.layers[len(s.layers)-1].Kind.OpenKeepalive(protocol, payload)
	return ok
}

// keepaliveEnds returns the addresses and the TTL of the answer that an inner packet
// contains, if the packet is such an answer.
func (s *Stack) keepaliveEnds(inner []byte) (src, dst netip.Addr, ttl byte, ok bool) {
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		return ip.Src(), ip.Dst(), ip[7], ip.HopLimit() > 1 && s.isKeepalive(ip.NextHeader(), ip.Payload())
	}
	ip := header.IPv4(inner)
	return ip.Src(), ip.Dst(), ip[8], !ip.IsFragment() && ip.TTL() > 1 && s.isKeepalive(ip.Protocol(), ip.Payload())
}

// returnTo sets the addresses and the TTL of an inner packet.
func returnTo(inner []byte, src, dst netip.Addr, ttl byte) {
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		copy(ip.Source(), src.AsSlice())
		copy(ip.Dest(), dst.AsSlice())
		ip[7] = ttl
		return
	}
	ip := header.IPv4(inner)
	copy(ip.Source(), src.AsSlice())
	copy(ip.Dest(), dst.AsSlice())
	ip[8] = ttl
	ip.SetChecksum()
}
