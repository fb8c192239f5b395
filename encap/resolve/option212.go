package resolve

import (
	"fmt"
	"net/netip"
)

// option212 is the code of DHCPv4's OPTION_6RD. The others describe its content before
// the BRs.
const (
	option212    = 212
	option212Min = 22 // with one BR
	option212BRs = 18 // offset of the BRs
)

// ParseOption212 reads DHCPv4's 6rd option (RFC 5969 section 7.1.1), with or without the
// two bytes of code and length in front:
//
//	+------+------+-------------+--------------+-------------------+---------------
//	| 212  | len  | IPv4MaskLen | 6rdPrefixLen | 6rdPrefix (16)    | BR IPv4 (4 each)
//	+------+------+-------------+--------------+-------------------+---------------
//
// The result is for a CE. Bits of the prefix beyond its length are cleared.
func ParseOption212(b []byte) (SixRD, error) {
	// An option without code and length cannot begin with 212, because IPv4MaskLen is at
	// most 32.
	if len(b) > 0 && b[0] == option212 {
		if len(b) < 2 || int(b[1]) != len(b)-2 {
			return SixRD{}, fmt.Errorf("6rd option: the length byte contradicts the %d bytes that follow it", max(0, len(b)-2))
		}
		b = b[2:]
	}
	switch n := len(b); {
	case n < option212Min:
		return SixRD{}, fmt.Errorf("6rd option: %d bytes: it needs at least %d, with one border relay", n, option212Min)
	case (n-option212BRs)%4 != 0:
		return SixRD{}, fmt.Errorf("6rd option: %d bytes for border relays (from byte %d on): not a multiple of 4", n-option212BRs, option212BRs)
	case b[0] > 32:
		return SixRD{}, fmt.Errorf("6rd option: IPv4MaskLen (byte 0) is %d: more than 32", b[0])
	case int(b[1])+32-int(b[0]) > 128:
		return SixRD{}, fmt.Errorf("6rd option: 6rdPrefixLen (byte 1) is %d, which together with %d IPv4 bits is more than 128", b[1], 32-b[0])
	}
	prefix := netip.AddrFrom16([16]byte(b[2:option212BRs]))
	m := SixRD{Prefix: netip.PrefixFrom(prefix, int(b[1])).Masked(), MaskLen: int(b[0]), Role: RoleCE}
	switch {
	case prefix.Is4In6(), prefix.IsMulticast(), prefix.IsLinkLocalUnicast():
		return SixRD{}, fmt.Errorf("6rd option: 6rdPrefix (bytes 2 to 17) is %v: not a prefix of unicast addresses", m.Prefix)
	}
	for at := option212BRs; at < len(b); at += 4 {
		br := netip.AddrFrom4([4]byte(b[at : at+4]))
		if v, _ := word4(br); !unicast4(v) {
			return SixRD{}, fmt.Errorf("6rd option: border relay %v (byte %d) is not a host's address", br, at)
		}
		m.Relays = append(m.Relays, Host{Addr: br})
	}
	return m, nil
}
