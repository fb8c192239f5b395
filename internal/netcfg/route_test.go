package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
	"sixfour/internal/rig/rigtest"
	"sixfour/internal/rtnl"
)

func router(t testing.TB) *Router {
	t.Helper()
	r, err := NewRouter()
	rigtest.Must(t, err)
	t.Cleanup(r.Close)
	return r
}

// addr parses an address; "" means none.
func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func TestTo(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	mtu := func(n int) func(*netlink.Route) { return func(r *netlink.Route) { r.MTU = n } }
	rigtest.Route(t, ns, "0.0.0.0/0", "192.0.2.2", "eth0", nil)
	rigtest.Route(t, ns, "::/0", "fe80::2", "eth0", nil)
	rigtest.Route(t, ns, "203.0.113.0/24", "198.51.100.2", "eth1", mtu(1300))
	rigtest.Route(t, ns, "2001:db8:2::/64", "2001:db8:1::2", "eth1", mtu(1300))
	rigtest.Route(t, ns, "2001:db8:3::/64", "2001:db8::2", "eth0", func(r *netlink.Route) { r.Src = addr("2001:db8:1::1").AsSlice() })
	// Packets with a mark take another route.
	for _, f := range []struct {
		family   int
		dst, via string
	}{{unix.AF_INET, "0.0.0.0/0", "198.51.100.2"}, {unix.AF_INET6, "::/0", "2001:db8:1::2"}} {
		rule := netlink.NewRule()
		rule.Mark, rule.Table, rule.Family = 7, 100, f.family
		rigtest.Must(t, ns.Handle().RuleAdd(rule))
		rigtest.Route(t, ns, f.dst, f.via, "eth1", func(r *netlink.Route) { r.Table = 100 })
	}
	rigtest.Route(t, ns, "2001:db8:dead::/48", "", "lo", func(r *netlink.Route) { r.Type = unix.RTN_UNREACHABLE })
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/eth1/mtu", "1380"))

	r := router(t)
	for _, c := range []struct {
		remote, local string
		mark          uint32
		source, hop   string
		dev           string
		mtu           int
		err           error
	}{
		// on the link, through a gateway, to a smaller MTU, with a mark
		{"192.0.2.9", "", 0, "192.0.2.1", "192.0.2.9", "eth0", 1500, nil},
		{"100.64.0.1", "", 0, "192.0.2.1", "192.0.2.2", "eth0", 1500, nil},
		{"203.0.113.1", "", 0, "198.51.100.1", "198.51.100.2", "eth1", 1300, nil},
		{"100.64.0.1", "", 7, "198.51.100.1", "198.51.100.2", "eth1", 1400, nil},
		{"2001:db8::9", "", 0, "2001:db8::1", "2001:db8::9", "eth0", 1500, nil},
		{"2001:db8:9::1", "", 0, "2001:db8::1", "fe80::2", "eth0", 1500, nil},
		{"2001:db8:1::9", "", 0, "2001:db8:1::1", "2001:db8:1::9", "eth1", 1380, nil},
		{"2001:db8:2::1", "", 0, "2001:db8:1::1", "2001:db8:1::2", "eth1", 1300, nil},
		{"2001:db8:9::1", "", 7, "2001:db8:1::1", "2001:db8:1::2", "eth1", 1380, nil},
		// a source preferred by the route, and one preferred by us
		{"2001:db8:3::1", "", 0, "2001:db8:1::1", "2001:db8::2", "eth0", 1500, nil},
		{"2001:db8:3::1", "2001:db8::1", 0, "2001:db8::1", "2001:db8::2", "eth0", 1500, nil},
		{"203.0.113.1", "192.0.2.1", 0, "192.0.2.1", "198.51.100.2", "eth1", 1300, nil},
		// our own address
		{"192.0.2.1", "", 0, "192.0.2.1", "192.0.2.1", "lo", 65536, nil},
		{"2001:db8::1", "", 0, "2001:db8::1", "2001:db8::1", "lo", 65536, nil},
		{"127.0.64.9", "192.0.2.1", 0, "192.0.2.1", "127.0.64.9", "lo", 65536, nil},
		{"192.0.2.255", "", 0, "", "", "", 0, errBroadcast},
		// none
		{"203.0.113.1", "192.0.2.9", 0, "", "", "", 0, ErrNotLocal},
		{"2001:db8:9::1", "2001:db8::9", 0, "", "", "", 0, ErrNotLocal},
		{"2001:db8:9::1", "2001:db8:dead::1", 0, "", "", "", 0, ErrNotLocal},
		{"2001:db8:dead::1", "", 0, "", "", "", 0, unix.EHOSTUNREACH},
		{"2001:db8:9::1", "192.0.2.1", 0, "", "", "", 0, unix.EAFNOSUPPORT},
		{"", "192.0.2.1", 0, "", "", "", 0, unix.EAFNOSUPPORT},
	} {
		got, err := r.To(addr(c.remote), addr(c.local), c.mark)
		if !errors.Is(err, c.err) {
			t.Errorf("%s from %q, mark %d: %v, want %v", c.remote, c.local, c.mark, err, c.err)
		}
		if err != nil || c.err != nil {
			continue
		}
		link, err := ns.Handle().LinkByName(c.dev)
		rigtest.Must(t, err)
		want := Route{Source: addr(c.source), Interface: c.dev, Index: link.Attrs().Index, MTU: c.mtu, NextHop: addr(c.hop), Queues: link.Attrs().NumRxQueues}
		want.ToThisHost = c.dev == "lo"
		if c.dev != "lo" {
			want.Ethernet, want.Hardware = true, [6]byte(rigtest.MAC)
		}
		want.Bits = got.Bits // see TestBits
		if got != want {
			t.Errorf("%s from %q, mark %d:\n%+v, want\n%+v", c.remote, c.local, c.mark, got, want)
		}
	}
}

// TestBits checks the length of the prefix that the kernel's table has for an address.
// It shows whether a change of another route concerns this one.
func TestBits(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Route(t, ns, "0.0.0.0/0", "192.0.2.2", "eth0", nil)
	rigtest.Route(t, ns, "203.0.113.0/24", "198.51.100.2", "eth1", nil)
	rigtest.Route(t, ns, "203.0.113.7/32", "198.51.100.2", "eth1", nil)
	rigtest.Route(t, ns, "2001:db8:7::/48", "fe80::2", "eth0", nil)
	for a, want := range map[string]int{"100.64.0.1": 0, "203.0.113.1": 24, "203.0.113.7": 32, "192.0.2.9": 24, "2001:db8:7::1": 48} {
		if got, err := router(t).To(addr(a), addr(""), 0); err != nil || got.Bits != want {
			t.Errorf("%s: /%d, %v, want /%d", a, got.Bits, err, want)
		}
	}
}

// TestToVia: a gateway of the other family, which IPv4 routes may have (RFC 5549).
func TestToVia(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Route(t, ns, "203.0.113.0/24", "", "eth0", func(r *netlink.Route) {
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: addr("fe80::2").AsSlice()}
	})
	got, err := router(t).To(addr("203.0.113.1"), addr(""), 0)
	if err != nil || got.NextHop != addr("fe80::2") || got.Source != addr("192.0.2.1") {
		t.Errorf("%+v, %v, want through fe80::2", got, err)
	}
}

// TestToAll: many queries at once, more than are in flight: each has its own answer or
// its own error.
func TestToAll(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Route(t, ns, "203.0.113.0/24", "192.0.2.2", "eth0", nil)
	rigtest.Route(t, ns, "2001:db8:2::/64", "fe80::2", "eth0", nil)
	r := router(t)
	kinds := []struct {
		remote, local string
		err           error
	}{
		{"203.0.113.1", "", nil},
		{"2001:db8:2::1", "2001:db8:1::1", nil},
		{"100.64.0.1", "", unix.ENETUNREACH},
		{"2001:db8:3::1", "", unix.ENETUNREACH},
		{"203.0.113.1", "203.0.113.2", ErrNotLocal},
		{"203.0.113.1", "198.51.100.1", nil},
		{"203.0.113.1", "2001:db8::1", unix.EAFNOSUPPORT},
	}
	var queries []Query
	for i := range 10 * rtnl.InFlight {
		k := kinds[i%len(kinds)]
		queries = append(queries, Query{addr(k.remote), addr(k.local), 0})
	}
	for i, a := range r.ToAll(queries) {
		if k := kinds[i%len(kinds)]; !errors.Is(a.Err, k.err) {
			t.Errorf("query %d, %v: %v, want %v", i, queries[i], a.Err, k.err)
		}
		if want, err := r.To(queries[i].Remote, queries[i].Local, 0); want != a.Route || (err == nil) != (a.Err == nil) {
			t.Errorf("query %d, %v: %+v, %v, alone %+v, %v", i, queries[i], a.Route, a.Err, want, err)
		}
	}
	if got := r.ToAll(nil); len(got) != 0 {
		t.Errorf("no query: %v", got)
	}
	r.conn.Close()
	for i, a := range r.ToAll(queries[:2*rtnl.InFlight]) {
		if a.Err == nil {
			t.Errorf("query %d has an answer from a closed socket", i)
		}
	}
}

func TestHolder(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/eth1/mtu", "1380"))
	r := router(t)
	for _, c := range []struct {
		local, dev string
		mtu        int
	}{
		{"192.0.2.1", "eth0", 1500},
		{"198.51.100.1", "eth1", 1400},
		{"2001:db8::1", "eth0", 1500},
		{"2001:db8:1::1", "eth1", 1380},
		{"fe80::1", "eth0", 1500},
		{"127.0.0.1", "lo", 65536},
		{"192.0.2.2", "", 0},
		{"192.0.2.255", "", 0},
		{"2001:db8::2", "", 0},
		{"", "", 0},
	} {
		got, err := r.InterfaceWith(addr(c.local))
		if c.dev == "" {
			if !errors.Is(err, ErrNotLocal) {
				t.Errorf("%q: %+v, %v, want %v", c.local, got, err, ErrNotLocal)
			}
			continue
		}
		rigtest.Must(t, err)
		link, err := ns.Handle().LinkByName(c.dev)
		rigtest.Must(t, err)
		want := Route{Source: addr(c.local), Interface: c.dev, Index: link.Attrs().Index, MTU: c.mtu, Queues: link.Attrs().NumRxQueues}
		if c.dev != "lo" {
			want.Ethernet, want.Hardware = true, [6]byte(rigtest.MAC)
		}
		if got != want {
			t.Errorf("%s:\n%+v, want\n%+v", c.local, got, want)
		}
	}
}

func TestNeighbour(t *testing.T) {
	ns, isp := rigtest.Uplinks(t)
	theirs, err := isp.MAC("eth0")
	rigtest.Must(t, err)
	rigtest.Route(t, ns, "::/0", "fe80::2", "eth0", nil)
	r := router(t)
	for _, remote := range []string{"192.0.2.2", "2001:db8::2", "2001:db8:9::1"} {
		to, err := r.To(addr(remote), addr(""), 0)
		rigtest.Must(t, err)
		var hardware [6]byte
		for ok, deadline := false, time.Now().Add(10*time.Second); !ok; time.Sleep(time.Millisecond) {
			if hardware, ok = r.Neighbour(to); !ok && time.Now().After(deadline) {
				t.Fatalf("%s: the kernel does not find its hop %v", remote, to.NextHop)
			}
		}
		if hardware != [6]byte(theirs) {
			t.Errorf("%s: % x, want % x", remote, hardware, theirs)
		}
	}
	nobody, err := r.To(addr("2001:db8::3"), addr(""), 0)
	rigtest.Must(t, err)
	if hardware, ok := r.Neighbour(nobody); ok {
		t.Errorf("a neighbour that does not exist has the address % x", hardware)
	}
}

// BenchmarkToAll: very many peers of either family behind a gateway.
func BenchmarkToAll(b *testing.B) {
	ns, _ := rigtest.Uplinks(b)
	rigtest.Route(b, ns, "10.0.0.0/8", "192.0.2.2", "eth0", nil)
	rigtest.Route(b, ns, "2001:db8:2::/64", "fe80::2", "eth0", nil)
	for _, local := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, peers := range []int{1, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%d from %s", peers, local), func(b *testing.B) {
				// The benchmark has a goroutine, and so a thread, of its own.
				var r *Router
				rigtest.Must(b, netns.In(ns.Path(), func() (err error) {
					r, err = NewRouter()
					return err
				}))
				defer r.Close()
				queries := make([]Query, peers)
				for i := range queries {
					remote := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
					if addr(local).Is6() {
						remote = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 2, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
					}
					queries[i] = Query{Remote: remote, Local: addr(local)}
				}
				for b.Loop() {
					for i, a := range r.ToAll(queries) {
						if a.Err != nil || a.Interface != "eth0" {
							b.Fatalf("%v: %+v", queries[i], a)
						}
					}
				}
			})
		}
	}
}
