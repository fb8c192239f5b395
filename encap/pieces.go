package encap

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// InPieces reports whether a packet that is larger than Limit may be carried in pieces.
// An IPv4 packet whose sender allows fragmentation is fragmented before it enters IPv4
// (RFC 2003 section 5.1, RFC 7588 section 3.3) or LISP (RFC 9300 section 5.4.1). Before it
// enters IPv6 otherwise, the packet of the layer at which it enters is fragmented (RFC
// 2473 section 7.2). The latter also holds
// for an IPv6 packet that is no larger than the minimum IPv6 MTU (7.1), if the packet
// passes a layer over IPv6. If DF is to be ignored, an IPv4 packet with DF that enters
// IPv4 is carried in fragments of the layer's packet as well, because it need not have
// an identification of its own (RFC 6864 section 4.1). Size is the length of the packet
// in bytes; inner needs only the IP header.
func (s *Stack) InPieces(inner []byte, size int) bool {
	t, _ := s.enter(inner)
	switch {
	case t == nil:
		return false
	case s.Sealed():
		_, ok := t.sealedPart(size)
		return ok
	case header.Version(inner) == 4:
		return !s.keepsWhole(inner)
	}
	return t.first6() >= 0 && size <= int(MinTunnelMTU6)
}

// EncapsulatePieces is Encapsulate for a packet for which InPieces returns true. Each
// outer packet is built in scratch, which must have room for Headroom bytes and the path
// MTU, and is valid until the next one. Like Encapsulate, it writes to b.
//
// With a reason, there is no outer packet. If the reason is drop.Unresolved, and the inner
// packet was fragmented, its fragment is returned instead, and others may follow.
func (s *Stack) EncapsulatePieces(b []byte, off int, scratch []byte) iter.Seq2[[]byte, drop.Reason] {
	t, limit := s.enter(b[off:])
	if s.Sealed() {
		return s.sealedPieces(t, b, off, scratch, limit)
	}
	if header.Version(b[off:]) == 4 && s.cutsBefore(t, b[off:]) {
		if s.cut4 != nil && !header.IPv4(b[off:]).MayFragment() {
			return s.piecesOutside(t, b, off, scratch)
		}
		return t.each(fragment.IPv4(b[off:], s.fragmentSize(t, b[off:]), scratch, Headroom), scratch, 0, true)
	}
	if int(limit) < t.limited {
		return refused(drop.EncapLimit)
	}
	// inside holds the headers up to and including the one that is fragmented. The headers
	// outside it are written in front of each piece.
	inside, outside := t.upTo(t.first6())
	if len(b)-off+inside.size > header.IPv6Len+65535 {
		return refused(drop.TooBig)
	}
	most := t.limit + t.size // size of the outermost packets
	if mtu := s.mtuFor(b[off:]); mtu != 0 {
		most = min(most, max(int(mtu), s.leastWhole()))
	}
	start, r := inside.encapsulate(b, off, nil, fieldsOf(b[off:]), limit)
	if r != drop.None {
		return refused(r)
	}
	whole, id := b[start:], s.record.nextID6()
	if outside == nil {
		pieces := fragment.IPv6(whole, most, id, scratch, 0)
		return func(yield func([]byte, drop.Reason) bool) {
			pieces(func(p []byte) bool { return yield(p, drop.None) })
		}
	}
	return outside.each(fragment.IPv6(whole, min(outside.limit, most-outside.size), id, scratch, Headroom), scratch, limit-byte(inside.limited), false)
}

// cutsBefore reports whether an IPv4 packet is fragmented before it enters the stack at a
// template, and not the packet of a layer. RFC 9300 section 5.4.1 requires that over IPv6, too.
func (s *Stack) cutsBefore(t *template, inner []byte) bool {
	p := &t.parts[0]
	return p.over == 4 || p.session || p.halved && header.IPv4(inner).MayFragment()
}

// fragmentSize returns the size in bytes of the fragments of an inner IPv4 packet: what its
// path carries or, if the framing asks for that and they fit, half of the packet.
func (s *Stack) fragmentSize(t *template, inner []byte) int {
	limit := t.limit
	if s.layers[len(s.layers)-1].Resolver != nil {
		// The resolver may send fragments, which have no ports, elsewhere than whole packets.
		head := bytes.Clone(inner[:min(len(inner), header.IPv6Len)])
		binary.BigEndian.PutUint16(head[6:], header.IPv4(head).Fragment()|header.MF)
		limit = min(limit, int(s.LimitTo(head)))
	}
	if t.parts[0].halved {
		if n := fragment.Half(inner); n <= limit {
			return n
		}
	}
	return limit
}

// piecesOutside is EncapsulatePieces for an IPv4 packet with DF that enters a layer over
// IPv4.
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
		return t.outside.each(fragment.IPv4(whole, t.outside.limit, scratch, Headroom), scratch, 0, false)
	}
	return func(yield func([]byte, drop.Reason) bool) {
		fragment.IPv4(whole, t.limit+s.cut4.size, scratch, 0)(func(p []byte) bool { return yield(p, drop.None) })
	}
}

// refused returns the result for a packet that cannot be carried in pieces.
func refused(r drop.Reason) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) { yield(nil, r) }
}

// first6 returns the index of the innermost layer over IPv6 whose packets may be fragments,
// or a negative number if there is none.
func (t *template) first6() int {
	return slices.IndexFunc(t.parts, func(p part) bool { return p.over == 6 && !p.session })
}

// upTo splits the template after its nth part.
func (t *template) upTo(n int) (inside *template, outside *template) {
	size := 0
	inside, outside = &template{parts: slices.Clone(t.parts[:n+1]), limit: t.limit, unfinished: t.unfinished}, t
	inside.parts[n].whole = true
	for i := range inside.parts {
		size += inside.parts[i].size
		if inside.parts[i].limited {
			inside.limited++
		}
		outside = outside.outside
	}
	inside.allocate(size)
	copy(inside.bytes[len(inside.bytes)-size:], t.bytes[len(t.bytes)-size:])
	return inside, outside
}

// each writes the headers in front of the pieces of a packet. The pieces lie in scratch
// after Headroom bytes; limit is what is left of the packet's encapsulation limit. Inner says
// that they are of the inner packet: a refused one is returned as it is.
func (t *template) each(pieces iter.Seq[[]byte], scratch []byte, limit byte, inner bool) iter.Seq2[[]byte, drop.Reason] {
	return func(yield func([]byte, drop.Reason) bool) {
		for piece := range pieces {
			start, r := t.encapsulate(scratch[:Headroom+len(piece)], Headroom, nil, fieldsOf(piece), limit)
			pkt := scratch[start : Headroom+len(piece)]
			if r != drop.None {
				if pkt = nil; inner {
					pkt = piece
				}
			}
			if !yield(pkt, r) {
				return
			}
		}
	}
}

// enter returns the template for a packet, or nil if no layer carries it, and the
// encapsulation limit that the packet carries, for templates that use it.
func (s *Stack) enter(inner []byte) (*template, byte) {
	if header.Version(inner) == 4 {
		return s.enter4, 0
	}
	if t, limit, found := s.limited(header.IPv6(inner)); found {
		return t, limit
	}
	return s.enter6, 0
}

// Cut fragments an outer packet of the stack for a path with the given MTU, if the
// packet allows it; that of a session stays whole. Each piece is built in scratch, which must have room for the MTU,
// and is valid until the next one.
func (s *Stack) Cut(outer []byte, mtu PathMTU, scratch []byte) iter.Seq[[]byte] {
	switch {
	case s.layers[len(s.layers)-1].Kind.Properties().Session:
		return func(yield func([]byte) bool) { yield(outer) }
	case s.outer == 4:
		return fragment.IPv4(outer, int(mtu), scratch, 0)
	}
	return fragment.IPv6(outer, int(mtu), s.record.nextID6(), scratch, 0)
}
