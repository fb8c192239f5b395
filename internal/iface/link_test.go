package iface

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/internal/rtnl"
)

func prefixes(list string) (ps []netip.Prefix) {
	for _, s := range strings.Fields(list) {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// openLink makes the interface six0 in the namespace.
func openLink(t testing.TB, ns *rig.Namespace, addresses, routes []netip.Prefix) *Link {
	t.Helper()
	l, err := Open(Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 1, Addresses: addresses, Routes: routes})
	rigtest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// addresses returns those of six0 in a family, sorted.
func addresses(t testing.TB, ns *rig.Namespace, family int) string {
	t.Helper()
	link, err := ns.Handle().LinkByName("six0")
	rigtest.Must(t, err)
	list, err := ns.Handle().AddrList(link, family)
	rigtest.Must(t, err)
	var all []string
	for _, a := range list {
		all = append(all, a.IPNet.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// routes returns those through six0 in the main table, sorted, without the kernel's own.
func routes(t testing.TB, ns *rig.Namespace, family int) string {
	t.Helper()
	link, err := ns.Handle().LinkByName("six0")
	rigtest.Must(t, err)
	list, err := ns.Handle().RouteList(link, family)
	rigtest.Must(t, err)
	var all []string
	for _, r := range list {
		if r.Protocol != unix.RTPROT_KERNEL {
			all = append(all, fmt.Sprintf("%v/%d/%d", r.Dst, r.Priority, r.MTU))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestOpenAndRestore(t *testing.T) {
	ns := rigtest.Enter(t, "iface")
	l := openLink(t, ns, prefixes("10.0.0.1/30 fe80::5efe:c000:201/64 2001:db8::1/64"),
		prefixes("192.168.2.0/24 10.9.8.7/16 0.0.0.0/0 2001:db8:2::/48 ::/0"))
	want := func(when string) {
		t.Helper()
		for _, c := range []struct{ got, want string }{
			{addresses(t, ns, unix.AF_INET), "10.0.0.1/30"},
			{addresses(t, ns, unix.AF_INET6), "2001:db8::1/64 fe80::5efe:c000:201/64"},
			{routes(t, ns, unix.AF_INET), "0.0.0.0/0/0/0 10.9.0.0/16/0/0 192.168.2.0/24/0/0"},
			{routes(t, ns, unix.AF_INET6), "2001:db8:2::/48/1024/0 ::/0/1024/0"},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s, want %s", when, c.got, c.want)
			}
		}
	}
	want("made")
	count := func(want Restored) {
		t.Helper()
		if got := restored(t, l); got != want {
			t.Errorf("restored %+v, want %+v", got, want)
		}
	}
	count(Restored{})
	want("restored, though nothing was missing")
	// A missing route after one that is not missing.
	rigtest.Must(t, ns.Handle().RouteDel(&netlink.Route{LinkIndex: l.Index(), Dst: ipNet(netip.MustParsePrefix("10.9.0.0/16")), Scope: netlink.SCOPE_LINK}))
	count(Restored{Routes: 1})
	want("one route restored")
	rigtest.Must(t, ns.DelAddr("six0", netip.MustParsePrefix("10.0.0.1/30"))) // with all IPv4 routes, because it is the only address
	count(Restored{1, 3})
	want("address restored")
	// Also the routes that the kernel adds with addresses.
	connected := func() (n int) {
		list, err := ns.Handle().RouteList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index()}}, netlink.FAMILY_ALL)
		rigtest.Must(t, err)
		for _, r := range list {
			if r.Protocol == unix.RTPROT_KERNEL {
				n++
			}
			rigtest.Must(t, ns.Handle().RouteDel(&r))
		}
		return n
	}
	if n := connected(); n != 3 {
		t.Errorf("%d connected routes", n)
	}
	count(Restored{Routes: 8})
	want("flushed and restored")
	if n := connected(); n != 3 {
		t.Errorf("%d connected routes after they were restored", n)
	}
	count(Restored{Routes: 8})
	rigtest.Must(t, ns.LinkDown("six0"))
	rigtest.Must(t, ns.LinkUp("six0"))
	count(Restored{2, 5})
	want("restored")
	rigtest.Must(t, l.Close())
	if _, err := ns.Handle().LinkByName("six0"); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("after Close: %v", err)
	}
}

// TestLinkLocal: without a configured link-local address, an IPv6 tunnel gets the
// kernel's.
func TestLinkLocal(t *testing.T) {
	for _, c := range []struct {
		given string
		made  bool
	}{{"2001:db8::1/64", true}, {"fe80::1/64", false}, {"fe80::1/64 2001:db8::1/64", false}, {"10.0.0.1/30", false}, {"", false}} {
		if got := automatic(prefixes(c.given)); got != c.made {
			t.Errorf("%s: the kernel makes one: %v", c.given, got)
		}
		ns := rigtest.Enter(t, "iface")
		l := openLink(t, ns, prefixes(c.given), nil)
		got := strings.Fields(addresses(t, ns, unix.AF_INET6))
		given := slices.DeleteFunc(strings.Fields(c.given), func(s string) bool { return !strings.Contains(s, ":") })
		if made := len(got) - len(given); made != 0 && !c.made || made != 1 && c.made {
			t.Errorf("given %q, there are %v", c.given, got)
		}
		l.Close()
	}
}

// TestRouteOfOthers: the error names the first of many routes that cannot be added, and
// everything is removed again.
func TestRouteOfOthers(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Route(t, ns, "203.0.113.0/24", "192.0.2.2", "eth0", func(r *netlink.Route) { r.Priority = 0 })
	l := openLink(t, ns, nil, nil)
	var many []netip.Prefix
	for i := range 3 * rtnl.InFlight {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24))
	}
	many[2*rtnl.InFlight] = netip.MustParsePrefix("203.0.113.0/24")
	rigtest.Must(t, l.Close())
	_, err := Open(Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 1, Routes: many})
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "203.0.113.0/24") || !strings.Contains(err.Error(), "ip route del") {
		t.Errorf("%v", err)
	}
	if _, err := ns.Handle().LinkByName("six0"); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("after the failure: %v", err)
	}
}

// lifetimes returns how long an address of six0 may still be used, in seconds.
func lifetimes(t *testing.T, ns *rig.Namespace, a string) (preferred, valid uint32) {
	t.Helper()
	link, err := ns.Handle().LinkByName("six0")
	rigtest.Must(t, err)
	list, err := ns.Handle().AddrList(link, unix.AF_INET6)
	rigtest.Must(t, err)
	for _, x := range list {
		if x.IPNet.String() == a {
			return uint32(x.PreferedLft), uint32(x.ValidLft)
		}
	}
	t.Fatalf("%s is not there", a)
	return 0, 0
}

func TestLearn(t *testing.T) {
	ns := rigtest.Enter(t, "iface")
	const link = "fe80::5efe:c000:201/64"
	l := openLink(t, ns, prefixes(link), nil)
	lease := func(p string, preferred, valid time.Duration) Lease {
		return Lease{netip.MustParsePrefix(p), preferred, valid}
	}
	const forever = math.MaxUint32 * time.Second
	a, b := "2001:db8:1::5efe:c000:201/64", "2001:db8:2::5efe:c000:201/64"
	for _, c := range []struct {
		when         string
		leases       []Lease
		defaultRoute bool
		mtu          int
		addresses    string
		routes       string
	}{
		{"nothing", nil, false, 0, link, ""},
		{"one", []Lease{lease(a, time.Hour, 2*time.Hour)}, true, 1280, a + " " + link, "::/0/4096/1280"},
		{"another MTU", []Lease{lease(a, time.Hour, 2*time.Hour)}, true, 1300, a + " " + link, "::/0/4096/1300"},
		{"an MTU that is none", []Lease{lease(a, time.Hour, 2*time.Hour)}, true, 1279, a + " " + link, "::/0/4096/0"},
		{"the same", []Lease{lease(a, time.Hour, 2*time.Hour)}, true, 0, a + " " + link, "::/0/4096/0"},
		{"another", []Lease{lease(a, 0, time.Hour), lease(b, forever, forever), lease(b, 1, 1)}, false, 0, a + " " + b + " " + link, ""},
		{"the one that is configured", []Lease{lease(b, forever, forever), lease(link, 0, time.Hour)}, false, 0, b + " " + link, ""},
		{"no longer valid", []Lease{lease(b, time.Hour, 0)}, false, 0, link, ""},
		{"one, with another length", []Lease{lease(a, time.Hour, time.Hour)}, false, 0, a + " " + link, ""},
		{"and longer", []Lease{lease("2001:db8:1::5efe:c000:201/128", time.Hour, time.Hour)}, false, 0, "2001:db8:1::5efe:c000:201/128 " + link, ""},
		{"nothing again", nil, false, 0, link, ""},
		{"both", []Lease{lease(a, 0, time.Hour), lease(b, forever, forever)}, true, 1400, a + " " + b + " " + link, "::/0/4096/1400"},
	} {
		rigtest.Must(t, l.Learn(c.leases, c.defaultRoute, c.mtu))
		if got := addresses(t, ns, unix.AF_INET6); got != c.addresses {
			t.Errorf("%s: addresses %s, want %s", c.when, got, c.addresses)
		}
		if got := routes(t, ns, unix.AF_INET6); got != c.routes {
			t.Errorf("%s: routes %s, want %s", c.when, got, c.routes)
		}
		for _, p := range []string{"2001:db8:1::/64", "2001:db8:2::/64"} {
			want := strings.Contains(c.addresses, strings.TrimSuffix(p, "/64")) && !strings.Contains(c.addresses, "/128")
			if got := prefixRoute(t, ns, p); got != want {
				t.Errorf("%s: a route to %s: %v, want %v", c.when, p, got, want)
			}
		}
	}
	good := func(when string) {
		t.Helper()
		if p, v := lifetimes(t, ns, a); p != 0 || v > 3600 || v < 3000 {
			t.Errorf("%s: %s has %d, %d s, want 0, 3600", when, a, p, v)
		}
		for _, x := range []string{b, link} {
			if p, v := lifetimes(t, ns, x); p != math.MaxUint32 || v != math.MaxUint32 {
				t.Errorf("%s: %s has %d, %d s, want for ever", when, x, p, v)
			}
		}
	}
	good("learnt")
	rigtest.Must(t, ns.LinkDown("six0"))
	rigtest.Must(t, ns.LinkUp("six0"))
	restored(t, l)
	if got, want := addresses(t, ns, unix.AF_INET6), a+" "+b+" "+link; got != want {
		t.Errorf("restored: addresses %s, want %s", got, want)
	}
	if got := routes(t, ns, unix.AF_INET6); got != "::/0/4096/1400" {
		t.Errorf("restored: routes %s", got)
	}
	good("restored")
	// The kernel has already removed it.
	rigtest.Must(t, ns.LinkDown("six0"))
	rigtest.Must(t, l.Learn(nil, false, 0))

	err := l.Learn([]Lease{{netip.MustParsePrefix("10.0.0.1/24"), time.Hour, time.Hour}}, false, 0)
	if err == nil || !strings.Contains(err.Error(), "10.0.0.1/24") || !strings.Contains(err.Error(), "six0") {
		t.Errorf("an IPv4 address: %v", err)
	}
}

// TestLearnDefaultOfOthers: two tunnels may learn a default route, and a native one is
// still preferred.
func TestLearnDefaultOfOthers(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Route(t, ns, "::/0", "fe80::2", "eth0", nil)
	l := openLink(t, ns, prefixes("fe80::5/64"), nil)
	other, err := Open(Settings{Name: "six1", Namespace: ns.Path(), MTU: 1400, Queues: 1, Addresses: prefixes("fe80::6/64")})
	rigtest.Must(t, err)
	defer other.Close()
	rigtest.Must(t, l.Learn(nil, true, 0))
	rigtest.Must(t, other.Learn(nil, true, 0))
	if got := routes(t, ns, unix.AF_INET6); got != "::/0/4096/0" {
		t.Errorf("six0: %s", got)
	}
	r, err := netcfg.NewRouter()
	rigtest.Must(t, err)
	defer r.Close()
	if to, err := r.To(netip.MustParseAddr("2001:db8:9::1"), netip.Addr{}, 0); err != nil || to.Interface != "eth0" {
		t.Errorf("with a native route: through %s, %v", to.Interface, err)
	}
	rigtest.Must(t, ns.LinkDown("eth0"))
	rigtest.Must(t, other.Learn(nil, false, 0))
	if to, err := r.To(netip.MustParseAddr("2001:db8:9::1"), netip.Addr{}, 0); err != nil || to.Interface != "six0" {
		t.Errorf("without one: through %s, %v", to.Interface, err)
	}
}

// TestRestoreMany: routes after the first ones are restored, too.
func TestRestoreMany(t *testing.T) {
	ns := rigtest.Enter(t, "iface")
	var many []netip.Prefix
	for i := range 10 * rtnl.InFlight {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	l := openLink(t, ns, prefixes("192.0.2.1/32"), many)
	for range 2 {
		if got := len(strings.Fields(routes(t, ns, unix.AF_INET))); got != len(many) {
			t.Errorf("%d routes, want %d", got, len(many))
		}
		rigtest.Must(t, ns.LinkDown("six0"))
		if got := routes(t, ns, unix.AF_INET); got != "" {
			t.Errorf("routes of an interface that is down: %s", got)
		}
		rigtest.Must(t, ns.LinkUp("six0"))
		restored(t, l)
	}
}

// BenchmarkOpen makes and restores an interface with very many routes.
func BenchmarkOpen(b *testing.B) {
	ns := rigtest.Enter(b, "iface")
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{10_000, 100_000} {
			many := make([]netip.Prefix, n)
			for i := range many {
				many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
				if v6 {
					many[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}), 64)
				}
			}
			b.Run(fmt.Sprintf("%d routes, IPv6 %v", n, v6), func(b *testing.B) {
				var made, touched, restore, remove time.Duration
				for b.Loop() {
					start := time.Now()
					l := openLink(b, ns, prefixes("10.255.0.1/32 fe80::1/64"), many)
					made += time.Since(start)
					start = time.Now()
					restored(b, l)
					touched += time.Since(start)
					rigtest.Must(b, ns.LinkDown("six0"))
					rigtest.Must(b, ns.LinkUp("six0"))
					start = time.Now()
					restored(b, l)
					restore += time.Since(start)
					start = time.Now()
					rigtest.Must(b, l.Close())
					remove += time.Since(start)
				}
				b.ReportMetric(float64(made.Milliseconds())/float64(b.N), "ms/open")
				b.ReportMetric(float64(touched.Milliseconds())/float64(b.N), "ms/nothing-missing")
				b.ReportMetric(float64(restore.Milliseconds())/float64(b.N), "ms/restore")
				b.ReportMetric(float64(remove.Milliseconds())/float64(b.N), "ms/close")
			})
		}
	}
}

// restored restores what an interface lacks, and returns how much that was.
func restored(t testing.TB, l *Link) Restored {
	t.Helper()
	r, err := l.Restore()
	rigtest.Must(t, err)
	return r
}

// prefixRoute reports whether the interface has a route that the kernel added with an address.
func prefixRoute(t *testing.T, ns *rig.Namespace, prefix string) bool {
	t.Helper()
	var out rig.Log
	cmd := exec.Command("ip", "-6", "route", "show", prefix, "dev", "six0", "proto", "kernel")
	cmd.Stdout = &out
	rigtest.Must(t, ns.Start(cmd))
	rigtest.Must(t, cmd.Wait())
	return out.String() != ""
}
