package resolve

import (
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/drop"
)

// The sites of RFC 3964's figures: ours is 192.0.2.1, another 198.51.100.2, a relay
// 203.0.113.3, an attacker 198.51.100.66.
const (
	here, there, relayed, attacker  = "192.0.2.1", "198.51.100.2", "203.0.113.3", "198.51.100.66"
	ours6, theirs6, native6, evil6  = "2002:c000:201:1::1", "2002:c633:6402:1::1", "2001:db8:ff::80", "2002:c633:6442::1"
	otherOurs6, relayed6, otherSite = "2002:c000:201:2::9", "2002:cb00:7103::1", "2002:c633:6463::1"
)

// TestSixToFourRouter checks all packets that an attacker could send according to RFC
// 3964 (sections 4 and 5), at a router.
func TestSixToFourRouter(t *testing.T) {
	s := at(here, ours6+"/16", "2001:db8:77::1/64")
	s.Links = prefixes("192.0.2.1/26")
	r := resolver(t, SixToFour{Role: RoleRouter, Relay: host(relayed)}, s)
	for _, f := range []flow{
		// Packets that must pass.
		{src: ours6, dst: theirs6, out: there},
		{src: otherOurs6, dst: native6, out: relayed},
		{src: native6, dst: theirs6, out: there},
		{src: ours6, dst: "2002:c058:6301::", out: "192.88.99.1"}, // a search for a relay
		{in: there, to: here, src: theirs6, dst: ours6},
		{in: relayed, to: here, src: native6, dst: ours6},
		{in: there, to: here, src: theirs6, dst: otherOurs6},
		// 4.1.1: neighbour discovery over the pseudo link.
		{src: "fe80::1", dst: "fe80::2", why: drop.Martian},
		{src: ours6, dst: "ff02::1", why: drop.Martian},
		{in: attacker, to: here, src: "fe80::1", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "fe80::1", dst: "fe80::2", why: drop.Martian},
		{in: attacker, to: here, src: "fe80::1", dst: "ff02::1", why: drop.Martian},
		{in: attacker, to: here, src: evil6, dst: "fe80::2", why: drop.Martian},
		{in: attacker, to: here, src: evil6, dst: "ff02::1", why: drop.Martian},
		// 4.1.1 and 4.2.2: a 6to4 source that does not match the outer one.
		{in: attacker, to: here, src: theirs6, dst: ours6, why: drop.Spoof},
		{in: attacker, to: here, src: theirs6, dst: native6, why: drop.Spoof},
		{src: theirs6, dst: native6, why: drop.Spoof},
		{src: theirs6, dst: otherSite, why: drop.Spoof},
		{in: attacker, to: here, src: otherOurs6, dst: ours6, why: drop.OwnSource},
		{in: here, to: here, src: otherOurs6, dst: ours6, why: drop.OwnSource},
		{in: attacker, to: here, src: "2001:db8:77::5", dst: ours6, why: drop.OwnSource},
		{in: here, to: here, src: native6, dst: ours6, why: drop.Spoof},
		// 4.1.3 and 4.2.3: reflected by us to another host.
		{in: attacker, to: here, src: evil6, dst: theirs6, why: drop.Spoof},
		{in: attacker, to: here, src: native6, dst: theirs6, why: drop.Spoof},
		{in: relayed, to: here, src: native6, dst: theirs6, why: drop.Spoof},
		// 4.1.4 and 4.2.4: our subnet's broadcast address, and the general one.
		{src: ours6, dst: "2002:c000:23f::1", why: drop.Martian},
		{src: ours6, dst: "2002:ffff:ffff::1", why: drop.Martian},
		{in: attacker, to: here, src: "2002:c000:23f::1", dst: ours6, why: drop.Martian},
		{in: "192.0.2.63", to: here, src: native6, dst: ours6, why: drop.Martian},
		// 4.1.5 and 4.2.5: theft of service.
		{in: attacker, to: here, src: evil6, dst: native6, why: drop.NoPeer},
		{in: attacker, to: here, src: native6, dst: native6, why: drop.Spoof},
		{src: native6, dst: native6, why: drop.Spoof},
		// 5.3.1: invalid IPv4 addresses, embedded and outer.
		{src: ours6, dst: "2002:0a00:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:7f00:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:0000:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:ac10:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:c0a8:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:a9fe:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:6440:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:e000:0001::1", why: drop.Martian},
		{src: ours6, dst: "2002:f000:0001::1", why: drop.Martian},
		{src: "2002:0a00:0001::1", dst: theirs6, why: drop.Martian},
		{in: "10.0.0.1", to: here, src: "2002:0a00:0001::1", dst: ours6, why: drop.Martian},
		{in: "10.0.0.1", to: here, src: native6, dst: ours6, why: drop.Martian},
		{in: "127.0.0.1", to: here, src: native6, dst: ours6, why: drop.Martian},
		{in: "224.0.0.1", to: here, src: native6, dst: ours6, why: drop.Martian},
		{in: "255.255.255.255", to: here, src: native6, dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "2002:7f00:0001::1", dst: ours6, why: drop.Martian},
		// 5.3.2: invalid IPv6 addresses.
		{in: attacker, to: here, src: "::", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "::1", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "::198.51.100.66", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "::ffff:198.51.100.66", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "fec0::1", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: "ff0e::1", dst: ours6, why: drop.Martian},
		{in: attacker, to: here, src: evil6, dst: "::1", why: drop.Martian},
		{in: attacker, to: here, src: evil6, dst: "::ffff:127.0.0.1", why: drop.Martian},
		{in: attacker, to: here, src: evil6, dst: "fec0::1", why: drop.Martian},
		{src: ours6, dst: "fec0::1", why: drop.Martian},
		{src: ours6, dst: "::ffff:198.51.100.2", why: drop.Martian},
		{src: "::1", dst: theirs6, why: drop.Martian},
	} {
		f.check(t, r)
	}
}

func TestSixToFourWithoutRelay(t *testing.T) {
	r := resolver(t, SixToFour{Role: RoleRouter}, at(here))
	flow{src: ours6, dst: native6, why: drop.NoPeer}.check(t, r)
	r = resolver(t, SixToFour{Role: RoleRouter, Relay: Host{Name: "relay.example"}}, at(here))
	flow{src: ours6, dst: native6, why: drop.NoPeer}.check(t, r)
	s := at(here)
	s.Hosts = [][]netip.Addr{{netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr(relayed)}}
	r = resolver(t, SixToFour{Role: RoleRouter, Relay: Host{Name: "relay.example"}}, s)
	flow{src: ours6, dst: native6, out: relayed}.check(t, r)
}

func TestSixToFourListedRelays(t *testing.T) {
	r := resolver(t, SixToFour{Role: RoleRouter, Relays: prefixes("203.0.113.0/24")}, at(here))
	for _, f := range []flow{
		{in: relayed, to: here, src: native6, dst: ours6},
		{in: attacker, to: here, src: native6, dst: ours6, why: drop.ForeignSource},
		{in: there, to: here, src: theirs6, dst: ours6},
	} {
		f.check(t, r)
	}
}

func TestSixToFourHost(t *testing.T) {
	r := resolver(t, SixToFour{Role: RoleHost, Relay: host(relayed)}, at(here, ours6+"/16"))
	for _, f := range []flow{
		{src: ours6, dst: native6, out: relayed},
		{src: otherOurs6, dst: native6, why: drop.Spoof},
		{in: there, to: here, src: theirs6, dst: ours6},
		{in: there, to: here, src: theirs6, dst: otherOurs6, why: drop.NoPeer},
	} {
		f.check(t, r)
	}
}

func TestSixToFourRelay(t *testing.T) {
	r := resolver(t, SixToFour{Role: RoleRelay, Clients: prefixes("198.51.100.0/26")}, at(here))
	for _, f := range []flow{
		{in: there, to: here, src: theirs6, dst: native6},
		{in: there, to: "192.88.99.1", src: theirs6, dst: native6},                  // anycast
		{in: attacker, to: here, src: evil6, dst: native6, why: drop.ForeignSource}, // theft of service
		{in: attacker, to: here, src: theirs6, dst: native6, why: drop.Spoof},
		{in: there, to: here, src: theirs6, dst: otherSite, why: drop.Spoof}, // sites reach each other without us
		{in: there, to: here, src: theirs6, dst: "2001:db8::5efe:192.0.2.1", why: drop.Loop},
		{in: there, to: here, src: theirs6, dst: ours6}, // our own address
		{src: native6, dst: theirs6, out: there},
		{src: otherSite, dst: theirs6, why: drop.Spoof},
		{src: native6, dst: native6, why: drop.NoPeer},
		{src: ours6, dst: theirs6, out: there},
	} {
		f.check(t, r)
	}
}

func TestSixToFourReturn(t *testing.T) {
	r := resolver(t, SixToFour{Role: RoleReturn, Sources: prefixes("2001:db8:ff::/64")}, at(here))
	for _, f := range []flow{
		{src: native6, dst: theirs6, out: there},
		{src: "2001:db8:fe::1", dst: theirs6, why: drop.Spoof},
		{src: ours6, dst: theirs6, why: drop.Spoof},
		{src: native6, dst: "2001:db8:1::1", why: drop.NoPeer},
		{src: native6, dst: "2002:0a00:0001::1", why: drop.Martian},
		{src: native6, dst: ours6, why: drop.Loop},
		{in: there, to: here, src: theirs6, dst: native6, why: drop.ForeignSource},
		{in: there, to: here, src: theirs6, dst: ours6, why: drop.ForeignSource},
	} {
		f.check(t, r)
	}
}

func TestSixToFourWhereItCannotWork(t *testing.T) {
	router := SixToFour{Role: RoleRouter}
	strict := at("192.0.2.1")
	strict.Strict = true
	for _, c := range []struct {
		m    SixToFour
		s    Site
		want string
	}{
		{router, at("10.0.0.1"), "10.0.0.1 is not globally unique"},
		{router, at("100.64.0.1"), "set local to a public address"},
		{router, at("169.254.0.1"), "not globally unique"},
		{router, strict, "192.0.2.1 is not globally unique"},
		{router, at("2001:db8::1"), "needs an IPv4 address"},
		{router, Site{}, "needs an IPv4 address"},
		{SixToFour{Role: "hub"}, at(here), `role "hub": use host`},
		{SixToFour{}, at(here), `role "": use host`},
		{SixToFour{Role: RoleRelay}, at(here), "set clients"},
		{SixToFour{Role: RoleReturn}, at(here), "set sources"},
		{SixToFour{Role: RoleRelay, Relay: host(relayed)}, at(here), "leave out the relay"},
	} {
		if _, err := c.m.Resolver(c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v at %v: %v, want %q", c.m, c.s.Local, err, c.want)
		}
	}
}
