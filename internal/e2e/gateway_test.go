package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// Connections from a's side to c, and back: with the server's address through the tunnel,
// with a's own address where that is intended, and from c to the old address. Nothing is
// left behind.
func TestGateway(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.checkDirect(t)
	wasA := kernelState(t, n.a)
	before := kernelState(t, n.b)
	n.forward6(t)
	wasB := kernelState(t, n.b)
	b := start(t, n.b, serverConfig())
	a := start(t, n.a, clientConfig())
	n.checkPaths(t)
	waitSource(t, n.a, n.b, inB, inA)
	transfer(t, n.a, n.c, addrC, 4<<20)

	// What c sends to b's old address is not for a, and b is not a router for c.
	if _, err := sourceSeen(t, n.c, n.b, addrB); err != nil {
		t.Errorf("connect to the server: %v", err)
	}
	must(t, n.c.AddRoute(netip.PrefixFrom(inA, 32), first(addrC), ""))
	must(t, n.r.AddRoute(netip.PrefixFrom(inA, 32), addrB, ""))
	if from, err := sourceSeen(t, n.c, n.a, inA); err == nil {
		t.Errorf("the server lets %v into the tunnel", from)
	}
	must(t, n.r.DelRoute(netip.PrefixFrom(inA, 32), addrB, ""))

	if code := a.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	unchanged(t, n.a, wasA)
	n.checkDirect(t)
	b.end(t, syscall.SIGTERM)
	unchanged(t, n.b, wasB)
	if wasB == before {
		t.Error("the comparison does not see forwarding")
	}
	for _, d := range []*daemon{a, b} {
		if log := d.log.String(); strings.Contains(log, "restored") || strings.Contains(log, " ERROR ") {
			t.Errorf("log:\n%s", log)
		}
	}
}

// A server that forwarded before continues to forward, for all hosts.
func TestGatewayOfARouter(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	must(t, n.b.Forward())
	was := kernelState(t, n.b)
	b := start(t, n.b, serverConfig())
	start(t, n.a, clientConfig())
	n.checkPaths(t)
	b.end(t, syscall.SIGTERM)
	unchanged(t, n.b, was)
}

// If an administrator turns forwarding on for the whole host while the daemon has turned it
// on for itself, it stays on.
func TestGatewayLeavesForwarding(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	must(t, n.b.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	b := start(t, n.b, serverConfig())
	start(t, n.a, clientConfig())
	waitSource(t, n.a, n.c, addrC, addrB)
	must(t, n.b.Sysctl("net/ipv4/ip_forward", "1"))
	b.end(t, syscall.SIGTERM)
	if is := kernelState(t, n.b); !strings.Contains(is, "conf/eth0/forwarding 1") || strings.Contains(is, "proto 64") {
		t.Errorf("it is\n%s", is)
	}
}

// Rules and routes that another program removes are restored, and connections continue.
func TestGatewayRestores(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	start(t, n.b, serverConfig())
	a := start(t, n.a, clientConfig())
	n.checkPaths(t)
	repairs := func() uint64 {
		_, s := a.status(t)
		return s.Repairs["route"]
	}
	l, err := n.c.ListenTCP(netip.AddrPortFrom(addrC, 0))
	must(t, err)
	defer l.Close()
	kept, err := n.a.DialTCP(t.Context(), netip.MustParseAddrPort(l.Addr().String()))
	must(t, err)
	defer kept.Close()
	other, err := l.AcceptTCP()
	must(t, err)
	defer other.Close()

	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		before := repairs()
		// ip rule flush
		rules, err := n.a.Handle().RuleList(family)
		must(t, err)
		for _, r := range rules {
			if r.Priority > 0 {
				r.Family = family
				if err := n.a.Handle().RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
					t.Fatalf("%v: %v", r, err)
				}
			}
		}
		eventually(t, "the rules are back", func() error {
			if repairs() == before {
				return errors.New("nothing was repaired")
			}
			return nil
		})
	}
	n.checkPaths(t)

	// ip route flush table 25700
	before := repairs()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := n.a.Handle().RouteListFiltered(family, &netlink.Route{Table: 0x6464}, netlink.RT_FILTER_TABLE)
		must(t, err)
		if len(routes) != 1 {
			t.Errorf("the table has %v", routes)
		}
		for _, r := range routes {
			must(t, n.a.Handle().RouteDel(&r))
		}
	}
	eventually(t, "the routes are back", func() error {
		if repairs() == before {
			return errors.New("nothing was repaired")
		}
		return nil
	})
	n.checkPaths(t)

	// The interface is deleted, and made again.
	must(t, n.a.DelLink("six0"))
	a.wait(t, "the interface was made again")
	n.checkPaths(t)

	must(t, kept.SetDeadline(time.Now().Add(patience)))
	must(t, other.SetDeadline(time.Now().Add(patience)))
	_, err = kept.Write([]byte{1})
	must(t, err)
	if k, err := other.Read(make([]byte, 1)); err != nil || k != 1 {
		t.Errorf("the connection from before: %v", err)
	}
}

// A reload adds the gateway, changes it and removes it, and the tunnel carries packets all
// the time.
func TestGatewayReload(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	plain, server := fmt.Sprintf(twoEnds, addrB, 1, 2, 1, 1), fmt.Sprintf(twoEnds, addrA, 2, 1, 2, 2)
	const filter = "[security]\npacket_filter = \"on\"\n" // from the start, because the gateway is added later
	b := start(t, n.b, filter+server)
	a := start(t, n.a, filter+plain)
	wasA, wasB := kernelState(t, n.a), kernelState(t, n.b)
	waitSource(t, n.a, n.b, inB, inA)
	for range 2 {
		b.mustReload(t, serverConfig())
		a.mustReload(t, clientConfig())
		n.checkPaths(t)
		a.mustReload(t, strings.Replace(clientConfig(), "bypass = [\"192.0.2.99/32\", ", "bypass = [", 1))
		waitSource(t, n.a, n.c, bypassC, addrB)
		waitSource(t, n.a, n.c, bypassC6, addrA6)
		a.mustReload(t, plain)
		n.checkDirect(t)
		waitSource(t, n.a, n.b, inB, inA)
		unchanged(t, n.a, wasA)
		b.mustReload(t, server)
		unchanged(t, n.b, wasB)
	}
	if strings.Contains(a.log.String(), "waiting") {
		t.Errorf("the tunnel did not carry all the while:\n%s", a.log.String())
	}
}

// While the peer is down no packet leaves by the old default route, and SSH to the host
// still works.
func TestGatewayNeverLeaks(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	b := start(t, n.b, serverConfig())
	start(t, n.a, clientConfig())
	waitSource(t, n.a, n.c, addrC, addrB)
	b.end(t, syscall.SIGKILL)
	if from, err := sourceSeen(t, n.a, n.c, addrC); err == nil {
		t.Errorf("a connection leaks out from %v", from)
	}
	waitSource(t, n.c, n.a, addrA, addrC)

	// The uplink gets another address, and the tunnel follows: the new address answers, and
	// the peer is still reached by the old default route.
	moved := addrA.Next()
	must(t, n.a.DelAddr("eth0", netip.PrefixFrom(addrA, 24)))
	must(t, n.a.AddAddr("eth0", netip.PrefixFrom(moved, 24)))
	must(t, n.a.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), first(moved), ""))
	waitSource(t, n.c, n.a, moved, addrC)
	start(t, n.b, strings.ReplaceAll(serverConfig(), addrA.String(), moved.String()))
	waitSource(t, n.a, n.c, addrC, addrB)
}

// What a killed daemon leaves behind is removed by "sixfourd -clean", and by the next
// daemon.
func TestGatewayAfterACrash(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	wasA, wasB := kernelState(t, n.a), kernelState(t, n.b)
	for _, again := range []bool{false, true} {
		b := start(t, n.b, serverConfig())
		a := start(t, n.a, clientConfig())
		n.checkPaths(t)
		a.end(t, syscall.SIGKILL)
		b.end(t, syscall.SIGKILL)
		eventually(t, "the interface goes", func() error {
			if _, err := n.a.Handle().LinkByName("six0"); err == nil {
				return errors.New("it is there")
			}
			return nil
		})
		n.checkDirect(t) // the remains have no effect
		if again {
			b, a := start(t, n.b, serverConfig()), start(t, n.a, clientConfig())
			n.checkPaths(t)
			a.end(t, syscall.SIGTERM)
			b.end(t, syscall.SIGTERM)
		} else {
			for _, ns := range []*rig.Namespace{n.a, n.b} {
				removeLeftovers(t, ns)
			}
		}
		unchanged(t, n.a, wasA)
		unchanged(t, n.b, wasB)
	}
}

// The next daemon removes what its configuration does not have, but nothing of a running
// daemon; neither does "sixfourd -clean". A second daemon reports why it cannot have the
// default route.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	was := kernelState(t, n.a)
	start(t, n.b, serverConfig())
	a := start(t, n.a, clientConfig())
	n.checkPaths(t)
	removeLeftovers(t, n.a)
	n.checkPaths(t)
	second := launch(t, n.a, strings.NewReplacer("six0", "six1", "10.0.0.", "10.0.1.", "fc00::", "fc01::").Replace(clientConfig()))
	second.wait(t, "only one sixfourd of a network namespace can have default_route for IPv4")
	n.checkPaths(t)
	a.end(t, syscall.SIGKILL)
	second.wait(t, "gateway: works again")
	second.end(t, syscall.SIGTERM)
	unchanged(t, n.a, was)

	a = start(t, n.a, clientConfig())
	a.end(t, syscall.SIGKILL)
	start(t, n.a, fmt.Sprintf(twoEnds, addrB, 1, 2, 1, 1))
	if is := kernelState(t, n.a); strings.Contains(is, "proto 64") {
		t.Errorf("a daemon without a gateway leaves\n%s", is)
	}
}

// Connections to hosts behind the client, such as a container with a published port, are
// answered on the path by which they came.
func TestGatewayFollowsForwarded(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	must(t, n.a.Forward())
	for _, dev := range []string{"all", "eth0"} { // the daemon reports that this needs a module
		must(t, n.a.Sysctl("net/ipv4/conf/"+dev+"/rp_filter", "0"))
	}
	// d is behind a, with its own addresses, to which the router has a route.
	d := newNamespace(t, "d")
	must(t, rig.Veth(n.a, "lan", d, "eth0", 1500))
	behind := map[netip.Addr]netip.Addr{netip.MustParseAddr("198.18.0.2"): addrA, netip.MustParseAddr("2001:db8:d::2"): addrA6}
	for addr, via := range behind {
		must(t, n.a.AddAddr("lan", netip.PrefixFrom(first(addr), bits(addr))))
		must(t, d.AddAddr("eth0", netip.PrefixFrom(addr, bits(addr))))
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if addr.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		must(t, d.AddRoute(all, first(addr), ""))
		must(t, n.r.AddRoute(netip.PrefixFrom(addr, bits(addr)).Masked(), via, ""))
	}
	start(t, n.b, serverConfig())
	start(t, n.a, clientConfig())
	n.checkPaths(t)
	// A packet of c's own connection must not come back through b with b's address.
	for addr := range behind {
		from := addrC
		if addr.Is6() {
			from = addrC6
		}
		waitSource(t, n.c, d, addr, from)
	}
}

// Marks of other programs stay in effect: a tunnel with a mark and a rule for it, and a
// rule of the administrator after ours.
func TestGatewayBesideOtherRules(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.forward6(t)
	// Marked packets have a routing table of their own, as before, and only they have a
	// route to the internet, which the reverse path check does not know.
	for _, dev := range []string{"all", "eth0"} {
		must(t, n.a.Sysctl("net/ipv4/conf/"+dev+"/rp_filter", "0"))
	}
	must(t, n.a.Handle().RuleAdd(&netlink.Rule{Family: unix.AF_INET, Priority: 32000, Mark: 7, Table: 100, Goto: -1, Flow: -1, SuppressPrefixlen: -1, SuppressIfgroup: -1}))
	everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	must(t, n.a.Handle().RouteAdd(&netlink.Route{Table: 100, Dst: everywhere, Gw: first(addrA).AsSlice()}))
	was := kernelState(t, n.a)
	must(t, n.a.DelRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), first(addrA), "")) // only the mark leads there
	start(t, n.b, serverConfig())
	a := start(t, n.a, strings.Replace(clientConfig(), "mode =", "fwmark = 7\nmode =", 1))
	waitSource(t, n.a, n.c, addrC, addrB)
	a.end(t, syscall.SIGTERM)
	must(t, n.a.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), first(addrA), ""))
	unchanged(t, n.a, was)
}

// With a configuration that cannot work the gateway is not ready, with the reason.
func TestGatewayWithoutInterface(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	b := start(t, n.b, strings.Replace(serverConfig(), "eth0", "eth1", 1))
	b.wait(t, "there is no interface eth1")
	_, s := b.status(t)
	if s.State.Phase == api.Waiting {
		t.Errorf("the tunnel waits: %s", s.State.Detail)
	}
}
