//go:build interop

package interop

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// An address far away, which the border relay or the router reaches.
const native, nativePrefix = "3fff::1", "3fff::/20"

// automatics are the modes whose inner addresses contain the outer ones, against the
// kernel's sit device without a remote.
var automatics = []struct {
	counterpart
	native bool // our end reaches the others, not the kernel
	// configured is what the machine runs when the daemon is there; solicits means that the
	// daemon asks for routers before.
	solicits   bool
	configured string
}{
	{counterpart: counterpart{
		name: "6to4, and the kernel as relay",
		devices: `ip tunnel add far mode sit remote any local ` + theirs + ` ttl 64
			ip link set far up; ip addr add 2002:cb00:7101::1/16 dev far nodad
			ip addr add ` + native + `/128 dev lo`,
		section: `mode = "6to4"
			local = "` + ours + `"
			relay = "` + theirs + `"
			address = ["2002:cb00:7102::1/16"]
			routes = ["` + nativePrefix + `"]`,
		ways: []way{
			{"site to site", "2002:cb00:7102::1", "2002:cb00:7101::1", "far"},
			{"through the relay", "2002:cb00:7102::1", native, "far"},
		},
	}}, {counterpart: counterpart{
		name: "6rd, the kernel as border relay",
		devices: `ip tunnel add far mode sit local ` + theirs + ` ttl 64
			ip tunnel 6rd dev far 6rd-prefix 2001:db8::/32
			ip link set far up; ip addr add 2001:db8:cb00:7101::1/32 dev far nodad
			ip addr add ` + native + `/128 dev lo`,
		section: `mode = "6rd"
			prefix = "2001:db8::/32"
			border_relay = "` + theirs + `"
			local = "` + ours + `"
			address = ["2001:db8:cb00:7102::1/32"]
			routes = ["` + nativePrefix + `"]`,
		ways: []way{
			{"inside the domain", "2001:db8:cb00:7102::1", "2001:db8:cb00:7101::1", "far"},
			{"through the border relay", "2001:db8:cb00:7102::1", native, "far"},
		},
	}}, {native: true, counterpart: counterpart{
		name: "6rd, the kernel as customer edge",
		devices: `ip tunnel add far mode sit local ` + theirs + ` ttl 64
			ip tunnel 6rd dev far 6rd-prefix 2001:db8:6d::/48 6rd-relay_prefix 203.0.113.0/24
			ip link set far up; ip addr add 2001:db8:6d:100::1/48 dev far nodad
			ip route add ` + nativePrefix + ` via ::` + ours + ` dev far`,
		section: `mode = "6rd"
			prefix = "2001:db8:6d::/48"
			mask_len = 24
			role = "br"
			local = "` + ours + `"
			address = ["2001:db8:6d:200::1/48"]`,
		ways: []way{
			{"inside the domain", "2001:db8:6d:200::1", "2001:db8:6d:100::1", "far"},
			{"through the border relay", native, "2001:db8:6d:100::1", "far"},
		},
	}}, {native: true, solicits: true, configured: `
		until ip -6 addr show dev far | grep -q '2001:db8:5efe:1:200:5efe:cb00:7101/64 .*dynamic'; do sleep 0.1; done
		until ip -6 route show default | grep -q 'via fe80::200:5efe:cb00:7102 dev far proto ra'; do sleep 0.1; done`, counterpart: counterpart{
		name: "isatap, the kernel as host",
		devices: `ip tunnel add far mode isatap local ` + theirs + ` ttl 64
			ip tunnel prl dev far prl-default ` + ours + `; ip link set far up`,
		section: `mode = "isatap"
			router = true
			prefix = ["2001:db8:5efe:1::/64"]
			local = "` + ours + `"
			address = ["2001:db8:5efe:1:200:5efe:203.0.113.2/64"]`,
		ways: []way{
			{"on the link", "2001:db8:5efe:1:200:5efe:203.0.113.2", "2001:db8:5efe:1:200:5efe:203.0.113.1", "far"},
			{"through the router", native, "2001:db8:5efe:1:200:5efe:203.0.113.1", "far"},
		},
	}}, {counterpart: counterpart{
		name: "isatap, both as hosts",
		devices: `ip tunnel add far mode isatap local ` + theirs + ` ttl 64
			ip link set far up; ip addr add 2001:db8:5efe:1:200:5efe:203.0.113.1/64 dev far nodad
			ip addr add ` + native + `/128 dev lo`,
		section: `mode = "isatap"
			routers = ["` + theirs + `"]
			local = "` + ours + `"
			address = ["2001:db8:5efe:1:200:5efe:203.0.113.2/64"]
			routes = ["` + nativePrefix + `"]`,
		ways: []way{
			{"on the link", "2001:db8:5efe:1:200:5efe:203.0.113.2", "2001:db8:5efe:1:200:5efe:203.0.113.1", "far"},
			{"through the router", "2001:db8:5efe:1:200:5efe:203.0.113.2", native, "far"},
		},
	}}, {counterpart: counterpart{
		name:    "v4compat, sit0",
		devices: `ip link set sit0 up; ip addr show dev sit0 | grep -q '::203.0.113.1/96'`, // by itself
		section: `mode = "v4compat"
			local = "` + ours + `"
			address = ["::203.0.113.2/96"]`,
		ways: []way{{"host to host", "::203.0.113.2", "::203.0.113.1", "sit0"}},
	}},
}

// The automatic modes against the kernel's.
func TestAutomatic(t *testing.T) {
	far := netip.MustParsePrefix(native + "/128")
	for _, c := range automatics {
		t.Run(c.name, func(t *testing.T) {
			if c.native {
				if err := lab.ns.AddAddr("lo", far); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := lab.ns.DelAddr("lo", far); err != nil {
						t.Error(err)
					}
				})
			}
			kernel(t, "\n"+c.devices)
			socket := daemon(t, lab.ns, c.section)
			if c.solicits {
				raw(t, solicitation)
			}
			if c.configured != "" {
				run(t, c.configured)
			}
			w := watch(t, outside{4, unix.IPPROTO_IPV6, true}) // relays and routers are probed
			for _, way := range c.ways {
				both(t, way, brief)
			}
			w.report(t, false, false)
			counted(t, socket)
		})
	}
}

// solicitation is what an ISATAP host sends to a router of its list (RFC 5214 section
// 8.3.4). The kernel leaves that to a daemon, but accepts the answer.
var solicitation = []byte{
	0x45, 0, 0, 68, 0, 1, 0, 0, 64, 41, 0x02, 0x8c, 203, 0, 113, 1, 203, 0, 113, 2, // IPv4
	0x60, 0, 0, 0, 0, 8, 58, 255, // IPv6
	0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x02, 0, 0x5e, 0xfe, 203, 0, 113, 1,
	0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x02, 0, 0x5e, 0xfe, 203, 0, 113, 2,
	133, 0, 0x43, 0xb9, 0, 0, 0, 0, // router solicitation
}

// raw sends a packet from the machine.
func raw(t *testing.T, packet []byte) {
	t.Helper()
	if err := guest(t.Context(), "raw", map[string]any{"Raw": packet}, new(any)); err != nil {
		t.Fatal(err)
	}
}
