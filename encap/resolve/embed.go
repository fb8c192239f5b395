package resolve

import (
	"net/netip"

	"sixfour/encap/header"
)

// Scheme is a way to embed an IPv4 address in an IPv6 address.
type Scheme string

// The schemes that an address alone reveals. 6rd is not one: it needs its domain.
const (
	Scheme6to4   Scheme = "6to4"     // 2002:V4ADDR::/48 (RFC 3056 section 2)
	SchemeISATAP Scheme = "isatap"   // interface identifier [02]00:5efe:V4ADDR (RFC 5214 section 6.1)
	SchemeTeredo Scheme = "teredo"   // 2001:0:SERVER:flags:^port:^V4ADDR (RFC 4380 section 4)
	SchemeCompat Scheme = "v4compat" // ::V4ADDR (RFC 4291 section 2.5.5.1)
)

// Embedding is an IPv4 address that is embedded in an IPv6 address. A tunnel of the
// scheme would send packets to it.
type Embedding struct {
	Scheme Scheme
	Addr   netip.Addr
}

// Embedded returns every IPv4 address that is embedded in an IPv6 address by some
// scheme. There may be several: an ISATAP address may be in a 6to4 prefix. There may be
// none.
func Embedded(a netip.Addr) (out []Embedding) {
	if !a.Is6() || a.Is4In6() {
		return nil
	}
	b := a.As16()
	w := header.ReadWord6(b[:])
	add := func(s Scheme, v4 uint32) { out = append(out, Embedding{s, addr4(v4)}) }
	if is6to4(w) {
		add(Scheme6to4, v4of6to4(w))
	}
	if isTeredo(w) {
		add(SchemeTeredo, ^uint32(w.Lo))
	}
	if isISATAP(w) {
		add(SchemeISATAP, uint32(w.Lo))
	}
	if isCompat(w) && w.Lo > 1 { // :: and ::1 embed none
		add(SchemeCompat, uint32(w.Lo))
	}
	return out
}

func is6to4(a header.Word6) bool       { return a.Hi>>48 == 0x2002 }
func v4of6to4(a header.Word6) uint32   { return uint32(a.Hi >> 16) }
func isTeredo(a header.Word6) bool     { return a.Hi>>32 == 0x20010000 }
func isCompat(a header.Word6) bool     { return a.Hi == 0 && a.Lo>>32 == 0 }
func isISATAP(a header.Word6) bool     { return a.Lo>>32&^universal == 0x5efe }
func embeds(a header.Word6) bool       { return is6to4(a) || isISATAP(a) || isTeredo(a) }
func prefix6to4(v uint32) header.Word6 { return header.Word6{Hi: 0x2002<<48 | uint64(v)<<16} }

// universal is the u bit in the upper half of an interface identifier. Comparisons of
// ISATAP identifiers ignore it.
const universal = 0x02000000

// Prefix6to4 returns the prefix of the 6to4 site at an IPv4 address.
func Prefix6to4(v4 netip.Addr) netip.Prefix {
	a, _ := word4(v4)
	return netip.PrefixFrom(prefix6to4(a).Addr(), 48)
}

// AddressISATAP returns the address of the node at an IPv4 address in a prefix of 64
// bits.
func AddressISATAP(prefix netip.Prefix, v4 netip.Addr) netip.Addr {
	a, _ := word4(v4)
	return header.Word6{Hi: header.NewPrefix6(prefix).Value.Hi, Lo: isatapID(a)}.Addr()
}

// AddressCompat returns the address of the host at an IPv4 address with automatic
// tunnelling.
func AddressCompat(v4 netip.Addr) netip.Addr {
	a, _ := word4(v4)
	return header.Word6{Lo: uint64(a)}.Addr()
}

// Teredo holds the fields of a Teredo address (RFC 4380 section 4).
type Teredo struct {
	Server netip.Addr
	Client netip.AddrPort // as the server sees it, outside the client's NAT
	Flags  uint16
}

// Cone returns the flag by which old clients say that every host can reach them. RFC
// 5991 section 3.1 no longer sets it.
func (t Teredo) Cone() bool { return t.Flags&0x8000 != 0 }

// ParseTeredo returns the fields of a Teredo address.
func ParseTeredo(a netip.Addr) (Teredo, bool) {
	b := a.As16()
	w := header.ReadWord6(b[:])
	if !a.Is6() || !isTeredo(w) {
		return Teredo{}, false
	}
	return Teredo{addr4(uint32(w.Hi)), netip.AddrPortFrom(addr4(^uint32(w.Lo)), ^uint16(w.Lo>>32)), uint16(w.Lo >> 48)}, true
}

// Addr returns the Teredo address.
func (t Teredo) Addr() netip.Addr {
	server, _ := word4(t.Server)
	client, _ := word4(t.Client.Addr())
	return header.Word6{Hi: 0x20010000<<32 | uint64(server), Lo: uint64(t.Flags)<<48 | uint64(^t.Client.Port())<<32 | uint64(^client)}.Addr()
}
