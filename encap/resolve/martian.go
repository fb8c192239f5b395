package resolve

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sixfour/encap/header"
)

// Martian6 implements the list of mechanisms 1.8 for inner IPv6 sources.
func Martian6(src header.Word6, ip header.IPv6, strict bool) bool {
	switch {
	case src.Hi == 0: // ::/64 contains ::, ::1, ::/96 and ::ffff:0:0/96
		if src.Lo == 0 { // duplicate address detection and router solicitation
			dst := ip.Dest()
			return dst[0] != 0xff || dst[1] != 0x02
		}
		return src.Lo>>32 == 0 || src.Lo>>32 == 0xffff
	case src.Hi>>56 == 0xff: // multicast
		return true
	case src.Hi>>48 == 0x2002: // 6to4: the IPv4 address that it embeds
		return Martian4(uint32(src.Hi>>16), strict)
	}
	return false
}

// prefix4 is an IPv4 prefix in a form that is fast to compare: a>>shift == value.
type prefix4 struct {
	value uint32
	shift uint8
}

// prefixes4 converts IPv4 prefixes to a form that is fast to compare.
func prefixes4(list []netip.Prefix) (out []prefix4) {
	for _, p := range list {
		if a, ok := word4(p.Addr()); ok && p.IsValid() && p.Addr().Is4() {
			shift := uint8(32 - p.Bits())
			out = append(out, prefix4{a >> shift, shift})
		}
	}
	return out
}

func within4(list []prefix4, a uint32) bool {
	for _, p := range list {
		if a>>p.shift == p.value {
			return true
		}
	}
	return false
}

func mustPrefix4(s string) prefix4 {
	p := netip.MustParsePrefix(s)
	a := p.Addr().As4()
	shift := uint8(32 - p.Bits())
	return prefix4{binary.BigEndian.Uint32(a[:]) >> shift, shift}
}

var (
	// martians4 are the IPv4 addresses that RFC 3964 5.3.1 and RFC 4380 5.2.4 refuse
	// inside IPv6 ones, and the prefix of RFC 6598.
	martians4 = []prefix4{
		mustPrefix4("0.0.0.0/8"), mustPrefix4("10.0.0.0/8"), mustPrefix4("127.0.0.0/8"),
		mustPrefix4("169.254.0.0/16"), mustPrefix4("172.16.0.0/12"), mustPrefix4("192.168.0.0/16"),
		mustPrefix4("224.0.0.0/4"), mustPrefix4("240.0.0.0/4"), mustPrefix4("100.64.0.0/10"),
	}
	// strictMartians4 are further prefixes that are not globally routable (RFC 6890).
	strictMartians4 = []prefix4{
		mustPrefix4("192.0.0.0/24"), mustPrefix4("192.0.2.0/24"), mustPrefix4("198.18.0.0/15"),
		mustPrefix4("198.51.100.0/24"), mustPrefix4("203.0.113.0/24"),
	}
)

// Martian4 reports whether an IPv4 address must not be embedded in an IPv6 one.
func Martian4(a uint32, strict bool) bool {
	in := func(p prefix4) bool { return a>>p.shift == p.value }
	return slices.ContainsFunc(martians4, in) || strict && slices.ContainsFunc(strictMartians4, in)
}
