package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// limitOffset is where the limit's value stands in a delivery header that has
// the option.
const limitOffset = header.IPv6Len + 4

// encapsulateLimited is EncapsulateSegment for an IPv6 packet that carries a
// tunnel encapsulation limit: what is left of it goes into our own option, which
// it then has even if none is configured (RFC 2473 section 4.1.1).
func (s *Stack) encapsulateLimited(b []byte, off int, tail []byte, limit byte) ([]byte, drop.Reason) {
	t := s.limited6
	if len(b)-off+len(tail) > t.limit {
		return nil, drop.TooBig
	}
	start, r := t.put(b, off, tail, fieldsOf(b[off:]))
	if r != drop.None {
		return nil, r
	}
	end := off
	for i := range t.parts {
		p := &t.parts[i]
		if p.over != 6 || p.carries != 6 {
			break
		}
		if limit == 0 {
			return nil, drop.EncapLimit
		}
		limit--
		b[end-p.size+limitOffset] = limit
		end -= p.size
	}
	return b[start:], drop.None
}
