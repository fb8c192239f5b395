package gateway

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

const mark = 1 << 25

var must = rigtest.Must

// namespace returns a new namespace with an uplink, eth0, and a device in the place of
// the tunnel, six0. The calling goroutine, the test's, enters it.
func namespace(t *testing.T) (ns *rig.Namespace, tunnel int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root: run the tests as root")
	}
	ns, err := rig.New("gateway")
	must(t, err)
	t.Cleanup(ns.Close)
	must(t, rig.Veth(ns, "eth0", ns, "far0", 1500))
	must(t, rig.Veth(ns, "six0", ns, "far1", 1500))
	must(t, ns.AddAddr("eth0", netip.MustParsePrefix("192.0.2.2/24")))
	must(t, ns.AddAddr("six0", netip.MustParsePrefix("10.0.0.1/30")))
	must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.1"), ""))
	fd, err := unix.Open(ns.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	must(t, unix.Setns(fd, unix.CLONE_NEWNET))
	link, err := ns.Handle().LinkByName("six0")
	must(t, err)
	return ns, link.Attrs().Index
}

func open(t *testing.T) *Gateway {
	t.Helper()
	g, err := Open()
	must(t, err)
	return g
}

// sync calls Sync, expects no error, and returns the result.
func sync(t *testing.T, g *Gateway, w Wanted) Done {
	t.Helper()
	done, err := g.Sync(w)
	must(t, err)
	return done
}

// shown returns the rules and the routes of a namespace's IPv4 as text.
func shown(t *testing.T, ns *rig.Namespace) string {
	t.Helper()
	rules, err := ns.Handle().RuleList(unix.AF_INET)
	must(t, err)
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "rule %d protocol %d mark %d from %v table %d goto %d\n", r.Priority, r.Protocol, r.Mark, r.Src, r.Table, r.Goto)
	}
	routes, err := ns.Handle().RouteListFiltered(unix.AF_INET, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		fmt.Fprintf(&b, "route %v\n", r)
	}
	return b.String()
}

func TestRulesFollowAddresses(t *testing.T) {
	ns, tunnel := namespace(t)
	must(t, ns.AddAddr("eth0", netip.MustParsePrefix("10.0.0.1/32"))) // the same address as the tunnel's
	was := shown(t, ns)
	g := open(t)
	w := Wanted{Default: &Default{Interface: "six0", Index: tunnel, IPv4: true, Mark: mark}}
	from := func(want ...string) {
		t.Helper()
		rules, err := ownRules(g.handle, 4, isDefaultRouteRule)
		must(t, err)
		var got []string
		for _, r := range rules {
			if r.from.IsValid() {
				got = append(got, r.from.String())
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the old way goes what is from %v, want %v", got, want)
		}
	}
	sync(t, g, w)
	from("192.0.2.2/32")
	must(t, ns.AddAddr("eth0", netip.MustParsePrefix("198.51.100.7/24")))
	sync(t, g, w)
	from("192.0.2.2/32", "198.51.100.7/32")
	must(t, ns.DelAddr("eth0", netip.MustParsePrefix("198.51.100.7/24")))
	if done := sync(t, g, w); len(done.Restored)+len(done.Advice) > 0 {
		t.Errorf("what changes with the host is told as %+v", done)
	}
	from("192.0.2.2/32")
	must(t, g.Close())
	if is := shown(t, ns); is != was {
		t.Errorf("it is\n%s\nand was\n%s", is, was)
	}
}

// TestForeignRules: rules and routes of other programs in the places of ours are not
// removed.
func TestForeignRules(t *testing.T) {
	ns, tunnel := namespace(t)
	h := ns.Handle()
	must(t, h.RouteAdd(&netlink.Route{Table: firstTable, Dst: ipNet(netip.MustParsePrefix("198.18.0.0/15")), LinkIndex: tunnel}))
	other := netlink.NewRule()
	other.Family, other.Priority, other.Table, other.Src = unix.AF_INET, priorityBypass, 100, ipNet(netip.MustParsePrefix("192.0.2.2/32"))
	must(t, h.RuleAdd(other))
	was := shown(t, ns)
	g := open(t)
	w := Wanted{Default: &Default{Interface: "six0", Index: tunnel, IPv4: true, Mark: mark}}
	sync(t, g, w)
	routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: firstTable + 1}, netlink.RT_FILTER_TABLE)
	must(t, err)
	if len(routes) != 1 || routes[0].LinkIndex != tunnel {
		t.Errorf("the next table has %v", routes)
	}
	must(t, Clean()) // removes neither those of the gateway nor those of others
	if done := sync(t, g, w); len(done.Restored) > 0 {
		t.Errorf("mended: %v", done.Restored)
	}
	must(t, g.Close())
	must(t, Clean())
	if is := shown(t, ns); is != was {
		t.Errorf("it is\n%s\nand was\n%s", is, was)
	}
}

// TestReplyRules: connections are followed only while the host forwards. Advice about
// strict reverse path filtering is given only then.
func TestReplyRules(t *testing.T) {
	ns, tunnel := namespace(t)
	g := open(t)
	defer g.Close()
	w := Wanted{Default: &Default{Interface: "six0", Index: tunnel, IPv4: true, Mark: mark}}
	chains := func() (names []string) {
		c, err := nftables.New()
		must(t, err)
		list, err := c.ListChains()
		must(t, err)
		for _, chain := range list {
			rules, err := c.GetRules(chain.Table, chain)
			must(t, err)
			names = append(names, fmt.Sprintf("%s %d", chain.Name, len(rules)))
		}
		return names
	}
	sync(t, g, w)
	if got := chains(); len(got) > 0 {
		t.Errorf("a host that does not forward has %v", got)
	}
	must(t, ns.Sysctl("net/ipv4/ip_forward", "1"))
	if done := sync(t, g, w); len(done.Advice) > 0 {
		t.Errorf("advice: %v", done.Advice)
	}
	if got := chains(); !slices.Equal(got, []string{"follow 3"}) {
		t.Errorf("a host that forwards has %v", got)
	}
	must(t, ns.Sysctl("net/ipv4/conf/eth0/rp_filter", "1"))
	if done := sync(t, g, w); len(done.Advice) != 1 || !strings.Contains(done.Advice[0], "net.ipv4.conf.eth0.rp_filter=2") {
		t.Errorf("advice: %v", done.Advice)
	}
	w.Default.Interface = "six1"
	sync(t, g, w)
	if got := chains(); !slices.Equal(got, []string{"follow 3"}) {
		t.Errorf("for another tunnel there are %v", got)
	}
	must(t, ns.Sysctl("net/ipv4/ip_forward", "0"))
	sync(t, g, w)
	if got := chains(); len(got) > 0 {
		t.Errorf("a host that does not forward any more has %v", got)
	}
}

// TestOtherTunnelAndUplink: the default route moves to another tunnel, and masquerading to another
// uplink, without a restart.
func TestOtherTunnelAndUplink(t *testing.T) {
	ns, tunnel := namespace(t)
	was := shown(t, ns)
	g := open(t)
	uplink, err := ns.Handle().LinkByName("eth0")
	must(t, err)
	leads := func(want int) {
		t.Helper()
		routes, err := ns.Handle().RouteListFiltered(unix.AF_INET, &netlink.Route{Table: firstTable}, netlink.RT_FILTER_TABLE)
		must(t, err)
		if len(routes) != 1 || routes[0].LinkIndex != want {
			t.Errorf("the table has %v, want a route through %d", routes, want)
		}
	}
	sync(t, g, Wanted{Default: &Default{Interface: "six0", Index: tunnel, IPv4: true, Mark: mark, Bypass: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Marks: []uint32{7}}})
	leads(tunnel)
	sync(t, g, Wanted{Default: &Default{Interface: "eth0", Index: uplink.Attrs().Index, IPv4: true, Mark: mark}})
	leads(uplink.Attrs().Index)

	forwards := func(name string, want bool) {
		t.Helper()
		b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/forwarding")
		must(t, err)
		if got := string(b) == "1\n"; got != want {
			t.Errorf("%s forwards: %v", name, got)
		}
	}
	tunnels := []Tunnel{{Interface: "six0", IPv4: true}}
	sync(t, g, Wanted{Masquerade: []string{"eth0"}, Tunnels: tunnels})
	forwards("eth0", true)
	forwards("six0", true)
	forwards("far0", false)
	sync(t, g, Wanted{Masquerade: []string{"far0"}, Tunnels: tunnels})
	forwards("eth0", false)
	forwards("six0", true)
	forwards("far0", true)
	// Another program turns forwarding off, and removes our rules.
	must(t, ns.Sysctl("net/ipv4/conf/far0/forwarding", "0"))
	marks, err := ownRules(g.handle, 4, isForwardingRule)
	must(t, err)
	must(t, setRules(g.handle, 4, marks, nil))
	if done := sync(t, g, Wanted{Masquerade: []string{"far0"}, Tunnels: tunnels}); !slices.Contains(done.Restored, "forwarding") || !slices.Contains(done.Restored, "rule") {
		t.Errorf("mended: %v", done.Restored)
	}
	forwards("far0", true)
	if done := sync(t, g, Wanted{Masquerade: []string{"far0"}, Tunnels: tunnels}); len(done.Restored) > 0 {
		t.Errorf("mended: %v", done.Restored)
	}
	must(t, g.Close())
	forwards("far0", false)
	forwards("six0", false)
	if is := shown(t, ns); is != was {
		t.Errorf("it is\n%s\nand was\n%s", is, was)
	}
}
