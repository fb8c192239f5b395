package encap

import (
	"iter"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// InPieces reports whether a packet that is larger than Limit may be carried
// nevertheless, in pieces. An IPv4 packet that its sender lets be fragmented goes
// in fragments of its own into IPv4 (RFC 2003 section 5.1, RFC 7588 section 3.3),
// and in fragments of the packet of the layer at which it enters into IPv6 (RFC
// 2473 section 7.2). So does an IPv6 packet that is no larger than every path must
// carry (7.1). Of the packet, of size bytes, the IP header is enough.
func (s *Stack) InPieces(inner []byte, size int) bool {
	t := s.enter(inner)
	switch {
	case t == nil:
		return false
	case header.Version(inner) == 4:
		return header.IPv4(inner).MayFragment()
	}
	return t.parts[0].over == 6 && size <= int(MinTunnelMTU6)
}

// EncapsulatePieces is Encapsulate for a packet of which InPieces says so. Every
// outer packet is built in scratch, which must have room for Headroom bytes and
// the path MTU, and is valid until the next one. B is written to as Encapsulate
// does.
func (s *Stack) EncapsulatePieces(b []byte, off int, scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	t := s.enter(b[off:])
	if t.parts[0].over == 4 {
		return t.each(fragment.IPv4(b[off:], t.limit, scratch, Headroom), scratch)
	}
	// The header of the layer alone: those outside stand in front of each piece.
	own := *t
	own.parts, own.size, own.outside = t.parts[:1], t.parts[0].size, nil
	own.bytes = append(make([]byte, max(0, short-own.size)), t.bytes[len(t.bytes)-own.size:]...)
	_, r := own.put(b, off, nil, fieldsOf(b[off:]))
	if r != drop.None {
		return func(yield func([]byte, drop.Reason) bool) { yield(nil, r) }
	}
	whole, id := b[off-own.size:], s.record.nextID6()
	if t.outside == nil {
		pieces := fragment.IPv6(whole, t.limit+own.size, id, scratch, 0)
		return func(yield func([]byte, drop.Reason) bool) {
			pieces(func(p []byte) bool { return yield(p, drop.None) })
		}
	}
	return t.outside.each(fragment.IPv6(whole, t.outside.limit, id, scratch, Headroom), scratch)
}

// each puts the headers in front of pieces, which lie in scratch behind Headroom.
func (t *template) each(pieces iter.Seq[[]byte], scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) {
		for piece := range pieces {
			start, r := t.put(scratch[:Headroom+len(piece)], Headroom, nil, fieldsOf(piece))
			if !yield(scratch[start:Headroom+len(piece)], r) {
				return
			}
		}
	}
}

// enter is the template for a packet; nil: no layer carries it.
func (s *Stack) enter(inner []byte) *template {
	if header.Version(inner) == 4 {
		return s.enter4
	}
	return s.enter6
}

// Cut cuts an outer packet of the stack into what a path of an MTU carries, where
// the packet has not forbidden it. Every piece is built in scratch, which must have
// room for the MTU, and is valid until the next one.
func (s *Stack) Cut(outer []byte, mtu PathMTU, scratch []byte) iter.Seq[[]byte] {
	if s.outer == 4 {
		return fragment.IPv4(outer, int(mtu), scratch, 0)
	}
	return fragment.IPv6(outer, int(mtu), s.record.nextID6(), scratch, 0)
}
