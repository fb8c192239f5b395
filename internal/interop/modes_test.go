//go:build interop

package interop

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// counterpart is a mode of ours, and the kernel's device for it.
type counterpart struct {
	name    string
	devices string // commands in the machine
	section string // lines of the configuration, without the outer addresses
	outside
	limits who  // adds an encapsulation limit
	cut    bool // packets that are too big for the path are sent in outer fragments
	ways   []way
}

// who names the side for which something holds.
type who struct{ ours, theirs bool }

// Parameters of the kernel's devices, and the addresses of the daemon's ends.
const (
	over4, ends4 = ` local ` + theirs + ` remote ` + ours + ` ttl 64 `, `
		local = "` + ours + `"
		remote = "` + theirs + `"`
	theirs2      = "203.0.113.11" // of a second device
	over6, ends6 = ` local ` + theirs6 + ` remote ` + ours6 + ` hoplimit 64 `, `
		local = "` + ours6 + `"
		remote = "` + theirs6 + `"`
)

// Inner addresses, of the device and in the configuration.
const (
	inside4 = `
		ip addr add 10.0.0.1/30 dev far; ip link set far up`
	inside6 = `
		ip addr add 2001:db8:6::1/64 dev far nodad; ip link set far up`
	insideBoth = inside4 + inside6
	own4       = `
		address = ["10.0.0.2/30"]`
	own6 = `
		address = ["2001:db8:6::2/64"]`
	ownBoth = `
		address = ["10.0.0.2/30", "2001:db8:6::2/64"]`
)

var (
	gre4 = outside{4, unix.IPPROTO_GRE, true}
	gre6 = outside{6, unix.IPPROTO_GRE, true}

	ipv4 = way{"IPv4", "10.0.0.2", "10.0.0.1", "far"}
	ipv6 = way{"IPv6", "2001:db8:6::2", "2001:db8:6::1", "far"}
)

var counterparts = []counterpart{
	{
		name:    "4in4, ipip",
		devices: `ip link add far type ipip` + over4 + inside4,
		section: `mode = "4in4"` + ends4 + own4,
		outside: outside{4, unix.IPPROTO_IPIP, true},
		ways:    []way{ipv4},
	}, {
		name:    "gre",
		devices: `ip link add far type gre` + over4 + insideBoth,
		section: `mode = "gre"` + ends4 + ownBoth,
		outside: gre4,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre, key",
		devices: `ip link add far type gre` + over4 + `key 42` + insideBoth,
		section: `mode = "gre"
			key = 42` + ends4 + ownBoth,
		outside: gre4,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre, key, checksum and sequence",
		devices: `ip link add far type gre` + over4 + `key 10.20.30.40 csum seq` + insideBoth,
		section: `mode = "gre"
			key = "10.20.30.40"
			checksum = true
			sequence = true` + ends4 + ownBoth,
		outside: gre4,
		ways:    []way{ipv4, ipv6},
	}, {
		name: "gre, one tunnel with two peers",
		devices: `ip link add far type gre` + over4 + insideBoth + `
			ip addr add ` + theirs2 + `/32 dev eth0; ip link add far2 type gre local ` + theirs2 + ` remote ` + ours + ` ttl 64
			ip addr add 10.0.0.5/30 dev far2; ip addr add 2001:db8:7::1/64 dev far2 nodad; ip link set far2 up`,
		section: `mode = "gre"
			local = "` + ours + `"
			address = ["10.0.0.2/30", "2001:db8:6::2/64", "10.0.0.6/30", "2001:db8:7::2/64"]
			[[tunnel.peer]]
			name = "one"
			remote = "` + theirs + `"
			allowed = ["10.0.0.1/32", "2001:db8:6::1/128"]
			[[tunnel.peer]]
			name = "two"
			remote = "` + theirs2 + `"
			allowed = ["10.0.0.5/32", "2001:db8:7::1/128"]`,
		outside: gre4,
		ways:    []way{ipv4, {"IPv6, the other peer", "2001:db8:7::2", "2001:db8:7::1", "far2"}},
	}, {
		name:    "4in6, ip6tnl",
		devices: `ip link add far type ip6tnl mode ipip6` + over6 + `encaplimit none` + inside4,
		section: `mode = "4in6"` + ends6 + own4,
		outside: outside{6, unix.IPPROTO_IPIP, true},
		ways:    []way{ipv4},
	}, {
		name:    "4in6, ip6tnl, encap limit",
		devices: `ip link add far type ip6tnl mode ipip6` + over6 + inside4,
		section: `mode = "4in6"
			encap_limit = 4` + ends6 + own4,
		outside: outside{6, unix.IPPROTO_IPIP, true},
		limits:  who{true, true},
		ways:    []way{ipv4},
	}, {
		name: "4in6 as the B4 of DS-Lite, ip6tnl as its AFTR",
		devices: `ip link add far type ip6tnl mode ipip6` + over6 + `encaplimit none; ip link set far up
			ip addr add 192.0.0.1/29 dev far; ip addr add 198.18.0.1/32 dev lo`,
		section: `mode = "4in6"
			ds_lite = true` + ends6,
		outside: outside{6, unix.IPPROTO_IPIP, true},
		ways:    []way{{"IPv4", "192.0.0.2", "198.18.0.1", "far"}},
	}, {
		name:    "6in6, ip6tnl",
		devices: `ip link add far type ip6tnl mode ip6ip6` + over6 + `encaplimit none` + inside6,
		section: `mode = "6in6"` + ends6 + own6,
		outside: outside{6, unix.IPPROTO_IPV6, true},
		ways:    []way{ipv6},
	}, {
		name:    "6in6, ip6tnl, encap limit",
		devices: `ip link add far type ip6tnl mode ip6ip6` + over6 + inside6,
		section: `mode = "6in6"
			encap_limit = 4` + ends6 + own6,
		outside: outside{6, unix.IPPROTO_IPV6, true},
		limits:  who{true, true},
		ways:    []way{ipv6},
	}, {
		name:    "gre6, ip6gre",
		devices: `ip link add far type ip6gre` + over6 + `encaplimit none` + insideBoth,
		section: `mode = "gre6"` + ends6 + ownBoth,
		outside: gre6,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre6, ip6gre, encap limit, key, checksum and sequence",
		devices: `ip link add far type ip6gre` + over6 + `key 42 csum seq` + insideBoth,
		section: `mode = "gre6"
			key = 42
			checksum = true
			sequence = true
			encap_limit = 4` + ends6 + ownBoth,
		outside: gre6,
		limits:  who{true, true},
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre6, ip6gre, each as it is by default",
		devices: `ip link add far type ip6gre` + over6 + insideBoth,
		section: `mode = "gre6"` + ends6 + ownBoth,
		outside: gre6,
		limits:  who{theirs: true},
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "6in4, sit, outer fragments",
		devices: `ip link add far type sit local ` + theirs + ` remote ` + ours + ` nopmtudisc; ip link set far mtu 2000` + inside6,
		section: `mode = "6in4"
			pmtu = "static"
			mtu = 2000` + ends4 + own6,
		outside: protocol41,
		cut:     true,
		ways:    []way{ipv6},
	}, {
		name:    "gre, checksum, outer fragments",
		devices: `ip link add far type gre local ` + theirs + ` remote ` + ours + ` csum nopmtudisc; ip link set far mtu 2000` + inside6,
		section: `mode = "gre"
			checksum = true
			pmtu = "static"
			mtu = 2000` + ends4 + own6,
		outside: gre4,
		cut:     true,
		ways:    []way{ipv6},
	}, {
		name: "gre6 over 6in4, ip6gre over sit",
		devices: `ip link add sit6to4 type sit` + over4 + `
			ip addr add fc00::1/64 dev sit6to4 nodad; ip link set sit6to4 up
			ip link add far type ip6gre local fc00::1 remote fc00::2 encaplimit none` + insideBoth,
		section: `
			stack = ["gre6", "6in4"]
			local6 = "fc00::2"
			remote6 = "fc00::1"` + ends4 + ownBoth,
		outside: outside{4, unix.IPPROTO_IPV6, true},
		ways:    []way{ipv4, ipv6},
	},
}

// The configured modes against the kernel's devices for them.
func TestModes(t *testing.T) {
	for _, c := range counterparts {
		t.Run(c.name, func(t *testing.T) { c.test(t) })
	}
}

// test exchanges packets with the kernel's device, and checks the packets between the two
// ends, which it returns.
func (c *counterpart) test(t *testing.T) *wire {
	kernel(t, "\n"+c.devices)
	socket := daemon(t, lab.ns, c.section)
	w := watch(t, c.outside)
	if c.limits.ours == c.limits.theirs {
		sameMTU(t, "six0", "far")
	}
	for _, way := range c.ways {
		both(t, way, brief)
	}
	w.report(t, c.limits.ours, c.limits.theirs)
	if (w.sent.fragments > 0) != c.cut || (w.got.fragments > 0) != c.cut {
		t.Errorf("fragments expected: %v", c.cut)
	}
	if c.cut { // with pmtu = "static" there are no probes
		counted(t, socket)
	} else {
		probed(t, socket)
	}
	if c.ways[0] == ipv4 { // of a /30: the other end is known
		checkInnerProbes(t, socket, counted(t, socket))
	}
	return w
}

// IPv4 that may be fragmented, in IPv6: we fragment the packets of the tunnel, which the
// other end reassembles (RFC 2473 section 7.2); the kernel fragments the inner packet.
func TestOuterFragments6(t *testing.T) {
	kernel(t, `
		ip link add far type ip6tnl mode ipip6`+over6+inside4)
	daemon(t, lab.ns, `
		mode = "4in6"
		encap_limit = 4
		pmtu = "static"
		mtu = 4000`+ends6+own4)
	w := watch(t, outside{6, unix.IPPROTO_IPIP, true})
	for _, way := range []struct {
		from end
		to   string
	}{{daemonEnd{lab.ns}, ipv4.theirs}, {kernelEnd{lab.ns}, ipv4.ours}} {
		for _, size := range []int{1432, 1472, 3900, 8000} {
			r, err := way.from.ping(t.Context(), netip.MustParseAddr(way.to), rig.PingOptions{Count: 3, Size: size, Timeout: patience})
			if err != nil || r.Received != 3 || r.Corrupt+r.Duplicates+len(r.ICMP) > 0 {
				t.Errorf("ping of %d bytes from %s: %+v, %v", size, way.from.name(), r, err)
			}
		}
	}
	w.report(t, true, true)
	if w.sent.fragments == 0 || w.got.fragments > 0 {
		t.Errorf("%d and %d fragments", w.sent.fragments, w.got.fragments)
	}
}

// probed checks that the kernel has answered probes of the path MTU, which the large
// packets of the exchange have caused.
func probed(t *testing.T, socket string) {
	t.Helper()
	s := counted(t, socket)
	peers := s.Peers
	if len(peers) == 0 {
		peers = []api.PeerStatus{s.PeerStatus}
	}
	for _, p := range peers {
		report(t, "path MTU %d, by %s; %d probes, %d answered", p.State.PathMTU, p.State.PathMTUBy, p.Probes.Sent, p.Probes.Answered)
		if p.Probes.Answered == 0 || p.State.PathMTU != wide {
			t.Errorf("probes: %+v; state: %+v", p.Probes, p.State)
		}
	}
}

// checkInnerProbes checks that the kernel answers the probes through the tunnel to its inner address,
// and not only pings of its outer address.
func checkInnerProbes(t *testing.T, socket string, s api.TunnelStatus) {
	t.Helper()
	peer := s.Name
	if len(s.Peers) > 0 {
		peer += "/" + s.Peers[0].Peer
	}
	c := client.New(socket)
	err := c.Ping(t.Context(), api.PingRequest{Peer: peer, Count: 1, Timeout: patience}, func(r api.PingReply) error {
		report(t, "the machine answers a probe through the tunnel: %v %s", !r.Lost, r.Detail)
		if r.Lost || r.Detail != "" {
			t.Errorf("a probe through the tunnel: %+v", r)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// counted logs the daemon's counters.
func counted(t *testing.T, socket string) api.TunnelStatus {
	t.Helper()
	s, err := client.Status(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	one := s.Tunnels[0]
	report(t, "sixfourd carried %d packets in, %d out; dropped %v in, %v out", one.In.Packets, one.Out.Packets, one.In.Drops, one.Out.Drops)
	return one
}
