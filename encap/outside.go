package encap

import (
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// EndOf returns the layer over IPv6, inside another layer, whose far end sent a packet
// to our end of it.
func (s *Stack) EndOf(pkt []byte) (layer int, ok bool) {
	if len(pkt) < header.IPv6Len || header.Version(pkt) != 6 {
		return 0, false
	}
	for i, l := range slices.Backward(s.in[:len(s.in)-1]) {
		if l, is := l.(*over6); is && l.pair.Accepts6(header.IPv6(pkt)) == drop.None {
			return i, true
		}
	}
	return 0, false
}

// EncapsulateOutside is Encapsulate for the IPv6 packet b[off:] from our end of a layer
// to its far end: only the headers outside the layer are written in front of it. The
// layer is one that EndOf returns.
func (s *Stack) EncapsulateOutside(layer int, b []byte, off int) ([]byte, drop.Reason) {
	t, entry := s.enter4, s.at4
	if t == nil || s.enter6 != nil && s.at6 < entry {
		t, entry = s.enter6, s.at6
	}
	for ; t != nil && entry <= layer; entry++ {
		t = t.outside
	}
	switch {
	case t == nil:
		return nil, drop.NoRoute
	case len(b)-off > t.limit:
		return nil, drop.TooBig
	}
	start, r := t.encapsulate(b, off, nil, fieldsOf(b[off:]), 0)
	return b[start:], r
}
