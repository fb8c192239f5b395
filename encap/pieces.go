package encap

import (
	"iter"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// InPieces reports whether a packet that is larger than Limit may be carried
// nevertheless, in fragments of the IPv6 packet of the layer at which it enters:
// an IPv4 packet if its sender lets it be fragmented, an IPv6 packet if it is no
// larger than every path must carry (RFC 2473 sections 7.1 and 7.2). Of the
// packet, of size bytes, the IP header is enough.
func (s *Stack) InPieces(inner []byte, size int) bool {
	t := s.enter(inner)
	if t == nil || t.parts[0].over != 6 {
		return false
	}
	if t.parts[0].carries == 4 {
		return header.IPv4(inner).MayFragment()
	}
	return size <= int(MinTunnelMTU6)
}

// EncapsulatePieces is Encapsulate for a packet of which InPieces says so. Every
// outer packet is built in scratch, which must have room for Headroom bytes and
// the path MTU, and is valid until the next one. B is written to as Encapsulate
// does.
func (s *Stack) EncapsulatePieces(b []byte, off int, scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) {
		entry, whole, r := s.enclose(b, off)
		if r != drop.None {
			yield(nil, r)
			return
		}
		if entry == len(s.from)-1 { // nothing outside
			for piece := range fragment.IPv6(whole, s.from[entry].limit+s.from[entry].size, s.record.nextID6(), scratch, 0) {
				if !yield(piece, drop.None) {
					return
				}
			}
			return
		}
		outside := s.from[entry+1]
		for piece := range fragment.IPv6(whole, outside.limit, s.record.nextID6(), scratch, Headroom) {
			end := Headroom + len(piece)
			ip := header.IPv6(piece)
			start, r := outside.put(scratch[:end], Headroom, 0, ip.TrafficClass(), ip.HopLimit())
			if !yield(scratch[start:end], r) {
				return
			}
		}
	}
}

// enclose puts the header of the layer at which an inner packet enters in front
// of it, and returns which layer that is, and the layer's packet.
func (s *Stack) enclose(b []byte, off int) (entry int, whole []byte, r drop.Reason) {
	t := s.enter(b[off:])
	for entry < len(s.from)-1 && s.from[entry] != t {
		entry++
	}
	tos, ttl := header.IPv4(b[off:]).TOS(), header.IPv4(b[off:]).TTL()
	if header.Version(b[off:]) == 6 {
		tos, ttl = header.IPv6(b[off:]).TrafficClass(), header.IPv6(b[off:]).HopLimit()
	}
	if _, r = t.put(b, off, 0, tos, ttl); r != drop.None {
		return entry, nil, r
	}
	return entry, b[off-t.parts[0].size:], drop.None
}

// enter is the template of the layer at which a packet enters.
func (s *Stack) enter(inner []byte) *template {
	if header.Version(inner) == 4 {
		return s.enter4
	}
	return s.enter6
}
