package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// internet is the network of the gateway's tests. The router knows nothing but its
// own links, so that c never hears from an address inside the tunnel.
//
//	            a  198.51.100.2, 2001:db8:a::2  (six0 10.0.0.1, fc00::1)
//	            │
//	c ───────── r
//	192.0.2.2   │
//	192.0.2.99  b  203.0.113.2, 2001:db8:b::2   (six0 10.0.0.2, fc00::2)
//	2001:db8:c::2, 2001:db8:c::99
type internet struct {
	a, b, c, r *rig.Namespace
}

var (
	addrA, addrA6     = netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:a::2")
	addrB, addrB6     = netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:b::2")
	addrC, addrC6     = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:c::2")
	bypassC, bypassC6 = netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:c::99")
)

// first is the router's address on the link of another address.
func first(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] = 1
	first, _ := netip.AddrFromSlice(b)
	return first
}

func bits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

func newInternet(t *testing.T) internet {
	t.Helper()
	n := internet{newNamespace(t, "a"), newNamespace(t, "b"), newNamespace(t, "c"), newNamespace(t, "r")}
	must(t, n.r.Forward())
	for _, end := range []struct {
		ns    *rig.Namespace
		dev   string
		addrs []netip.Addr
	}{
		{n.a, "eth0", []netip.Addr{addrA, addrA6}},
		{n.b, "eth0", []netip.Addr{addrB, addrB6}},
		{n.c, "eth0", []netip.Addr{addrC, bypassC, bypassC6, addrC6}}, // of IPv6 the last one is what c sends from
	} {
		router := "r" + end.ns.Name()
		must(t, rig.Veth(end.ns, end.dev, n.r, router, 1500))
		for _, a := range end.addrs {
			must(t, end.ns.AddAddr(end.dev, netip.PrefixFrom(a, bits(a))))
			if a == bypassC || a == bypassC6 {
				continue
			}
			must(t, n.r.AddAddr(router, netip.PrefixFrom(first(a), bits(a))))
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if a.Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			must(t, end.ns.AddRoute(all, first(a), ""))
		}
		// Distributions filter strictly.
		for _, dev := range []string{"all", "default", end.dev} {
			must(t, end.ns.Sysctl("net/ipv4/conf/"+dev+"/rp_filter", "1"))
		}
	}
	return n
}

const (
	twoEnds = `[[tunnel]]
name = "six0"
mode = "4in6in4"
local = "auto"
remote = "%v"
local6 = "fc00::%d"
remote6 = "fc00::%d"
address = ["10.0.0.%d/30", "fc00::%d/64"]
`
	bypass = `[gateway]
default_route = true
bypass = ["192.0.2.99/32", "2001:db8:c::99/128"]
`
	masquerade = "[gateway]\nmasquerade = \"eth0\"\n"
)

func clientConfig() string { return fmt.Sprintf(twoEnds, addrB, 1, 2, 1, 1) + bypass }
func serverConfig() string { return fmt.Sprintf(twoEnds, addrA, 2, 1, 2, 2) + masquerade }

// sourceSeen returns the source address of a TCP connection to an address, as the server sees it.
func sourceSeen(t *testing.T, from, to *rig.Namespace, addr netip.Addr) (netip.Addr, error) {
	t.Helper()
	l, err := to.ListenTCP(netip.AddrPortFrom(addr, 0))
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := from.DialTCP(ctx, netip.MustParseAddrPort(l.Addr().String()))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	must(t, l.SetDeadline(time.Now().Add(2*time.Second)))
	server, err := l.AcceptTCP()
	if err != nil {
		return netip.Addr{}, err
	}
	defer server.Close()
	return netip.MustParseAddrPort(server.RemoteAddr().String()).Addr(), nil
}

// waitSource waits until connections to an address come from another.
func waitSource(t *testing.T, from, to *rig.Namespace, addr, want netip.Addr) {
	t.Helper()
	eventually(t, fmt.Sprintf("connect to %v", addr), func() error {
		got, err := sourceSeen(t, from, to, addr)
		if err == nil && got != want {
			err = fmt.Errorf("it comes from %v, not from %v", got, want)
		}
		return err
	})
}

// checkPaths checks that all connections take the intended path.
func (n internet) checkPaths(t *testing.T) {
	t.Helper()
	waitSource(t, n.a, n.c, addrC, addrB)
	waitSource(t, n.a, n.c, addrC6, addrB6)
	waitSource(t, n.a, n.c, bypassC, addrA)
	waitSource(t, n.a, n.c, bypassC6, addrA6)
	waitSource(t, n.c, n.a, addrA, addrC)
	waitSource(t, n.c, n.a, addrA6, addrC6)
}

// checkDirect checks that all connections take the same path as without a gateway.
func (n internet) checkDirect(t *testing.T) {
	t.Helper()
	waitSource(t, n.a, n.c, addrC, addrA)
	waitSource(t, n.a, n.c, addrC6, addrA6)
}

// kernelState returns the configuration of a namespace's kernel, for comparison.
func kernelState(t *testing.T, ns *rig.Namespace) string {
	t.Helper()
	var b strings.Builder
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := ns.Handle().RuleList(family)
		must(t, err)
		for _, r := range rules {
			fmt.Fprintf(&b, "%v proto %d\n", r, r.Protocol)
		}
		routes, err := ns.Handle().RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		must(t, err)
		for _, r := range routes {
			if r.Protocol != unix.RTPROT_KERNEL { // which appear by themselves, and late
				fmt.Fprintf(&b, "%v\n", r)
			}
		}
	}
	must(t, ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			fmt.Fprintf(&b, "table %s\n", table.Name)
		}
		for _, file := range []string{"ipv4/ip_forward", "ipv4/conf/eth0/forwarding", "ipv4/conf/default/forwarding", "ipv6/conf/all/forwarding"} {
			v, err := os.ReadFile("/proc/sys/net/" + file)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %s", file, v)
		}
		return nil
	}))
	return b.String()
}

// unchanged waits until a namespace is as before.
func unchanged(t *testing.T, ns *rig.Namespace, was string) {
	t.Helper()
	eventually(t, "all is as it was in "+ns.Name(), func() error {
		if is := kernelState(t, ns); is != was {
			return fmt.Errorf("it is\n%s\nand was\n%s", is, was)
		}
		return nil
	})
}

// The server's administrator turns IPv6 forwarding on; the daemon turns IPv4 forwarding on.
func (n internet) forward6(t *testing.T) {
	t.Helper()
	must(t, n.b.Sysctl("net/ipv6/conf/all/forwarding", "1"))
}

// removeLeftovers runs "sixfourd -clean".
func removeLeftovers(t *testing.T, ns *rig.Namespace) {
	t.Helper()
	cmd := exec.Command(program, "-clean")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil || out.Len() > 0 {
		t.Errorf("-clean: %v\n%s", err, out.String())
	}
}
