//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The ports of encapsulations, in the configuration and in the machine.
const (
	fouPort  = 5555
	guePort  = 6080
	grePort  = 4754
	udpPorts = `
		ip fou add port %[1]d ipproto %[2]s; ip -6 fou add port %[1]d ipproto %[2]s`
	gueReceiver = `
		ip fou add port 6080 gue; ip -6 fou add port 6080 gue`

	// Linux 6.1.192, and others since 2024, merge received TCP segments in GRE in UDP (GRO), and
	// drop what they have merged: gre_gro_complete removes the mark of UDP tunnels, without
	// which udp_unexpected_gso accepts no merged packet. TCP then has to send each segment
	// again, alone. GRE with sequence numbers is not merged.
	mergeNothing = `
		ip link set eth0 gro_max_size 1000
		`
)

// receiver returns the commands by which the machine receives UDP whose packets have an IP
// protocol, at a port.
func receiver(port int, protocol string) string { return fmt.Sprintf(udpPorts, port, protocol) }

// in returns the parameters of a device for an encapsulation.
func in(encap string, port int, more string) string {
	return fmt.Sprintf(` encap %s encap-sport auto encap-dport %d %s `, encap, port, more)
}

// path returns a path in the configuration.
func path(encap string, more ...string) string {
	return "\n[[tunnel.path]]\nencap = \"" + encap + "\"\n" + strings.Join(more, "\n")
}

var (
	udp4 = outside{4, unix.IPPROTO_UDP, true}
	udp6 = outside{6, unix.IPPROTO_UDP, true}
)

// inUDP are the encapsulations in UDP under each mode for which the kernel has a device, with
// UDP checksums and without.
var inUDP = []counterpart{
	{
		name:    "fou, 6in4, sit",
		devices: receiver(fouPort, "41") + `; ip link add far type sit` + over4 + in("fou", fouPort, "encap-csum") + inside6,
		section: `mode = "6in4"` + ends4 + own6 + path("fou"),
		outside: udp4,
		ways:    []way{ipv6},
	}, {
		name:    "fou, 6in4, sit, no checksums",
		devices: receiver(fouPort, "41") + `; ip link add far type sit` + over4 + in("fou", fouPort, "") + inside6,
		section: `mode = "6in4"` + ends4 + own6 + path("fou", "checksum = false"),
		outside: udp4,
		ways:    []way{ipv6},
	}, {
		name:    "fou, 4in4, ipip, a source port for each flow",
		devices: receiver(fouPort, "4") + `; ip link add far type ipip` + over4 + in("fou", fouPort, "encap-csum") + inside4,
		section: `mode = "4in4"` + ends4 + own4 + path("fou", `source_port = "flow"`),
		outside: udp4,
		ways:    []way{ipv4},
	}, {
		name:    "fou, gre with key, checksum and sequence",
		devices: receiver(fouPort, "47") + `; ip link add far type gre` + over4 + `key 7 csum seq` + in("fou", fouPort, "") + insideBoth,
		section: `mode = "gre"
			key = 7
			checksum = true
			sequence = true` + ends4 + ownBoth + path("fou", "checksum = false"),
		outside: udp4,
		ways:    []way{ipv4, ipv6},
	}, {
		name: "fou, 4in6in4, ip6tnl over sit",
		devices: receiver(fouPort, "41") + `; ip link add sit6to4 type sit` + over4 + in("fou", fouPort, "encap-csum") + `
			ip addr add fc00::1/64 dev sit6to4 nodad; ip link set sit6to4 up
			ip link add far type ip6tnl mode ipip6 local fc00::1 remote fc00::2 encaplimit none` + inside4,
		section: `mode = "4in6in4"
			local6 = "fc00::2"
			remote6 = "fc00::1"
			address = ["10.0.0.2/30", "fc00::2/64"]` + ends4 + path("fou"),
		outside: udp4,
		ways:    []way{ipv4, {"IPv6", "fc00::2", "fc00::1", "sit6to4"}},
	}, {
		name:    "fou, 6in6, ip6tnl",
		devices: receiver(fouPort, "41") + `; ip link add far type ip6tnl mode ip6ip6` + over6 + `encaplimit none` + in("fou", fouPort, "encap-udp6-csum") + inside6,
		section: `mode = "6in6"` + ends6 + own6 + path("fou"),
		outside: udp6,
		ways:    []way{ipv6},
	}, {
		name:    "fou, 4in6, ip6tnl, no checksums",
		devices: receiver(fouPort, "4") + `; ip link add far type ip6tnl mode ipip6` + over6 + `encaplimit none` + in("fou", fouPort, "noencap-udp6-csum") + inside4,
		section: `mode = "4in6"` + ends6 + own4 + path("fou", "checksum = false"),
		outside: udp6,
		ways:    []way{ipv4},
	}, {
		name:    "fou, 6in6, ip6tnl, encap limit",
		devices: receiver(fouPort, "41") + `; ip link add far type ip6tnl mode ip6ip6` + over6 + in("fou", fouPort, "encap-udp6-csum") + inside6,
		section: `mode = "6in6"
			encap_limit = 4` + ends6 + own6 + path("fou"),
		outside: udp6,
		limits:  who{true, true},
		ways:    []way{ipv6},
	}, {
		name:    "fou, gre6, ip6gre",
		devices: mergeNothing + receiver(fouPort, "47") + `; ip link add far type ip6gre` + over6 + `encaplimit none` + in("fou", fouPort, "encap-udp6-csum") + insideBoth,
		section: `mode = "gre6"` + ends6 + ownBoth + path("fou"),
		outside: udp6,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gue, 6in4, sit",
		devices: gueReceiver + `; ip link add far type sit` + over4 + in("gue", guePort, "encap-csum") + inside6,
		section: `mode = "6in4"` + ends4 + own6 + path("gue"),
		outside: udp4,
		ways:    []way{ipv6},
	}, {
		name:    "gue, 4in4, ipip, no checksums",
		devices: gueReceiver + `; ip link add far type ipip` + over4 + in("gue", guePort, "") + inside4,
		section: `mode = "4in4"` + ends4 + own4 + path("gue", "checksum = false"),
		outside: udp4,
		ways:    []way{ipv4},
	}, {
		name:    "gue, gre with a key",
		devices: mergeNothing + gueReceiver + `; ip link add far type gre` + over4 + `key 7` + in("gue", guePort, "encap-csum") + insideBoth,
		section: `mode = "gre"
			key = 7` + ends4 + ownBoth + path("gue"),
		outside: udp4,
		ways:    []way{ipv4, ipv6},
	}, {
		name: "gue, 4in6in4, ip6tnl over sit",
		devices: gueReceiver + `; ip link add sit6to4 type sit` + over4 + in("gue", guePort, "") + `
			ip addr add fc00::1/64 dev sit6to4 nodad; ip link set sit6to4 up
			ip link add far type ip6tnl mode ipip6 local fc00::1 remote fc00::2 encaplimit none` + inside4,
		section: `mode = "4in6in4"
			local6 = "fc00::2"
			remote6 = "fc00::1"
			address = ["10.0.0.2/30", "fc00::2/64"]` + ends4 + path("gue", "checksum = false"),
		outside: udp4,
		ways:    []way{ipv4, {"IPv6", "fc00::2", "fc00::1", "sit6to4"}},
	}, {
		name:    "gue, 4in6, ip6tnl",
		devices: gueReceiver + `; ip link add far type ip6tnl mode ipip6` + over6 + `encaplimit none` + in("gue", guePort, "encap-udp6-csum") + inside4,
		section: `mode = "4in6"` + ends6 + own4 + path("gue"),
		outside: udp6,
		ways:    []way{ipv4},
	}, {
		name:    "gue, gre6, ip6gre, no checksums",
		devices: mergeNothing + gueReceiver + `; ip link add far type ip6gre` + over6 + `encaplimit none` + in("gue", guePort, "noencap-udp6-csum") + insideBoth,
		section: `mode = "gre6"` + ends6 + ownBoth + path("gue", "checksum = false"),
		outside: udp6,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre_udp, gre",
		devices: mergeNothing + receiver(grePort, "47") + `; ip link add far type gre` + over4 + in("fou", grePort, "encap-csum") + insideBoth,
		section: `mode = "gre"` + ends4 + ownBoth + path("gre_udp"),
		outside: udp4,
		ways:    []way{ipv4, ipv6},
	}, {
		name:    "gre_udp, 6in4, no checksums",
		devices: mergeNothing + receiver(grePort, "47") + `; ip link add far type gre` + over4 + in("fou", grePort, "") + inside6,
		section: `mode = "6in4"` + ends4 + own6 + path("gre_udp", "checksum = false"),
		outside: udp4,
		ways:    []way{ipv6},
	}, {
		name: "gre_udp, 4in6in4, ip6tnl over gre",
		devices: mergeNothing + receiver(grePort, "47") + `; ip link add sit6to4 type gre` + over4 + in("fou", grePort, "encap-csum") + `
			ip addr add fc00::1/64 dev sit6to4 nodad; ip link set sit6to4 up
			ip link add far type ip6tnl mode ipip6 local fc00::1 remote fc00::2 encaplimit none` + inside4,
		section: `mode = "4in6in4"
			local6 = "fc00::2"
			remote6 = "fc00::1"
			address = ["10.0.0.2/30", "fc00::2/64"]` + ends4 + path("gre_udp"),
		outside: udp4,
		ways:    []way{ipv4, {"IPv6", "fc00::2", "fc00::1", "sit6to4"}},
	}, {
		name:    "gre_udp, gre6, ip6gre",
		devices: mergeNothing + receiver(grePort, "47") + `; ip link add far type ip6gre` + over6 + `encaplimit none` + in("fou", grePort, "encap-udp6-csum") + insideBoth,
		section: `mode = "gre6"` + ends6 + ownBoth + path("gre_udp", `source_port = "local"`),
		outside: udp6,
		ways:    []way{ipv4, ipv6},
	},
}

// The encapsulations in UDP against the kernel's.
func TestInUDP(t *testing.T) {
	for _, c := range inUDP {
		t.Run(c.name, func(t *testing.T) { c.test(t) })
	}
}

// With encap-remcsum, the kernel leaves the checksums of TCP and UDP inside to us. Its MTU has
// room for the fields that say so; we do not send them.
func TestRemoteChecksum(t *testing.T) {
	for _, c := range []counterpart{
		{
			name:    "sit",
			devices: gueReceiver + `; ip link add far type sit` + over4 + in("gue", guePort, "encap-csum encap-remcsum") + inside6,
			section: `mode = "6in4"
				mtu = 1460` + ends4 + own6 + path("gue"),
			outside: udp4,
			ways:    []way{ipv6},
		}, {
			name:    "gre",
			devices: mergeNothing + gueReceiver + `; ip link add far type gre` + over4 + in("gue", guePort, "encap-csum encap-remcsum") + insideBoth,
			section: `mode = "gre"
				mtu = 1456` + ends4 + ownBoth + path("gue"),
			outside: udp4,
			ways:    []way{ipv4, ipv6},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.test(t)
			if w.remote == 0 {
				t.Error("no packet of the kernel left its checksum to us")
			}
			report(t, "%d packets of the kernel left a checksum to us", w.remote)
		})
	}
}
