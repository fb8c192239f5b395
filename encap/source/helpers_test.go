package source

import (
	"net/netip"

	"sixfour/encap/header"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// inner returns the header of a packet between two addresses.
func inner(src, dst string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	b := make([]byte, header.IPv6Len)
	if s.Is4() {
		b = b[:header.IPv4Len]
		b[0] = 0x45
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		return b
	}
	b[0] = 0x60
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return b
}
