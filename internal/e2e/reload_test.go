package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// reload writes another file for the daemon, reloads, and returns the result.
func (d *daemon) reload(t *testing.T, config string) api.Reloads {
	t.Helper()
	before, _ := d.status(t)
	d.write(t, config)
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	var now api.Reloads
	eventually(t, "a reload", func() error {
		s, _ := d.status(t)
		if now = s.Reloads; now.Succeeded+now.Failed == before.Reloads.Succeeded+before.Reloads.Failed {
			return errors.New("not yet")
		}
		return nil
	})
	return now
}

// mustReload requires that the reload succeeds.
func (d *daemon) mustReload(t *testing.T, config string) {
	t.Helper()
	if r := d.reload(t, config); r.Error != "" {
		t.Fatalf("reload: %s", r.Error)
	}
}

// interfacesOf returns all TUN interfaces of a namespace, and its addresses and routes, except
// those that the kernel makes by itself.
func interfacesOf(t *testing.T, ns *rig.Namespace) (all []string) {
	t.Helper()
	h := ns.Handle()
	links, err := h.LinkList()
	must(t, err)
	for _, l := range links {
		a := l.Attrs()
		all = append(all, fmt.Sprintf("link %d %s %s mtu %d up %v", a.Index, a.Name, l.Type(), a.MTU, a.Flags&1))
		addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
		must(t, err)
		for _, addr := range addrs {
			all = append(all, fmt.Sprintf("address %s on %s", addr.IPNet, a.Name))
		}
	}
	routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: 3}, netlink.RT_FILTER_PROTOCOL) // RTPROT_BOOT
	must(t, err)
	for _, r := range routes {
		all = append(all, fmt.Sprintf("route %s through %d", r.Dst, r.LinkIndex))
	}
	slices.Sort(all)
	return all
}

// other is a second tunnel between the two hosts.
func other(name string, self, other int, lines ...string) string {
	return fmt.Sprintf("[[tunnel]]\nname = %q\nmode = \"gre\"\nlocal = \"203.0.113.%d0\"\nremote = \"203.0.113.%d0\"\n%s\n", name, self, other, strings.Join(lines, "\n"))
}

// A reload makes its changes in place where that is possible, and leaves everything else
// unchanged.
func TestReload(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB(`routes = ["10.1.0.1/32"]`)+other("gre0", 2, 1, `address = ["10.5.0.2/24"]`))
	a := start(t, h.a, configA(`routes = ["192.168.2.0/24", "192.168.3.0/24"]`))
	pings(t, h.a, inB, rig.PingOptions{})
	index := func(name string) int {
		t.Helper()
		l, err := h.a.Handle().LinkByName(name)
		must(t, err)
		return l.Attrs().Index
	}
	has := func(what string, want bool) {
		t.Helper()
		found := slices.ContainsFunc(interfacesOf(t, h.a), func(f string) bool { return strings.HasPrefix(f, what) })
		if found != want {
			t.Errorf("%q: %v, want %v, among %q", what, found, want, interfacesOf(t, h.a))
		}
	}
	six0 := index("six0")
	carried := func() uint64 {
		t.Helper()
		s, _ := a.status(t)
		i := slices.IndexFunc(s.Tunnels, func(t api.TunnelStatus) bool { return t.Name == "six0" })
		return s.Tunnels[i].Out.Packets
	}
	least := carried()
	inPlace := func() {
		t.Helper()
		pings(t, h.a, inB, rig.PingOptions{})
		pings(t, h.a, in6B, rig.PingOptions{})
		if index("six0") != six0 {
			t.Error("the interface is another one")
		}
		if now := carried(); now <= least {
			t.Errorf("%d packets, and before %d", now, least)
		} else {
			least = now
		}
	}

	// One more tunnel, to which a route moves.
	second := other("gre0", 1, 2, `address = ["10.5.0.1/24"]`, `routes = ["192.168.3.0/24"]`)
	a.mustReload(t, second+configA(`routes = ["192.168.2.0/24"]`))
	a.wait(t, "1 added, 0 removed, 1 changed in place, 0 replaced, 0 unchanged")
	inPlace()
	reachable(t, h.a, netip.MustParseAddr("10.5.0.2"))
	has(fmt.Sprintf("route 192.168.3.0/24 through %d", index("gre0")), true)
	has(fmt.Sprintf("route 192.168.2.0/24 through %d", six0), true)

	// Values.
	a.mustReload(t, second+configA(`ttl = 9`, `mtu = 1320`, `fwmark = 7`, `dscp = 3`, `address = ["10.0.0.1/24", "10.9.9.9/32", "fc00::1/48"]`, `routes = ["192.168.2.0/24", "10.9.0.0/16"]`))
	inPlace()
	has(fmt.Sprintf("link %d six0 tuntap mtu 1320", six0), true)
	has("address 10.0.0.1/24 ", true)
	has("address 10.0.0.1/30 ", false)
	has("address 10.9.9.9/32 ", true)
	has("address fc00::1/48 ", true)
	has(fmt.Sprintf("route 10.9.0.0/16 through %d", six0), true)

	// The other end's address changes, and changes back.
	a.mustReload(t, second+strings.Replace(configA(), "203.0.113.20", "203.0.113.21", 1))
	if _, s := a.status(t); s.Name != "gre0" {
		t.Errorf("the file's order is not that of the status: %+v", s)
	}
	if res, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{}); err == nil && res.Received > 0 {
		t.Error("the former peer still answers")
	}
	a.mustReload(t, second+configA())
	inPlace()

	// Our own address changes to one that no interface has, and back.
	a.mustReload(t, second+strings.Replace(configA(), "203.0.113.10", "203.0.113.11", 1))
	if res, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{}); err == nil && res.Received > 0 {
		t.Error("the peer answers to an address that this host does not have")
	}
	a.mustReload(t, second+configA())
	inPlace()
	has("address 10.9.9.9/32 ", false)
	has("route 192.168.2.0/24 ", false)

	// The interface's own address may change, too.
	a.mustReload(t, configA(`address = ["fc00::1/64"]`)+other("gre0", 1, 2, `address = ["10.5.0.1/24", "10.0.0.1/30"]`))
	has("address 10.0.0.1/30 on gre0", true)
	has("address 10.0.0.1/30 on six0", false)

	// What cannot be changed in place is replaced, and what was removed does not exist any
	// more.
	a.mustReload(t, configA(`queues = 2`))
	a.wait(t, "0 added, 1 removed, 0 changed in place, 1 replaced, 0 unchanged")
	if got := leftovers(t, h.a); len(got) != 1 {
		t.Errorf("there is %v", got)
	}
	reachable(t, h.a, inB)
	if s, _ := a.status(t); len(s.Tunnels) != 1 || s.Reloads.Succeeded != 8 || s.Reloads.Failed != 0 {
		t.Errorf("%+v", s)
	}
	if code := a.end(t, syscall.SIGTERM); code != 0 || len(leftovers(t, h.a)) > 0 {
		t.Errorf("exit status %d, left: %v", code, leftovers(t, h.a))
	}
}

// An invalid file changes nothing, and each of its problems is reported, with its position.
func TestReloadOfAnInvalidFile(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	a := start(t, h.a, configA(`routes = ["192.168.2.0/24"]`))
	reachable(t, h.a, inB)
	before := interfacesOf(t, h.a)
	for _, c := range []struct {
		config string
		said   []string
	}{
		{configA(`mtu = 60`, `rotes = []`, `ttl = 0`), []string{":11:7: mtu is 60", ":12:1: unknown key", ":13:7: ttl is 0"}},
		{configA(`netns = "no-such-namespace"`), []string{":11:9: netns: the daemon has given up the right to enter another namespace: restart it"}},
		{strings.Replace(configA(), "six0", "va", 1), []string{":4:8: an interface va exists"}},
		{"", []string{"there is no tunnel"}},
		{"[[tunnel", []string{"not valid TOML"}},
	} {
		r := a.reload(t, c.config)
		for _, said := range c.said {
			a.wait(t, said) // the log is written later
			if !strings.Contains(r.Error, a.config+said) && !strings.Contains(r.Error, said) || strings.Count(a.log.String(), said) != 1 {
				t.Errorf("%q: %+v, want %q, once in the log", c.config, r, said)
			}
		}
		if now := interfacesOf(t, h.a); !slices.Equal(now, before) {
			t.Errorf("%q: there is %q, and was %q", c.config, now, before)
		}
	}
	pings(t, h.a, inB, rig.PingOptions{})
	a.mustReload(t, configA(`routes = ["192.168.3.0/24"]`))
}

// If any step of applying a new configuration fails, everything is restored.
func TestReloadIsRolledBack(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	foreign := netip.MustParsePrefix("192.168.9.0/24")
	must(t, h.a.AddRoute(foreign, outerB, "va"))
	start(t, h.b, configB()+other("gre0", 2, 1, `address = ["10.5.0.2/24"]`))
	first := configA(`routes = ["192.168.2.0/24"]`) + other("gre0", 1, 2, `address = ["10.5.0.1/24"]`, `routes = ["192.168.5.0/24"]`)
	a := start(t, h.a, first)
	inC := netip.MustParseAddr("10.5.0.2")
	reachable(t, h.a, inB)
	reachable(t, h.a, inC)
	before := interfacesOf(t, h.a)
	kept := func(f string) bool { return !strings.Contains(f, "gre0") }
	added := other("new0", 1, 3, `address = ["10.6.0.1/24"]`)
	for _, c := range []struct {
		name, config, said string
		remade             bool // an interface was removed in between, and made again
	}{
		{"a tunnel that is added has a route of another", configA(`routes = ["192.168.7.0/24"]`) + other("new0", 1, 3, `routes = ["192.168.9.0/24"]`),
			"tunnel new0: add route 192.168.9.0/24", false},
		{"one that is changed has it", added + configA(`ttl = 7`, `routes = ["192.168.5.0/24", "192.168.9.0/24"]`), "tunnel six0: add route 192.168.9.0/24", false},
		{"one that is replaced has it", added + configA(`address = ["10.7.0.1/24"]`) + other("gre0", 1, 2, `queues = 2`, `routes = ["192.168.9.0/24"]`),
			"tunnel gre0: add route 192.168.9.0/24", true},
	} {
		r := a.reload(t, c.config)
		if !strings.Contains(r.Error, c.said) || strings.Contains(r.Error, "could not be restored") {
			t.Errorf("%s: %+v, want %q", c.name, r, c.said)
		}
		now, want := interfacesOf(t, h.a), before
		if c.remade {
			now, want = slices.DeleteFunc(now, func(f string) bool { return !kept(f) }), slices.DeleteFunc(slices.Clone(want), func(f string) bool { return !kept(f) })
			want = slices.DeleteFunc(want, func(f string) bool { return strings.HasPrefix(f, "route 192.168.5.0/24") })
			now = slices.DeleteFunc(now, func(f string) bool { return strings.HasPrefix(f, "route 192.168.5.0/24") })
		}
		if !slices.Equal(now, want) {
			t.Errorf("%s: there is %q, and was %q", c.name, now, want)
		}
		pings(t, h.a, inB, rig.PingOptions{})
		pings(t, h.a, inC, rig.PingOptions{})
		if s, _ := a.status(t); len(s.Tunnels) != 2 || s.Tunnels[0].Name != "six0" || s.Tunnels[1].Name != "gre0" {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
	must(t, h.a.DelRoute(foreign, outerB, "va"))
	a.mustReload(t, other("new0", 1, 3, `routes = ["192.168.9.0/24"]`)+configA())
	pings(t, h.a, inB, rig.PingOptions{})
}

// hubOf returns a hub with n peers that need not exist, whose networks depend on a shift.
func hubOf(n, shift int, lines string) string {
	var b strings.Builder
	b.WriteString("[[tunnel]]\nname = \"hub0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\naddress = [\"10.100.0.1/32\"]\nroutes = []\nkeepalive = \"0s\"\n" + lines + "\n")
	for i := range n {
		j := i + shift
		fmt.Fprintf(&b, "[[tunnel.peer]]\nname = \"p%d\"\nremote = \"10.77.%d.%d\"\nallowed = [\"10.%d.%d.%d/32\"]\n", i, i>>8, i&255, 101+j>>16, j>>8&255, j&255)
	}
	return b.String()
}

// Any number of a hub's peers are added, changed and removed in place, and unchanged peers
// keep their state.
func TestReloadManyPeers(t *testing.T) {
	peers := 10_000
	if rig.Race {
		peers = 1000
	}
	h := newHosts(t, 1500)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), outerB, "va"))
	a := start(t, h.a, hubOf(1, 0, ""))
	status := func() api.TunnelStatus {
		t.Helper()
		_, s := a.status(t)
		return s
	}
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.101.0.0/16"), netip.Addr{}, "hub0"))
	send := func() {
		t.Helper()
		_, err := rig.Ping(t.Context(), h.a, netip.MustParseAddr("10.101.0.0"), rig.PingOptions{Count: 3})
		must(t, err)
	}
	send()
	sent := status().Peers[0].Out.Packets
	since := status().Peers[0].State.Since
	for _, c := range []struct {
		name, config string
		peers        int
	}{
		{"added", hubOf(peers, 0, ""), peers},
		{"changed", hubOf(peers, 1, ""), peers},
		{"all paths made anew", hubOf(peers, 1, "ttl = 9"), peers},
		{"changed back", hubOf(peers, 0, ""), peers},
		{"removed", hubOf(1, 0, ""), 1},
	} {
		begun := time.Now()
		a.mustReload(t, c.config)
		t.Logf("%d peers %s: %v", peers, c.name, time.Since(begun).Round(time.Millisecond))
		s := status()
		if len(s.Peers) != c.peers || s.Peers[0].Peer != "p0" || s.Peers[0].Out.Packets < sent || !s.Peers[0].State.Since.Equal(since) {
			t.Errorf("%s: %d peers, the first one is %+v, before %d packets since %v", c.name, len(s.Peers), s.Peers[0], sent, since)
		}
	}
	send()
	if s := status(); s.Peers[0].Out.Packets <= sent {
		t.Errorf("the peer that stayed carries nothing: %+v", s.Peers[0])
	}
	_, plan, _ := strings.Cut(a.log.String(), "reloaded")
	if strings.Contains(plan, "1 replaced") {
		t.Error("the interface was replaced")
	}
}
