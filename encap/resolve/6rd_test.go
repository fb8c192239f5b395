package resolve

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/drop"
	"sixfour/internal/vectors"
)

func domainOf(prefix string, mask int, role Role, relays ...string) SixRD {
	m := SixRD{Prefix: netip.MustParsePrefix(prefix), MaskLen: mask, Role: role}
	for _, r := range relays {
		m.Relays = append(m.Relays, host(r))
	}
	return m
}

func TestSixRDDelegated(t *testing.T) {
	for _, c := range []struct {
		m           SixRD
		local, want string
	}{
		{domainOf("2001:db8::/32", 8, RoleCE), "10.100.100.1", "2001:db8:6464:100::/56"},
		{domainOf("2001:db8::/32", 0, RoleCE), "192.0.2.1", "2001:db8:c000:201::/64"},
		{domainOf("2001:db8::/29", 0, RoleCE), "192.0.2.1", "2001:dbe:0:1008::/61"},
		{domainOf("2001:db8:ff00::/40", 24, RoleCE), "192.0.2.255", "2001:db8:ffff::/48"},
		{domainOf("2001:db8::/64", 32, RoleCE), "192.0.2.1", "2001:db8::/64"},
		{domainOf("2001:db8::/33", 1, RoleCE), "192.0.2.1", "2001:db8:4000:201::/64"},
	} {
		got, err := c.m.Delegated(netip.MustParseAddr(c.local))
		if err != nil || c.want != got.String() {
			t.Errorf("%s in %v, mask %d: %v, %v; want %s", c.local, c.m.Prefix, c.m.MaskLen, got, err, c.want)
		}
		c.m.Common = netip.MustParseAddr(c.local)
		if back, ok := c.m.IPv4(got.Addr()); !ok || back != c.m.Common {
			t.Errorf("%v is of %v", got, back)
		}
	}
	m := domainOf("2001:db8::/32", 8, RoleCE)
	m.Common = netip.MustParseAddr("10.0.0.0")
	if _, err := m.Delegated(netip.MustParseAddr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "does not begin with the 8 bits of 10.0.0.0") {
		t.Error(err)
	}
	if _, err := m.Delegated(netip.MustParseAddr("::1")); err == nil {
		t.Error("an IPv6 address has a delegated prefix")
	}
}

func TestSixRDCE(t *testing.T) {
	s := at("10.100.100.1", "2001:db8:6464:100::1/128")
	s.Links = prefixes("10.100.100.1/24")
	s.Delegated = prefixes("2001:db8:6464:100::/56")
	r := resolver(t, domainOf("2001:db8::/32", 8, RoleCE, "10.0.0.1", "10.0.0.2"), s)
	const ce, own, other, out = "10.100.100.1", "2001:db8:6464:100::1", "2001:db8:64c8:200::1", "3fff::80"
	for _, f := range []flow{
		{src: own, dst: other, out: "10.100.200.2"},
		{src: own, dst: out, out: "10.0.0.1"},
		{src: "2001:db8:6464:1ff::1", dst: out, out: "10.0.0.1"},
		{src: own, dst: "2001:db8:6464:1aa::9", why: drop.Loop},
		{src: "2001:db8:6464:200::1", dst: out, why: drop.Spoof},
		{src: out, dst: other, why: drop.Spoof},
		{src: own, dst: "2001:db8:6464:ff00::1", why: drop.Martian}, // 10.100.100.255: our subnet's broadcast
		{src: own, dst: "2002:0a64:6401::1", why: drop.Loop},
		{src: "fe80::1", dst: out, why: drop.Martian},
		{src: own, dst: "ff02::2", why: drop.Martian},
		{in: "10.100.200.2", to: ce, src: other, dst: own},
		{in: "10.100.200.3", to: ce, src: other, dst: own, why: drop.Spoof},
		{in: "192.100.200.2", to: ce, src: other, dst: own, why: drop.Spoof}, // the common bits
		{in: "10.0.0.1", to: ce, src: out, dst: own},
		{in: "10.0.0.2", to: ce, src: out, dst: own},
		{in: "10.0.0.1", to: ce, src: other, dst: own, why: drop.Spoof},
		{in: "10.0.0.1", to: ce, src: own, dst: own, why: drop.OwnSource},
		{in: "10.0.0.3", to: ce, src: out, dst: own, why: drop.ForeignSource},
		{in: "10.0.0.1", to: ce, src: out, dst: other, why: drop.Spoof},
		{in: "10.0.0.1", to: ce, src: out, dst: out, why: drop.Spoof},
		{in: "10.0.0.1", to: ce, src: "fe80::1", dst: own, why: drop.Martian},
		{in: "10.0.0.1", to: ce, src: out, dst: "ff02::1", why: drop.Martian},
		{in: "10.0.0.1", to: ce, src: "2002:0a64:6401::1", dst: own, why: drop.Loop},
		{in: ce, to: ce, src: out, dst: own, why: drop.Spoof},
	} {
		f.check(t, r)
	}
	r = resolver(t, SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8, Role: RoleCE, Relays: []Host{{Name: "br.example"}}}, s)
	flow{src: own, dst: out, why: drop.NoPeer}.check(t, r)
}

func TestSixRDBR(t *testing.T) {
	r := resolver(t, domainOf("2001:db8::/32", 8, RoleBR, "10.0.0.2"), at("10.0.0.1"))
	const br, ce, ce6, out = "10.0.0.1", "10.100.100.1", "2001:db8:6464:100::1", "3fff::80"
	for _, f := range []flow{
		{src: out, dst: ce6, out: ce},
		{src: ce6, dst: ce6, out: ce}, // a CE tests the BR
		{src: out, dst: out, why: drop.NoPeer},
		{src: out, dst: "2001:db8:0:100::1", why: drop.Loop}, // our own prefix
		{src: out, dst: "2001:db8:0:200::1", why: drop.Loop}, // that of another BR
		{src: "2002:0a00:0001::1", dst: ce6, why: drop.Loop},
		{src: out, dst: "fe80::1", why: drop.Martian},
		{in: ce, to: br, src: ce6, dst: out},
		{in: ce, to: br, src: ce6, dst: ce6},
		{in: "10.9.9.9", to: br, src: ce6, dst: out, why: drop.Spoof},
		{in: "11.100.100.1", to: br, src: ce6, dst: out, why: drop.Spoof},
		{in: ce, to: br, src: out, dst: out, why: drop.Spoof},
		{in: ce, to: br, src: ce6, dst: "2001:db8:0:100::1", why: drop.Loop},
		{in: ce, to: br, src: ce6, dst: "2002:0a00:0001::1", why: drop.Loop},
		{in: br, to: br, src: "2001:db8:0:100::1", dst: out, why: drop.OwnSource},
		{in: "10.0.0.2", to: br, src: "2001:db8:0:200::1", dst: out, why: drop.ForeignSource},
		{in: "192.88.99.1", to: br, src: ce6, dst: out, why: drop.ForeignSource},
		{in: "192.88.99.77", to: br, src: "2001:db8:5863:4d00::1", dst: out, why: drop.ForeignSource},
		{in: ce, to: br, src: "fe80::1", dst: out, why: drop.Martian},
	} {
		f.check(t, r)
	}
	// A BR outside the customers' prefix.
	m := domainOf("2001:db8::/32", 8, RoleBR)
	m.Common = netip.MustParseAddr("10.0.0.0")
	r = resolver(t, m, at("198.51.100.1"))
	flow{src: out, dst: ce6, out: ce}.check(t, r)
	flow{in: ce, to: "198.51.100.1", src: ce6, dst: out}.check(t, r)
	flow{src: out, dst: "2001:db8:3364:100::1", out: "10.51.100.1"}.check(t, r)
}

func TestSixRDWhereItCannotWork(t *testing.T) {
	inside := domainOf("2001:db8::/32", 8, RoleCE, "10.0.0.1")
	inside.Common = netip.MustParseAddr("10.0.0.0")
	for _, c := range []struct {
		m    SixRD
		s    Site
		want string
	}{
		{inside, at("192.0.2.1"), "192.0.2.1 is not in the domain"},
		{domainOf("2001:db8::/40", 0, RoleCE, "10.0.0.1"), at(here), "delegated prefix of 72 bits"},
		{domainOf("2001:db8::/32", 33, RoleCE, "10.0.0.1"), at(here), "mask length 33"},
		{domainOf("10.0.0.0/8", 8, RoleCE, "10.0.0.1"), at(here), "prefix 10.0.0.0/8: use an IPv6 prefix"},
		{SixRD{Role: RoleCE}, at(here), "use an IPv6 prefix"},
		{domainOf("2001:db8::/32", 8, RoleCE), at(here), "set border_relay"},
		{domainOf("2001:db8::/32", 8, RoleRouter), at(here), `role "router": use ce or br`},
		{domainOf("2001:db8::/32", 8, RoleBR), at("::1"), "needs an IPv4 address"},
	} {
		if _, err := c.m.Resolver(c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v at %v: %v, want %q", c.m, c.s.Local, err, c.want)
		}
	}
}

func TestParseOption212(t *testing.T) {
	v := vectors.Read(t)["6RD-OPT"]
	for _, b := range [][]byte{v, v[2:]} {
		m, err := ParseOption212(b)
		if err != nil || m.Prefix != netip.MustParsePrefix("2001:db8::/32") || m.MaskLen != 8 || m.Role != RoleCE ||
			len(m.Relays) != 1 || m.Relays[0] != host("10.0.0.1") {
			t.Errorf("%+v, %v", m, err)
		}
	}
	with := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(v)) }
	two := with(func(b []byte) []byte { b[1] = 26; return append(b, 10, 0, 0, 2) })
	if m, err := ParseOption212(two); err != nil || len(m.Relays) != 2 || m.Relays[1] != host("10.0.0.2") {
		t.Errorf("%+v, %v", m, err)
	}
	dirty := with(func(b []byte) []byte { b[19] = 0xff; return b })
	if m, err := ParseOption212(dirty); err != nil || m.Prefix.Addr() != netip.MustParseAddr("2001:db8::") {
		t.Errorf("bits beyond the prefix: %+v, %v", m, err)
	}
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{nil, "0 bytes: it needs at least 22"},
		{v[:1], "length byte"},
		{v[:23], "the length byte contradicts the 21 bytes"},
		{with(func(b []byte) []byte { b[1] = 21; return b }), "length byte"},
		{v[2:20], "18 bytes: it needs at least 22"},
		{with(func(b []byte) []byte { return append(b, 0)[2:] }), "not a multiple of 4"},
		{with(func(b []byte) []byte { b[2] = 33; return b }), "IPv4MaskLen (byte 0) is 33"},
		{with(func(b []byte) []byte { b[3] = 105; return b }), "6rdPrefixLen (byte 1) is 105"},
		{with(func(b []byte) []byte { b[4] = 0xff; return b }), "6rdPrefix (bytes 2 to 17) is ff01:db8::/32"},
		{with(func(b []byte) []byte { b[20] = 224; return b }), "border relay 224.0.0.1 (byte 18)"},
	} {
		if _, err := ParseOption212(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%x: %v, want %q", c.b, err, c.want)
		}
	}
}

// FuzzOption212: every option is an error, or a domain that can be used.
func FuzzOption212(f *testing.F) {
	v := vectors.Read(f)["6RD-OPT"]
	f.Add(v)
	f.Add(v[2:])
	f.Add(append(bytes.Clone(v[2:]), 10, 0, 0, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseOption212(b)
		if err != nil {
			return
		}
		if len(m.Relays) == 0 || m.Prefix != m.Prefix.Masked() || m.Prefix.Bits()+32-m.MaskLen > 128 {
			t.Fatalf("%+v", m)
		}
		local := netip.MustParseAddr("192.0.2.1")
		p, err := m.Delegated(local)
		if err != nil {
			if m.Prefix.Bits()+32-m.MaskLen <= 64 {
				t.Fatal(err)
			}
			return
		}
		m.Common = local
		if got, ok := m.IPv4(p.Addr()); !ok || got != local || !m.Prefix.Contains(p.Addr()) {
			t.Fatalf("%v of %v in %+v", got, p, m)
		}
		if _, err := m.Resolver(Site{Local: local}); err != nil {
			t.Fatal(err)
		}
	})
}
