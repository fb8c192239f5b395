package resolve

import (
	"net/netip"

	"sixfour/encap/header"
)

// Follower is a Mechanism that embeds the outer address of a node in its inner ones.
type Follower interface {
	Mechanism
	// AddressAt returns the interface address that corresponds to p at the outer address
	// local. It returns p itself unless p embeds another outer address.
	AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix
}

// AddressAt follows RFC 5969 section 4: an address of the domain begins with the prefix
// that is delegated to local. The address is unchanged if the domain has no prefix for
// local, and on a border relay also if the embedded IPv4 bits are all zero: such an
// address, 2001:db8::1/32 in the domain 2001:db8::/32, belongs to no customer edge.
func (m SixRD) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	to, err := m.Delegated(local)
	if err != nil || !p.Addr().Is6() || !m.Prefix.Contains(p.Addr()) {
		return p
	}
	if nobody := netip.PrefixFrom(m.Prefix.Masked().Addr(), to.Bits()); m.Role == RoleBR && nobody.Contains(p.Addr()) {
		return p
	}
	return withHead(p, to)
}

// AddressAt follows RFC 3056 section 2.
func (m SixToFour) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	if w, ok := header.Word6Of(p.Addr()); !ok || !is6to4(w) || !local.Is4() {
		return p
	}
	return withHead(p, Prefix6to4(local))
}

// AddressAt follows RFC 5214 section 6.1. An address that differs only in the u bit
// embeds the same outer address.
func (m ISATAP) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	w, ok := header.Word6Of(p.Addr())
	v4, is4 := word4(local)
	if !ok || !is4 || !isISATAP(w) || uint32(w.Lo) == v4 {
		return p
	}
	w.Lo = isatapID(v4)
	return netip.PrefixFrom(w.Addr(), p.Bits())
}

// AddressAt follows RFC 2893 section 5.1.
func (m V4Compat) AddressAt(p netip.Prefix, local netip.Addr) netip.Prefix {
	if w, ok := header.Word6Of(p.Addr()); !ok || !isCompat(w) || w.Lo <= 1 || !local.Is4() {
		return p
	}
	return netip.PrefixFrom(AddressCompat(local), p.Bits())
}

// withHead returns an interface address with its first bits replaced by a prefix.
func withHead(p, head netip.Prefix) netip.Prefix {
	w, _ := header.Word6Of(p.Addr())
	h := header.NewPrefix6(head)
	w.Hi, w.Lo = w.Hi&^h.Mask.Hi|h.Value.Hi, w.Lo&^h.Mask.Lo|h.Value.Lo
	return netip.PrefixFrom(w.Addr(), p.Bits())
}
