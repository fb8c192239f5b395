package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// Behind b is native IPv6, with a host c in it:
//
//	a 203.0.113.10 ─── 203.0.113.20 b 3fff:c::1/64 ─── 3fff:c::2 c
//
// A relay, a border relay or an ISATAP router at b carries between a and c, whose
// answers come back to b.
func TestThroughRelay(t *testing.T) {
	for _, k := range []struct {
		kind
		routes string // of c, through b
	}{
		{kind{"6to4", "mode = \"6to4\"\nrelay = \"203.0.113.20\"\nroutes = [\"3fff:c::/64\"]\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\n",
			"mode = \"6to4\"\nrole = \"relay\"\nclients = [\"203.0.113.0/24\"]\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\n", kind6to4.toA, nil, 20, nil}, "2002::/16"},
		{kind{"6rd", "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nborder_relay = \"203.0.113.20\"\nroutes = [\"3fff:c::/64\"]\n" + local4 + "address = [\"2001:db8:cb00:71%[3]s::1/32\"]\n",
			"mode = \"6rd\"\nrole = \"br\"\nprefix = \"2001:db8::/32\"\n" + local4 + "address = [\"2001:db8:cb00:71%[3]s::1/32\"]\n", kind6rd.toA, nil, 20, nil}, "2001:db8::/32"},
		{kind{"6rd with 24 common bits", "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nmask_len = 24\nborder_relay = \"203.0.113.20\"\nroutes = [\"3fff:c::/64\"]\n" + local4 + "address = [\"2001:db8:%[3]s00::1/32\"]\n",
			"mode = \"6rd\"\nrole = \"br\"\nprefix = \"2001:db8::/32\"\nmask_len = 24\n" + local4 + "address = [\"2001:db8:%[3]s00::1/32\"]\n", addrs("2001:db8:a00::1"), nil, 20, nil}, "2001:db8::/32"},
		{kind{"isatap", "mode = \"isatap\"\nrouters = [\"203.0.113.20\"]\n" + local4,
			"mode = \"isatap\"\nrouter = true\nprefix = \"2001:db8:5efe:1::/64\"\naddress = [\"2001:db8:5efe:1:200:5efe:203.0.113.20/64\"]\n" + local4,
			addrs("2001:db8:5efe:1:200:5efe:203.0.113.10"), nil, 20, nil}, "2001:db8:5efe:1::/64"},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			c, there := newNamespace(t, "c"), netip.MustParseAddr("3fff:c::2")
			must(t, rig.Veth(h.b, "vbc", c, "vc", 1480)) // so that c need not be configured first
			must(t, h.b.AddAddr("vbc", netip.MustParsePrefix("3fff:c::1/64")))
			must(t, c.AddAddr("vc", netip.PrefixFrom(there, 64)))
			must(t, c.AddRoute(netip.MustParsePrefix(k.routes), netip.MustParseAddr("3fff:c::1"), ""))
			must(t, h.b.Forward())
			b := start(t, h.b, k.atB())
			a := start(t, h.a, k.atA())
			reachable(t, h.a, there)
			for _, o := range []rig.PingOptions{{}, {Size: 1000}, {Size: 4000}} {
				o.Source = k.toA[0]
				pings(t, h.a, there, o)
				o.Source = there
				pings(t, c, k.toA[0], o)
			}
			transfer(t, h.a, c, there, 4<<20)
			transfer(t, c, h.a, k.toA[0], 4<<20)
			if s := lost(t, a, b); strings.Contains(s, "spoof") || strings.Contains(s, "foreign") {
				t.Errorf("drops: %s", s)
			}
		})
	}
}

// A server sends its answers to 6to4 clients itself, and accepts no tunnel packets from
// them: their packets arrive natively, as from any relay.
func TestReturnPath(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	server := netip.MustParseAddr("3fff:5::1")
	must(t, h.b.AddAddr("lo", netip.PrefixFrom(server, 128)))
	must(t, h.a.Forward())
	// a is the client and also its own relay towards the server: it sends natively there.
	must(t, h.a.AddRoute(netip.PrefixFrom(server, 128), outer6B, ""))
	a := start(t, h.a, kind6to4.atA())
	b := start(t, h.b, tunnelOf("mode = \"6to4\"\nrole = \"return\"\nsources = [\"3fff:5::/64\"]\nroutes = [\"2002::/16\"]\n"+local4, 2))
	for _, o := range []rig.PingOptions{{}, {Size: 1400}, {Size: 4000}} {
		o.Source = kind6to4.toA[0]
		pings(t, h.a, server, o)
	}
	if _, s := a.status(t); s.In.Packets < 9 || s.Out.Packets > 5 {
		t.Errorf("a: %+v, %+v", s.In, s.Out)
	}
	if _, s := b.status(t); s.Out.Packets < 9 || s.In.Packets > 0 {
		t.Errorf("b: %+v, %+v", s.In, s.Out)
	}
}

// GRE tunnels between the same ends are distinguished by their keys, and packets with
// another key are refused.
func TestKeysDistinguishTunnels(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	ends := func(self int) string {
		var all strings.Builder
		for i, key := range []string{"", "key = 0\n", "key = 7\n", "key = \"0.0.1.0\"\n"} {
			fmt.Fprintf(&all, "[[tunnel]]\nname = \"t%d\"\nmode = \"gre\"\n%s%saddress = [\"10.0.%d.%d/30\"]\n", i, fmt.Sprintf(over4, self, 3-self), key, i, self)
		}
		return all.String()
	}
	a := start(t, h.a, ends(1))
	start(t, h.b, ends(2))
	for i := range 4 {
		before := packetsIn(t, a)
		pings(t, h.a, netip.AddrFrom4([4]byte{10, 0, byte(i), 2}), rig.PingOptions{Count: 20})
		for name, n := range packetsIn(t, a) {
			if n -= before[name]; (n >= 20) != (name == fmt.Sprint("t", i)) {
				t.Errorf("tunnel %d: %d packets came through %s", i, n, name)
			}
		}
	}
	other := uint32(8)
	send(t, h.b, ip4(outerB, outerA, 47, greWith(0x0800, &other, nil, experimental(inB, inA))))
	eventually(t, "an unknown key is refused", func() error {
		if s, _ := a.status(t); dropped(s, "key") != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// With a fixed MTU, and over a path of 1280 bytes, outer packets are fragmented.
func TestOuterFragmentation(t *testing.T) {
	static := "pmtu = \"static\"\nmtu = 1500\n"
	for _, c := range []struct {
		kind
		link, inner int
	}{
		{kind4in4.with(" static", static), 1500, 1500}, {kindGRE.with(" static", static), 1500, 1500}, {kind6to4.with(" static", static), 1500, 1500},
		{kind4in6.with(" static", static), 1500, 1500}, {kindStack.with(" static", static), 1500, 1500},
		{kind6to4, 1280, 1280}, {kind6in6, 1280, 1280}, {kindGRE, 1280, 1280}, {kindGRE6, 1280, 1280}, {kindStack, 1280, 1280}, {kindISATAP, 1280, 1280},
	} {
		t.Run(fmt.Sprintf("%s over %d", c.name, c.link), func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			must(t, h.a.SetMTU("va", c.link))
			must(t, h.b.SetMTU("vb", c.link))
			a, b := c.pair(t, h.a, h.b)
			before := lost(t, a, b)
			for i, to := range c.toB {
				o := rig.PingOptions{Size: c.inner - 28} // with DF it would not be fragmented (RFC 2003 section 3.1)
				if to.Is6() {
					o = rig.PingOptions{Size: c.inner - 48, DF: true}
				}
				pings(t, h.a, to, o)
				pings(t, h.b, c.toA[i], o)
				pings(t, h.a, to, rig.PingOptions{Size: 4000})
				transfer(t, h.a, h.b, to, 2<<20)
			}
			if after := lost(t, a, b); after != before {
				t.Errorf("drops: %s, before %s", after, before)
			}
		})
	}
}

// The far end's host is gone: the inner sender gets an error.
func TestUnreachableModes(t *testing.T) {
	for _, k := range []kind{kind4in4, kind4in6, kindGRE, kindGRE6, kindStack, kind6to4, kind6rd} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			shortenNeighbourTimers(t, n.s, "sb")
			k.pair(t, n.a, n.b)
			must(t, n.b.LinkDown("vb"))
			for _, to := range k.toB {
				eventually(t, "the inner sender is told", func() error {
					res, err := rig.Ping(t.Context(), n.a, to, rig.PingOptions{Size: 500, Timeout: 200 * time.Millisecond})
					must(t, err)
					for _, e := range res.ICMP {
						if to.Is4() && e.Type == 3 && e.Code == 1 || to.Is6() && e.Type == 1 && e.Code == 3 {
							return nil
						}
					}
					return fmt.Errorf("%+v", res)
				})
			}
		})
	}
}
