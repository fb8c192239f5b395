package resolve

import (
	"net/netip"
	"testing"
)

func TestAddressAt(t *testing.T) {
	rd := SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8}
	for _, c := range []struct {
		m                    Follower
		address, local, want string
	}{
		{rd, "2001:db8:6464:100::1/32", "10.100.100.1", "2001:db8:6464:100::1/32"},
		{rd, "2001:db8:6464:100::1/32", "10.100.200.2", "2001:db8:64c8:200::1/32"},
		{rd, "2001:db8:6464:1ff:1:2:3:4/64", "10.100.200.2", "2001:db8:64c8:2ff:1:2:3:4/64"}, // of the last subnet
		{rd, "2001:db9::1/64", "10.100.200.2", "2001:db9::1/64"},
		{rd, "10.0.0.1/30", "10.100.200.2", "10.0.0.1/30"},
		{SixRD{Prefix: rd.Prefix, MaskLen: 8, Common: netip.MustParseAddr("10.0.0.0")}, "2001:db8:6464:100::1/32", "192.0.2.1", "2001:db8:6464:100::1/32"}, // not in the domain
		{SixRD{Prefix: rd.Prefix, MaskLen: 8, Role: RoleBR}, "2001:db8::1/32", "10.0.0.1", "2001:db8::1/32"},                                               // no customer edge's
		{SixRD{Prefix: rd.Prefix, MaskLen: 8, Role: RoleBR}, "2001:db8:6464:100::1/32", "10.0.0.1", "2001:db8:0:100::1/32"},
		{SixRD{Prefix: rd.Prefix, MaskLen: 8, Role: RoleCE}, "2001:db8::1/32", "10.0.0.1", "2001:db8:0:100::1/32"},
		{SixToFour{}, "2002:c000:201:5::1/16", "198.51.100.2", "2002:c633:6402:5::1/16"},
		{SixToFour{}, "2001:db8::1/64", "198.51.100.2", "2001:db8::1/64"},
		{SixToFour{}, "10.0.0.1/30", "198.51.100.2", "10.0.0.1/30"},
		{ISATAP{}, "2001:db8:1::5efe:192.0.2.1/64", "192.0.2.1", "2001:db8:1::5efe:192.0.2.1/64"},
		{ISATAP{}, "2001:db8:1::200:5efe:192.0.2.1/64", "192.0.2.1", "2001:db8:1::200:5efe:192.0.2.1/64"},
		{ISATAP{}, "2001:db8:1::5efe:10.0.0.1/64", "198.51.100.2", "2001:db8:1::200:5efe:198.51.100.2/64"},
		{ISATAP{}, "2001:db8:1::1/64", "198.51.100.2", "2001:db8:1::1/64"},
		{V4Compat{}, "::192.0.2.1/96", "198.51.100.2", "::198.51.100.2/96"},
		{V4Compat{}, "2001:db8::1/64", "198.51.100.2", "2001:db8::1/64"},
	} {
		if got := c.m.AddressAt(netip.MustParsePrefix(c.address), netip.MustParseAddr(c.local)); got != netip.MustParsePrefix(c.want) {
			t.Errorf("%T: %s at %s is %v, want %s", c.m, c.address, c.local, got, c.want)
		}
	}
}
