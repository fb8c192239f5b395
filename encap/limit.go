package encap

import (
	"fmt"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// limitOffset is where the limit's value stands in a delivery header that has
// the option.
const limitOffset = header.IPv6Len + 4

// limited is the template for an IPv6 packet that carries a tunnel encapsulation
// limit, and the limit: what is left of it goes into our own options, which it then
// has even if none is configured (RFC 2473 section 4.1.1). Found is false if it
// carries none.
func (s *Stack) limited(ip header.IPv6) (t *template, limit byte, found bool) {
	if s.limited6 == nil {
		return nil, 0, false
	}
	at, found := header.FindEncapLimit(ip)
	if !found {
		return nil, 0, false
	}
	return s.limited6, ip[at], true
}

// encapsulateLimited is EncapsulateSegment for such a packet.
func (s *Stack) encapsulateLimited(b []byte, off int, tail []byte, t *template, limit byte) ([]byte, drop.Reason) {
	switch {
	case len(b)-off+len(tail) > t.limit:
		return nil, drop.TooBig
	case int(limit) < t.limited:
		return nil, drop.EncapLimit
	}
	start, r := t.encapsulate(b, off, tail, fieldsOf(b[off:]), limit)
	if r != drop.None {
		return nil, r
	}
	return b[start:], drop.None
}

// nested6 is how many of the stack's IPv6 headers stand directly inside that of a
// layer over IPv6.
func (b *builder) nested6(layer int) int {
	n := 0
	for i := layer; i > b.entry && b.layers[i-1].Kind.Over() == 6; i-- {
		n++
	}
	return n
}

// encapLimit is the limit in a layer's header over IPv6: each that enters another
// has one less (RFC 2473 section 4.1.1). If the packet carries one, 0 stands for
// what is left of that.
func (b *builder) encapLimit(layer int) int {
	n := b.nested6(layer)
	switch {
	case b.limited && layer-n == b.entry && b.layers[layer].Kind.Over() == 6:
		return 0
	case b.EncapLimit == NoEncapLimit:
		return NoEncapLimit
	}
	return b.EncapLimit - n
}

// checkLimit reports a configured limit that the stack's own layers exceed.
func (b *builder) checkLimit() error {
	if n := LeastEncapLimit(b.layers); b.EncapLimit != NoEncapLimit && n > b.EncapLimit {
		return fmt.Errorf("encap: an encapsulation limit of %d is too small for the stack's own IPv6 layers: it must be %d at least", b.EncapLimit, n)
	}
	return nil
}

// LeastEncapLimit is the least encapsulation limit with which layers, whose
// addresses do not matter, can carry each other: as many as stand over IPv6
// directly inside one of them.
func LeastEncapLimit(layers []Layer) int {
	b, least := builder{layers: layers}, 0
	for i, l := range layers {
		if l.Kind.Over() == 6 {
			least = max(least, b.nested6(i))
		}
	}
	return least
}
