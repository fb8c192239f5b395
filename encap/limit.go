package encap

import (
	"fmt"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// limitOffset is the offset of the limit's value in a delivery header that has the
// option.
const limitOffset = header.IPv6Len + 4

// limited returns the template for an IPv6 packet that carries a tunnel encapsulation
// limit, and that limit. What is left of the limit is written into our own options,
// which are present even if none is configured (RFC 2473 section 4.1.1). Found is false
// if the packet carries no limit.
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

// encapsulateLimited is encapsulate for a packet that carries a tunnel encapsulation limit.
func (s *Stack) encapsulateLimited(b []byte, off int, tail []byte, t *template, limit byte, unsummed bool) ([]byte, drop.Reason) {
	switch {
	case len(b)-off+len(tail) > t.limit:
		return nil, drop.TooBig
	case int(limit) < t.limited:
		return nil, drop.EncapLimit
	}
	f := fieldsOf(b[off:])
	start, r := t.put(b, off, len(tail), f)
	if r == otherForm {
		t, start, r = t.putBeside(b, off, len(tail), f)
	}
	if r != drop.None {
		return nil, r
	}
	t.finish(b, off, tail, limit, unsummed)
	return b[start:], drop.None
}

// nested6 returns how many of the stack's IPv6 headers are directly inside the header of
// a layer over IPv6.
func (b *builder) nested6(layer int) int {
	n := 0
	for i := layer; i > b.entry && b.layers[i-1].Kind.Over() == 6; i-- {
		n++
	}
	return n
}

// encapLimit returns the limit in the header of a layer over IPv6. Each layer inside
// another has one less (RFC 2473 section 4.1.1). If the packet carries a limit itself, 0
// is a placeholder for what is left of it. A session's packets have no options.
func (b *builder) encapLimit(layer int) int {
	n := b.nested6(layer)
	switch {
	case b.props[layer].Session:
		return NoEncapLimit
	case b.limited && layer-n == b.entry && b.layers[layer].Kind.Over() == 6:
		return 0
	case b.EncapLimit == NoEncapLimit:
		return NoEncapLimit
	}
	return b.EncapLimit - n
}

// checkLimit returns an error if the stack's own layers exceed the configured limit.
func (b *builder) checkLimit() error {
	if n := LeastEncapLimit(b.layers); b.EncapLimit != NoEncapLimit && n > b.EncapLimit {
		return fmt.Errorf("encap: an encapsulation limit of %d is too small for the stack's own IPv6 layers: it must be %d at least", b.EncapLimit, n)
	}
	return nil
}

// LeastEncapLimit returns the smallest encapsulation limit with which the layers can
// carry each other: the largest number of IPv6 layers directly inside one of them. The
// layers need no addresses.
func LeastEncapLimit(layers []Layer) int {
	b, least := builder{layers: layers}, 0
	for i, l := range layers {
		if l.Kind.Over() == 6 {
			least = max(least, b.nested6(i))
		}
	}
	return least
}
