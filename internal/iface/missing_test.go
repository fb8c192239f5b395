package iface

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
	"sixfour/internal/rtnl"
)

// TestPartial: with Partial, an interface is made although another one has some of its
// routes, or IPv6 is off. It reports what is missing, and gets everything later.
func TestPartial(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	foreign := func(dst, via string) {
		rigtest.Route(t, ns, dst, via, "eth0", func(r *netlink.Route) { r.Priority = 0 })
	}
	foreign("203.0.113.0/24", "192.0.2.2")
	foreign("0.0.0.0/0", "192.0.2.2")
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	set := Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 1, Partial: true,
		Addresses: prefixes("10.0.0.1/30 fd00::1/64 fe80::1/64"), Routes: prefixes("10.9.0.0/16 203.0.113.0/24 0.0.0.0/0 fd00:2::/48")}
	l, err := Open(set)
	rigtest.Must(t, err)
	defer l.Close()
	if err := l.Missing(); err == nil || !strings.Contains(err.Error(), "IPv6 is disabled") {
		t.Errorf("missing: %v", err)
	}
	if got := routes(t, ns, unix.AF_INET); got != "10.9.0.0/16/0/0" {
		t.Errorf("the routes that are free: %s", got)
	}
	restored(t, l) // does not try what is refused
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/six0/disable_ipv6", "0"))
	if err := l.AddMissing(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "203.0.113.0/24") {
		t.Errorf("with IPv6: %v", err)
	}
	del := func(dst string) {
		t.Helper()
		rigtest.Must(t, ns.Handle().RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Gw: netip.MustParseAddr("192.0.2.2").AsSlice()}))
	}
	del("203.0.113.0/24")
	if err := l.AddMissing(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "0.0.0.0/0") {
		t.Errorf("with one route: %v", err)
	}
	other := prefixes("0.0.0.0/0 10.8.0.0/16")
	rigtest.Must(t, l.RemoveOthers(set.Addresses, other))
	if err := l.AddPossible(set.Addresses, other); !errors.Is(err, fs.ErrExist) {
		t.Errorf("with other routes: %v", err)
	}
	del("0.0.0.0/0")
	rigtest.Must(t, l.AddMissing())
	rigtest.Must(t, l.Missing())
	if got, want := routes(t, ns, unix.AF_INET), "0.0.0.0/0/0/0 10.8.0.0/16/0/0"; got != want {
		t.Errorf("all: %s, want %s", got, want)
	}
	if got, want := addresses(t, ns, unix.AF_INET)+" "+addresses(t, ns, unix.AF_INET6), "10.0.0.1/30 fd00::1/64 fe80::1/64"; got != want {
		t.Errorf("all: %s, want %s", got, want)
	}
	if got := restored(t, l); got != (Restored{}) {
		t.Errorf("restored %+v", got)
	}
}

// TestTaken: a route of another interface is detected before an interface is made, and
// also if it is added later.
func TestTaken(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	list := prefixes("10.9.0.0/16 0.0.0.0/0 fd00:2::/48 ::/0")
	foreign := func(dst, via string, metric int) {
		rigtest.Route(t, ns, dst, via, "eth0", func(r *netlink.Route) { r.Priority = metric })
	}
	check := func(when, want string) {
		t.Helper()
		err := CheckRoutes(ns.Path(), "six0", list)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), "add route "+want+" through six0") {
			t.Errorf("%s: %v, want %q", when, err, want)
		}
	}
	check("nothing is there", "")
	foreign("0.0.0.0/0", "192.0.2.2", 100)
	foreign("::/0", "fe80::2", 2048)
	foreign("fd00:2::/64", "fe80::2", 0)
	check("beside it there is room", "")
	l := openLink(t, ns, prefixes("10.0.0.1/30 fd00::1/64"), list)
	check("it is ours", "")
	rigtest.Must(t, l.RouteConflict())
	for _, dst := range []string{"::/0", "fd00:2::/48", "0.0.0.0/0", "10.9.0.0/16"} {
		via := "192.0.2.2"
		if strings.Contains(dst, ":") {
			via = "fe80::2"
		}
		eth0, err := ns.Handle().LinkByName("eth0")
		rigtest.Must(t, err)
		rigtest.Must(t, ns.Handle().RouteReplace(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Gw: netip.MustParseAddr(via).AsSlice(), LinkIndex: eth0.Attrs().Index}))
		// The error names the first of the list; routes are taken from the end of the
		// list.
		if err := l.RouteConflict(); err == nil || !strings.Contains(err.Error(), "add route "+dst+" ") {
			t.Errorf("%s was replaced: %v", dst, err)
		}
		check("taken", dst)
	}
}

// The next RemoveOthers removes what a RemoveOthers could not remove. Restore does not
// add it again. If it is wanted again, the interface keeps it.
func TestLeaveTriesAgain(t *testing.T) {
	ns := rigtest.Enter(t, "iface")
	set := Settings{Addresses: prefixes("10.0.0.1/30 10.1.0.1/30"), Routes: prefixes("10.8.0.0/16 10.9.0.0/16 10.10.0.0/16")}
	l := openLink(t, ns, set.Addresses, set.Routes)
	state := func() string { return addresses(t, ns, unix.AF_INET) + " " + routes(t, ns, unix.AF_INET) }
	fail := func(addresses, routes []netip.Prefix) {
		t.Helper()
		cutOff(t, l, func() error { return l.RemoveOthers(addresses, routes) })
	}
	fail(set.Addresses[:1], set.Routes[:1])
	rigtest.Must(t, l.AddPossible(set.Addresses[:1], set.Routes[:2])) // the second route is wanted again
	fail(set.Addresses[:1], set.Routes[:2])
	rigtest.Must(t, l.RemoveOthers(set.Addresses[:1], set.Routes[:2]))
	if got, want := state(), "10.0.0.1/30 10.8.0.0/16/0/0 10.9.0.0/16/0/0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	fail(set.Addresses[:1], set.Routes[:1])
	rigtest.Must(t, l.Add(set.Addresses[:1], set.Routes[:2]))
	if got, want := state(), "10.0.0.1/30 10.8.0.0/16/0/0 10.9.0.0/16/0/0"; got != want {
		t.Errorf("it was wanted again: %s, want %s", got, want)
	}
	fail(set.Addresses[:1], set.Routes[:1])
	rigtest.Must(t, ns.Handle().RouteDel(&netlink.Route{Dst: ipNet(set.Routes[1]), LinkIndex: l.Index(), Scope: netlink.SCOPE_LINK}))
	if got := restored(t, l); got != (Restored{}) {
		t.Errorf("restored %+v, which is not wanted", got)
	}
	rigtest.Must(t, l.RemoveOthers(set.Addresses[:1], set.Routes[:1]))
	if got, want := state(), "10.0.0.1/30 10.8.0.0/16/0/0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// cutOff has something fail on an interface because the kernel cannot be reached.
func cutOff(t *testing.T, l *Link, do func() error) {
	t.Helper()
	good := l.conn
	bad, err := rtnl.Dial()
	rigtest.Must(t, err)
	bad.Close()
	l.conn = bad
	if err := do(); err == nil {
		t.Fatal("no error without a connection to the kernel")
	}
	l.conn = good
}

// The next Learn removes a default route that a Learn could not remove.
func TestLearnTriesAgain(t *testing.T) {
	ns := rigtest.Enter(t, "iface")
	l := openLink(t, ns, prefixes("fd00::1/64"), nil)
	rigtest.Must(t, l.Learn(nil, true, 0))
	if got := routes(t, ns, unix.AF_INET6); got != "::/0/4096/0" {
		t.Fatalf("learnt: %s", got)
	}
	cutOff(t, l, func() error { return l.Learn(nil, false, 0) })
	rigtest.Must(t, l.Learn(nil, false, 0))
	if got := routes(t, ns, unix.AF_INET6); got != "" {
		t.Errorf("still there: %s", got)
	}
}
