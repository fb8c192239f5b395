package encap

import (
	"iter"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// InPieces reports whether a packet that is larger than Limit may be carried
// nevertheless, in pieces. An IPv4 packet that its sender lets be fragmented goes
// in fragments of its own into IPv4 (RFC 2003 section 5.1, RFC 7588 section 3.3),
// and in fragments of the packet of the layer at which it enters into IPv6 (RFC
// 2473 section 7.2). So does an IPv6 packet that is no larger than every path must
// carry (7.1), if there is a layer over IPv6 on its way. Where DF is to be ignored, an
// IPv4 packet that has it goes in fragments of that layer's packet into IPv4, too: it
// need not have an identification of its own (RFC 6864 section 4.1). Of the packet, of
// size bytes, the IP header is enough.
func (s *Stack) InPieces(inner []byte, size int) bool {
	t, _ := s.enter(inner)
	switch {
	case t == nil:
		return false
	case header.Version(inner) == 4:
		return !s.keepsWhole(inner)
	}
	return t.first6() >= 0 && size <= int(MinTunnelMTU6)
}

// EncapsulatePieces is Encapsulate for a packet of which InPieces says so. Every
// outer packet is built in scratch, which must have room for Headroom bytes and
// the path MTU, and is valid until the next one. B is written to as Encapsulate
// does.
func (s *Stack) EncapsulatePieces(b []byte, off int, scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	t, limit := s.enter(b[off:])
	if header.Version(b[off:]) == 4 && t.parts[0].over == 4 {
		if s.cut4 != nil && !header.IPv4(b[off:]).MayFragment() {
			return s.piecesOutside(t, b, off, scratch)
		}
		return t.each(fragment.IPv4(b[off:], t.limit, scratch, Headroom), scratch, 0)
	}
	if int(limit) < t.limited {
		return refused(drop.EncapLimit)
	}
	// The headers up to that which is cut: those outside stand in front of each
	// piece.
	own, outside := t.upTo(t.first6())
	if len(b)-off+own.size > header.IPv6Len+65535 {
		return refused(drop.TooBig)
	}
	start, r := own.encapsulate(b, off, nil, fieldsOf(b[off:]), limit)
	if r != drop.None {
		return refused(r)
	}
	whole, id := b[start:], s.record.nextID6()
	if outside == nil {
		pieces := fragment.IPv6(whole, t.limit+own.size, id, scratch, 0)
		return func(yield func([]byte, drop.Reason) bool) {
			pieces(func(p []byte) bool { return yield(p, drop.None) })
		}
	}
	return outside.each(fragment.IPv6(whole, outside.limit, id, scratch, Headroom), scratch, limit-byte(own.limited))
}

// piecesOutside is EncapsulatePieces for an IPv4 packet with DF, which enters a layer
// over IPv4.
func (s *Stack) piecesOutside(t *template, b []byte, off int, scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	if len(b)-off+s.cut4.size > maxIPv4 {
		return refused(drop.TooBig)
	}
	f := fieldsOf(b[off:])
	f.df = false
	start, r := s.cut4.encapsulate(b, off, nil, f, 0)
	if r != drop.None {
		return refused(r)
	}
	whole := b[start:]
	if t.outside != nil {
		return t.outside.each(fragment.IPv4(whole, t.outside.limit, scratch, Headroom), scratch, 0)
	}
	return func(yield func([]byte, drop.Reason) bool) {
		fragment.IPv4(whole, t.limit+s.cut4.size, scratch, 0)(func(p []byte) bool { return yield(p, drop.None) })
	}
}

// refused is what becomes of a packet of which there are no pieces.
func refused(r drop.Reason) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) { yield(nil, r) }
}

// first6 is the innermost layer over IPv6; less than 0: there is none.
func (t *template) first6() int {
	return slices.IndexFunc(t.parts, func(p part) bool { return p.over == 6 })
}

// upTo cuts the template behind its nth part.
func (t *template) upTo(n int) (own *template, outside *template) {
	size := 0
	own, outside = &template{parts: t.parts[:n+1], limit: t.limit, unfinished: t.unfinished}, t
	for i := range own.parts {
		size += own.parts[i].size
		if own.parts[i].limited {
			own.limited++
		}
		outside = outside.outside
	}
	own.write(t.bytes[len(t.bytes)-size:])
	return own, outside
}

// each puts the headers in front of pieces, which lie in scratch behind Headroom,
// of a packet with what is left of an encapsulation limit.
func (t *template) each(pieces iter.Seq[[]byte], scratch []byte, limit byte) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) {
		for piece := range pieces {
			start, r := t.encapsulate(scratch[:Headroom+len(piece)], Headroom, nil, fieldsOf(piece), limit)
			if !yield(scratch[start:Headroom+len(piece)], r) {
				return
			}
		}
	}
}

// enter is the template for a packet, nil if no layer carries it, and the
// encapsulation limit that the packet carries, if that is for limited templates.
func (s *Stack) enter(inner []byte) (*template, byte) {
	if header.Version(inner) == 4 {
		return s.enter4, 0
	}
	if t, limit, found := s.limited(header.IPv6(inner)); found {
		return t, limit
	}
	return s.enter6, 0
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
