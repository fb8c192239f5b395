//go:build interop

package interop

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/pathmtu"
	"sixfour/internal/rig"
)

const (
	behind    = "198.51.100.2" // where the daemon is, behind the routers
	behind6   = "fd00:198::2"
	narrow    = 1400 // the MTU between them,
	least     = 1280 // or IPv6's least
	wide      = 1500 // on either side
	muchBytes = 50_000_000
	someBytes = 5_000_000

	// The network behind the daemon, and the host in it.
	lan4, host4 = "10.9.0.1/24", "10.9.0.2/24"
	lan6, host6 = "2001:db8:9::1/64", "2001:db8:9::2/64"
)

// network is the daemon's network, and a host of the network behind it.
type network struct{ daemon, host *rig.Namespace }

// routers puts a narrow link between the daemon and the machine, at whose ends
// only routers see that it is narrow:
//
//	host        daemon                   near             lab.ns                machine
//	eth0 ────── lan
//	            six0 ── sixfourd
//	              198.51.100.2 eth0 ──── eth0
//	                         192.0.2.1 eth1 ─ MTU 1400 ─ narrow 192.0.2.2
//	                                                       tap0 203.0.113.2 ─── eth0 203.0.113.1
//
// The outer addresses of IPv6 are fd00:198::, fd00:192:: and fd00:: in the same places.
// What is too big for the link gets an ICMP error, or, if they are mute, nothing.
func routers(t *testing.T, mtu int, mute bool) network {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	namespace := func(name string) *rig.Namespace {
		n, err := rig.New(name)
		must(err)
		t.Cleanup(n.Close)
		return n
	}
	host, daemons, near, far := namespace("host"), namespace("daemon"), namespace("near"), lab.ns
	must(rig.Veth(host, "eth0", daemons, "lan", wide))
	must(rig.Veth(daemons, "eth0", near, "eth0", wide))
	must(rig.Veth(near, "eth1", far, "narrow", mtu))
	t.Cleanup(func() { must(far.DelLink("narrow")) })
	for _, a := range []struct {
		n         *rig.Namespace
		dev, addr string
	}{
		{host, "eth0", host4}, {daemons, "lan", lan4}, {host, "eth0", host6}, {daemons, "lan", lan6},
		{daemons, "eth0", behind + "/24"}, {near, "eth0", "198.51.100.1/24"},
		{near, "eth1", "192.0.2.1/24"}, {far, "narrow", "192.0.2.2/24"},
		{daemons, "eth0", behind6 + "/64"}, {near, "eth0", "fd00:198::1/64"},
		{near, "eth1", "fd00:192::1/64"}, {far, "narrow", "fd00:192::2/64"},
	} {
		must(a.n.AddAddr(a.dev, netip.MustParsePrefix(a.addr)))
	}
	for _, r := range []struct {
		n        *rig.Namespace
		dst, via string
	}{
		{host, "10.0.0.0/8", addr(lan4)}, {host, "2001:db8::/32", addr(lan6)},
		{daemons, "203.0.113.0/24", "198.51.100.1"}, {near, "203.0.113.0/24", "192.0.2.2"},
		{far, "198.51.100.0/24", "192.0.2.1"},
		{daemons, "fd00::/64", "fd00:198::1"}, {near, "fd00::/64", "fd00:192::2"}, {far, "fd00:198::/64", "fd00:192::1"},
	} {
		must(r.n.AddRoute(netip.MustParsePrefix(r.dst), netip.MustParseAddr(r.via), ""))
	}
	must(daemons.Forward())
	for _, n := range []*rig.Namespace{near, far} {
		must(n.Forward())
		if mute {
			must(n.DropUnreachable())
		}
	}
	t.Cleanup(func() {
		must(far.Sysctl("net/ipv4/ip_forward", "0"))
		must(far.Sysctl("net/ipv6/conf/all/forwarding", "0"))
	})
	if mute {
		t.Cleanup(func() { must(far.PassUnreachable()) })
	}
	run(t, "ip route replace 198.51.100.0/24 via "+ours+"; ip route replace fd00:198::/64 via "+ours6)
	t.Cleanup(func() {
		run(t, "ip route del 198.51.100.0/24; ip route del fd00:198::/64; ip route flush cache; ip -6 route flush cache")
	})
	return network{daemons, host}
}

// addr returns the address of a prefix in text form.
func addr(prefix string) string { return netip.MustParsePrefix(prefix).Addr().String() }

// A path that is narrower than the links at its ends, with and without ICMP errors from
// routers: TCP gets through, in both directions.
func TestNarrowPath(t *testing.T) {
	const outer4 = `
			local = "` + behind + `"
			remote = "` + theirs + `"`
	const outer6 = `
			local = "` + behind6 + `"
			remote = "` + theirs6 + `"`
	for _, mode := range []struct {
		name, devices, section string
		to, back, behind       string // of the kernel, of the daemon, and of the host behind the daemon
		bytes                  int64
		mtu                    int // between the routers
	}{
		{"4in6in4", fmt.Sprintf(sit, behind, "fc00::1/64") + fmt.Sprintf(double, "4") + `
			ip route add 10.9.0.0/24 dev ipip6`, `
			mode = "4in6in4"` + outer4 + `
			local6 = "fc00::2"
			remote6 = "fc00::1"
			address = ["10.0.0.2/30", "fc00::2/64"]`, "10.0.0.1", "10.0.0.2", addr(host4), muchBytes, narrow},
		{"6in4", fmt.Sprintf(sit, behind, "2001:db8:6::1/64") + `
			ip route add 2001:db8:9::/64 dev sit6to4`, `
			mode = "6in4"` + outer4 + `
			address = ["2001:db8:6::2/64"]`, "2001:db8:6::1", "2001:db8:6::2", addr(host6), muchBytes, narrow},
		{"gre", `
			ip link add far type gre local ` + theirs + ` remote ` + behind + ` ttl 64` + inside4 + `
			ip route add 10.9.0.0/24 dev far`, `
			mode = "gre"` + outer4 + own4, "10.0.0.1", "10.0.0.2", addr(host4), someBytes, narrow},
		{"4in6", `
			ip link add far type ip6tnl mode ipip6 local ` + theirs6 + ` remote ` + behind6 + ` hoplimit 64` + inside4 + `
			ip route add 10.9.0.0/24 dev far`, `
			mode = "4in6"` + outer6 + own4, "10.0.0.1", "10.0.0.2", addr(host4), someBytes, narrow},
		{"gre6", `
			ip link add far type ip6gre local ` + theirs6 + ` remote ` + behind6 + ` hoplimit 64` + inside6 + `
			ip route add 2001:db8:9::/64 dev far`, `
			mode = "gre6"` + outer6 + own6, "2001:db8:6::1", "2001:db8:6::2", addr(host6), someBytes, narrow},
		{"gre, IPv6 over 1280", `
			ip link add far type gre local ` + theirs + ` remote ` + behind + ` ttl 64` + inside6 + `
			ip route add 2001:db8:9::/64 dev far`, `
			mode = "gre"` + outer4 + own6, "2001:db8:6::1", "2001:db8:6::2", addr(host6), someBytes, least},
		{"6in6 over 1280", `
			ip link add far type ip6tnl mode ip6ip6 local ` + theirs6 + ` remote ` + behind6 + ` hoplimit 64` + inside6 + `
			ip route add 2001:db8:9::/64 dev far`, `
			mode = "6in6"` + outer6 + own6, "2001:db8:6::1", "2001:db8:6::2", addr(host6), someBytes, least},
	} {
		for _, routing := range []struct {
			name string
			mute bool
		}{{"routers report", false}, {"routers are mute", true}} {
			t.Run(mode.name+", "+routing.name, func(t *testing.T) {
				net := routers(t, mode.mtu, routing.mute)
				kernel(t, mode.devices)
				socket := daemon(t, net.daemon, mode.section)
				transferLarge(t, daemonEnd{net.daemon}, mode.to, mode.bytes)
				s := waitPathMTU(t, socket, mode.mtu)
				report(t, "path MTU %d, by %s, tunnel MTU %d", s.PathMTU, s.PathMTUBy, s.TunnelMTU)
				if routing.mute && s.PathMTUBy != string(pathmtu.Probe) {
					t.Errorf("the path MTU is known by %s, and nothing but a probe can tell", s.PathMTUBy)
				}
				// If routers send no errors, the kernel, which has no path MTU probes,
				// sends packets that fit because of the segment size that it gets: for the
				// daemon from the interface's MTU, for a host behind it from the daemon,
				// which reduces it.
				transferLarge(t, kernelEnd{net.daemon}, mode.back, mode.bytes)
				transferLarge(t, kernelEnd{net.host}, mode.behind, mode.bytes)
			})
		}
	}
}

// transferLarge transfers many bytes by TCP.
func transferLarge(t *testing.T, from end, to string, bytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tr, err := from.tcp(ctx, netip.MustParseAddr(to), bytes)
	if err != nil {
		t.Fatalf("TCP from %s to %s: %v", from.name(), to, err)
	}
	report(t, "TCP  from %s to %s: %d bytes, SHA-256 the same at both ends, in %v", from.name(), to, tr.Bytes, tr.Elapsed.Round(10*time.Millisecond))
}

// waitPathMTU waits until the daemon has the narrow link's MTU.
func waitPathMTU(t *testing.T, socket string, mtu int) api.State {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s, err := client.Status(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		state := s.Tunnels[0].State
		if state.PathMTU == mtu {
			return state
		}
		if time.Now().After(deadline) {
			t.Fatalf("path MTU is %d, want %d", state.PathMTU, mtu)
		}
	}
}
