package resolve

import (
	"net/netip"
)

// Follower is a Mechanism that puts the outer address of a node into its inner ones.
type Follower interface {
	Mechanism
	// AddressAt is what an address of the interface has to be where the outer address
	// is local: the same, unless another outer address is in it.
	AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix
}

// AddressAt is RFC 5969 section 4: an address of the domain begins with the prefix that
// is delegated to local. It is unchanged if the domain has no prefix for that.
func (m SixRD) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	to, err := m.Delegated(local)
	if err != nil || !p.Addr().Is6() || !m.Prefix.Contains(p.Addr()) {
		return p
	}
	return withHead(p, to)
}

// AddressAt is RFC 3056 section 2.
func (m SixToFour) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	if w, ok := word6Of(p.Addr()); !ok || !is6to4(w) || !local.Is4() {
		return p
	}
	return withHead(p, Prefix6to4(local))
}

// AddressAt is RFC 5214 section 6.1. Which u bit the same outer address has does not
// matter.
func (m ISATAP) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	w, ok := word6Of(p.Addr())
	v4, is4 := word4(local)
	if !ok || !is4 || !isISATAP(w) || uint32(w.lo) == v4 {
		return p
	}
	w.lo = isatapID(v4)
	return netip.PrefixFrom(w.addr(), p.Bits())
}

// AddressAt is RFC 2893 section 5.1.
func (m V4Compat) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	if w, ok := word6Of(p.Addr()); !ok || !isCompat(w) || w.lo <= 1 || !local.Is4() {
		return p
	}
	return netip.PrefixFrom(AddressCompat(local), p.Bits())
}

// withHead is an interface's address with the bits of a prefix in front.
func withHead(p, head netip.Prefix) netip.Prefix {
	w, _ := word6Of(p.Addr())
	h := newPrefix6(head)
	w.hi, w.lo = w.hi&^h.mask.hi|h.value.hi, w.lo&^h.mask.lo|h.value.lo
	return netip.PrefixFrom(w.addr(), p.Bits())
}

func word6Of(a netip.Addr) (word6, bool) {
	if !a.Is6() || a.Is4In6() {
		return word6{}, false
	}
	b := a.As16()
	return readWord6(b[:]), true
}
