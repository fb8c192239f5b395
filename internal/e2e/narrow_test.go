package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sixfour/internal/rig"
)

// newRouted6 is newRouted with addresses of both IP versions, and a host whose path
// from a is wide:
//
//	a ─── r ──────── s ─── b
//	      │ narrow
//	      c 203.0.113.50/28
//
// In IPv6 a and b have 2001:db8:ff::10 and ::20, and 2001:db8:1::/64, :2::/64 and
// :3::/64 are the links.
func newRouted6(t *testing.T) (n routed, c *rig.Namespace) {
	t.Helper()
	n, c = newRouted(t), newNamespace(t, "c")
	must(t, rig.Veth(c, "vc", n.r, "rc", 1500))
	all4, all6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	for _, l := range []struct {
		ns        *rig.Namespace
		dev, addr string
	}{
		{c, "vc", "203.0.113.50/28"}, {n.r, "rc", "203.0.113.49/28"},
		{n.a, "va", "2001:db8:1::2/64"}, {n.r, "ra", "2001:db8:1::1/64"},
		{n.r, "rs", "2001:db8:2::1/64"}, {n.s, "sr", "2001:db8:2::2/64"},
		{n.s, "sb", "2001:db8:3::1/64"}, {n.b, "vb", "2001:db8:3::2/64"},
		{n.a, "va", "2001:db8:ff::10/128"}, {n.b, "vb", "2001:db8:ff::20/128"},
	} {
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.addr)))
	}
	must(t, c.AddRoute(all4, netip.MustParseAddr("203.0.113.49"), "vc"))
	for _, l := range []struct {
		ns  *rig.Namespace
		dst netip.Prefix
		via string
	}{
		{n.a, all6, "2001:db8:1::1"}, {n.b, all6, "2001:db8:3::1"}, {n.r, all6, "2001:db8:2::2"}, {n.s, all6, "2001:db8:2::1"},
		{n.r, netip.PrefixFrom(outer6A, 128), "2001:db8:1::2"}, {n.s, netip.PrefixFrom(outer6B, 128), "2001:db8:3::2"},
	} {
		must(t, l.ns.AddRoute(l.dst, netip.MustParseAddr(l.via), ""))
	}
	return n, c
}

// largest returns the largest payload of an echo request over a path to an address.
func (k kind) largest(path int, to netip.Addr) int {
	if to.Is6() {
		return path - k.over - 48
	}
	return path - k.over - 28
}

// waitPathMTU waits until a daemon has a path MTU between two values, from one of some sources.
func (d *daemon) waitPathMTU(t *testing.T, least, most int, by ...string) {
	t.Helper()
	if len(by) == 0 { // a probe of the peer's host may be faster than a router's error
		by = []string{"icmp", "probe"}
	}
	eventually(t, fmt.Sprintf("path MTU %d to %d by %v", least, most, by), func() error {
		if _, s := d.status(t); s.State.PathMTU < least || s.State.PathMTU > most || !slices.Contains(by, s.State.PathMTUBy) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// Path MTU as in TestPathMTULearnt and TestBlackHole, in the other modes.
func TestNarrowModes(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kind4in4, kind4in6, kind6in6, kindGRE, kindGRE6, kindStack} {
		t.Run(k.name+" by ICMP", func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			n.narrow(t, 1400)
			a, b := k.pair(t, n.a, n.b)
			for i, to := range k.toB {
				waitTooBig(t, n.a, to, k.largest(1500, to), 1400-k.over)
				pings(t, n.a, to, rig.PingOptions{Size: k.largest(1400, to), DF: true})
				transfer(t, n.a, n.b, to, 5<<20)
				transfer(t, n.b, n.a, k.toA[i], 5<<20)
				waitTooBig(t, n.b, k.toA[i], k.largest(1500, to), 1400-k.over)
				pings(t, n.a, to, rig.PingOptions{Size: 4000})
			}
			a.waitPathMTU(t, 1400, 1400)
			b.waitPathMTU(t, 1400, 1400)
		})
		t.Run(k.name+" in silence", func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			a, _ := k.pair(t, n.a, n.b)
			n.dropLarge(t, 1404)
			for _, to := range k.toB {
				transfer(t, n.a, n.b, to, 5<<20)
				a.waitPathMTU(t, 1400, 1404, "probe")
				pings(t, n.a, to, rig.PingOptions{Size: k.largest(1400, to), DF: true})
			}
		})
	}
}

// Each destination of an automatic tunnel has its own path: an error about one does not
// affect another.
func TestNarrowDestination(t *testing.T) {
	for _, c := range []struct {
		kind
		toC netip.Addr
	}{
		{kind6to4, netip.MustParseAddr("2002:cb00:7132::1")},
		{kind6rd, netip.MustParseAddr("2001:db8:cb00:7132::1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, third := newRouted6(t)
			n.narrow(t, 1400)
			a, _ := c.pair(t, n.a, n.b)
			start(t, third, tunnelOf(c.a, 5))
			reachable(t, n.a, c.toC)
			waitTooBig(t, n.a, c.toB[0], c.largest(1500, c.toB[0]), 1400-c.over)
			pings(t, n.a, c.toB[0], rig.PingOptions{Size: c.largest(1400, c.toB[0]), DF: true})
			transfer(t, n.a, n.b, c.toB[0], 5<<20)
			transfer(t, n.b, n.a, c.toA[0], 5<<20)
			res, err := rig.Ping(t.Context(), n.a, c.toC, rig.PingOptions{Size: c.largest(1500, c.toC), DF: true, Count: 3})
			if err != nil || res.Received != 3 || len(res.ICMP) > 0 {
				t.Errorf("the wide path: %+v, %v", res, err)
			}
			transfer(t, n.a, third, c.toC, 5<<20)
			if _, s := a.status(t); s.State.PathMTU != 1500 || s.State.TunnelMTU != 1480 || s.ICMP.Received == 0 {
				t.Errorf("%+v, %+v", s.State, s.ICMP)
			}
		})
	}
}

// The path to one destination does not carry 1280 bytes of IPv6 and one more header: outer
// packets to it are fragmented, and others are not.
func TestNarrowerThanIPv6(t *testing.T) {
	for _, k := range []kind{kind6to4, kindGRE, kindStack, kind6in6} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n, third := newRouted6(t)
			n.narrow(t, 1280)
			k.pair(t, n.a, n.b)
			to, back := k.toB[len(k.toB)-1], k.toA[len(k.toA)-1]
			waitTooBig(t, n.a, to, 1500-k.over-48, 1280)
			waitTooBig(t, n.b, back, 1500-k.over-48, 1280)
			pings(t, n.a, to, rig.PingOptions{Size: 1280 - 48, DF: true})
			transfer(t, n.a, n.b, to, 2<<20)
			transfer(t, n.b, n.a, back, 2<<20)
			if k.name != "6to4" {
				return
			}
			start(t, third, tunnelOf(k.a, 5))
			wide := netip.MustParseAddr("2002:cb00:7132::1")
			reachable(t, n.a, wide)
			pings(t, n.a, wide, rig.PingOptions{Size: 1480 - 48, DF: true})
		})
	}
}

// The path to one peer of a hub is narrow: this does not affect the other peer.
func TestNarrowPeer(t *testing.T) {
	const hub = "[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\n" +
		"[[tunnel.peer]]\nname = \"b\"\nremote = \"203.0.113.20\"\nallowed = [\"10.0.0.2/32\"]\n" +
		"[[tunnel.peer]]\nname = \"c\"\nremote = \"203.0.113.50\"\nallowed = [\"10.0.0.5/32\"]\n"
	spoke := func(last, inner int) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"203.0.113.%d\"\nremote = \"203.0.113.10\"\naddress = [\"10.0.0.%d/24\"]\n", last, inner)
	}
	toC := netip.MustParseAddr("10.0.0.5")
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			t.Parallel()
			n, c := newRouted6(t)
			a := start(t, n.a, hub)
			start(t, n.b, spoke(20, 2))
			start(t, c, spoke(50, 5))
			reachable(t, n.a, inB)
			reachable(t, n.a, toC)
			if silent {
				n.dropLarge(t, 1404)
			} else {
				n.narrow(t, 1400)
				waitTooBig(t, n.a, inB, 1476-28, 1376)
			}
			transfer(t, n.a, n.b, inB, 5<<20)
			transfer(t, n.a, c, toC, 5<<20)
			res, err := rig.Ping(t.Context(), n.a, toC, rig.PingOptions{Size: 1476 - 28, DF: true, Count: 3})
			if err != nil || res.Received != 3 {
				t.Errorf("the wide path: %+v, %v", res, err)
			}
			eventually(t, "the path MTU of b alone", func() error {
				if b, c := a.peer(t, "b").State, a.peer(t, "c").State; b.PathMTU < 1400 || b.PathMTU > 1404 || c.PathMTU != 1500 || b.TunnelMTU != 1476 {
					return fmt.Errorf("%+v, %+v", b, c)
				}
				return nil
			})
		})
	}
}

// A path that is narrower than a router is believed is no black hole: DF is clear, and
// routers fragment. If the far end answers probes, the exact size may be found.
func TestNarrowerThanLimit(t *testing.T) {
	t.Parallel()
	plain := kind{"6in4", plainA(), plainB(), []netip.Addr{in6A}, []netip.Addr{in6B}, 20, nil}
	double := kind{"4in6in4", configA(), configB(), []netip.Addr{inA}, []netip.Addr{inB}, 60, nil}
	for _, silent := range []bool{true, false} {
		for _, k := range []kind{kind4in4, kindGRE, plain, double, kind6to4} {
			t.Run(fmt.Sprintf("%s, silent %v", k.name, silent), func(t *testing.T) {
				t.Parallel()
				n := newRouted(t)
				if silent {
					must(t, n.b.Sysctl("net/ipv4/icmp_echo_ignore_all", "1"))
					must(t, n.b.Sysctl("net/ipv6/icmp/echo_ignore_all", "1"))
				}
				n.narrow(t, 500)
				if k.wire == nil {
					start(t, n.a, k.a)
					start(t, n.b, k.b)
				} else {
					start(t, n.a, k.atA())
					start(t, n.b, k.atB())
				}
				for i, to := range k.toB {
					transfer(t, n.a, n.b, to, 1<<20)
					transfer(t, n.b, n.a, k.toA[i], 1<<20)
				}
			})
		}
	}
}

// A static MTU is no black hole where routers must not fragment: over IPv6, and for inner
// packets with DF. Elsewhere routers do, if they know how narrow the next link is.
func TestStaticOverNarrowPath(t *testing.T) {
	t.Parallel()
	static := func(k kind) kind {
		k.a += "pmtu = \"static\"\n"
		return k
	}
	for _, k := range []kind{kind4in4, kindGRE, kind4in6, kind6in6, kindGRE6, kindStack, kind6to4} {
		for _, silent := range []bool{false, true} {
			if silent && (k.name == kindStack.name || k.name == kind6to4.name) {
				continue
			}
			t.Run(fmt.Sprintf("%s, silent %v", k.name, silent), func(t *testing.T) {
				t.Parallel()
				n, _ := newRouted6(t)
				static(k).pair(t, n.a, n.b)
				if silent {
					n.dropLarge(t, 1404)
				} else {
					n.narrow(t, 1400)
				}
				for i, to := range k.toB {
					transfer(t, n.a, n.b, to, 2<<20)
					if !silent {
						transfer(t, n.b, n.a, k.toA[i], 2<<20)
					}
					pings(t, n.a, to, rig.PingOptions{Size: k.largest(1400, to), DF: true})
				}
			})
		}
	}
}

// With ignore_df, packets of 1500 bytes that have DF arrive complete, and no sender gets
// "too big".
func TestIgnoreDF(t *testing.T) {
	t.Parallel()
	double := kind{"4in6in4", "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, "", ip4A, ip4B, 60, nil}
	for _, k := range []kind{kind4in4, kindGRE, kind4in6, kindGRE6, kindStack, double} {
		for _, pmtu := range []string{"dynamic", "static"} {
			t.Run(k.name+" "+pmtu, func(t *testing.T) {
				t.Parallel()
				n, _ := newRouted6(t)
				k := k
				k.a += fmt.Sprintf("mtu = 1500\nignore_df = true\npmtu = %q\n", pmtu)
				a, b := k.pair(t, n.a, n.b)
				pings(t, n.a, inB, rig.PingOptions{Size: 1500 - 28, DF: true})
				pings(t, n.b, inA, rig.PingOptions{Size: 1500 - 28, DF: true})
				n.narrow(t, 1400)
				eventually(t, "packets pass the narrow path", func() error {
					res, err := rig.Ping(t.Context(), n.a, inB, rig.PingOptions{Size: 1500 - 28, DF: true})
					must(t, err)
					if res.Received == 0 {
						return fmt.Errorf("%+v", res)
					}
					return nil
				})
				for _, d := range []*daemon{a, b} {
					if _, s := d.status(t); s.ICMP.SentTypes.TooBig != 0 || s.Out.Drops["too_big"] != 0 {
						t.Errorf("%+v, %+v", s.ICMP, s.Out)
					}
				}
			})
		}
	}
}
