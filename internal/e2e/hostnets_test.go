package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// verdict returns the result for a packet that b sends through a GRE tunnel: "" if it is
// carried, or the reason why it is not.
func (d *daemon) verdict(t *testing.T, h hosts, src, dst string) (why string) {
	t.Helper()
	total := func(drops map[string]uint64, carried uint64) uint64 {
		for _, n := range drops {
			carried += n
		}
		return carried
	}
	_, before := d.status(t)
	send(t, h.b, ip4(outerB, outerA, header.GRE, greOf(experimental(netip.MustParseAddr(src), netip.MustParseAddr(dst)))))
	eventually(t, "a packet from "+src+" is counted", func() error {
		_, now := d.status(t)
		if total(now.In.Drops, now.In.Packets) == total(before.In.Drops, before.In.Packets) {
			return fmt.Errorf("%+v", now.In)
		}
		for reason, n := range now.In.Drops {
			if n > before.In.Drops[reason] {
				why = reason
			}
		}
		return nil
	})
	return why
}

// waitVerdict waits until packets from a source have this result.
func (d *daemon) waitVerdict(t *testing.T, h hosts, src, dst, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("a packet from %s: %q", src, want), func() error {
		if got := d.verdict(t, h, src, dst); got != want {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

// A router's addresses, and the hosts on its other links, are not accepted as sources
// behind a peer with all addresses allowed, unless the configuration says so. What counts
// are the interfaces in the namespace of the tunnel's interface, which may change.
func TestSourcesOfThisHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		apart bool // the interface is in another namespace than the outer side
	}{{"", false}, {" in a namespace", true}} {
		t.Run("router"+c.name, func(t *testing.T) {
			h := newHosts(t, 1500)
			router, lines := h.a, ""
			if c.apart {
				router = newNamespace(t, "router")
				lines = fmt.Sprintf("netns = %q\n", router.Path())
			}
			host := newNamespace(t, "host")
			must(t, rig.Veth(router, "lan", host, "eth0", 1500))
			lan4, lan6 := netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("2001:db8:1::1/64")
			must(t, router.AddAddr("lan", lan4))
			must(t, router.LinkUp("lan"))
			must(t, host.LinkUp("eth0"))
			conf := config("gre", 1, 2, []string{"keepalive = \"0s\"", `address = ["10.47.0.1/30", "fc00::1/64"]`, lines})
			a := start(t, h.a, conf)
			check := func(list map[string]string) {
				t.Helper()
				for src, want := range list {
					dst := "10.47.0.1"
					if netip.MustParseAddr(src).Is6() {
						dst = "fc00::1"
					}
					a.waitVerdict(t, h, src, dst, want)
				}
			}
			wan := map[bool]string{false: "spoof", true: ""}[c.apart] // whose link is elsewhere
			check(map[string]string{
				"10.47.0.2": "", "10.47.0.1": "own_source", "203.0.113.10": "own_source", "203.0.113.20": "", // of the peer itself
				"203.0.113.7": wan, "192.168.1.1": "own_source", "192.168.1.7": "spoof", "192.168.2.7": "",
				"fc00::2": "", "2001:db8:1::1": "", "2001:db8:1::7": "", "fe80::7": "",
			})
			must(t, router.AddAddr("lan", lan6))
			check(map[string]string{"2001:db8:1::1": "own_source", "2001:db8:1::7": "spoof", "192.168.1.7": "spoof"})

			// The configuration contains a part of the LAN.
			a.mustReload(t, conf+"routes = [\"192.168.1.128/25\", \"192.168.0.0/16\", \"2001:db8:1::/64\"]\n")
			check(map[string]string{"192.168.1.200": "", "192.168.1.7": "spoof", "2001:db8:1::7": "", "2001:db8:1::1": "own_source"})
			a.mustReload(t, conf)
			check(map[string]string{"192.168.1.200": "spoof", "2001:db8:1::7": "spoof"})

			// The interface's own subnets are accepted.
			must(t, router.DelAddr("lan", lan6))
			must(t, router.AddAddr("lan", netip.MustParsePrefix("fc00::9/64")))
			check(map[string]string{"2001:db8:1::1": "", "2001:db8:1::7": "", "fc00::9": "own_source", "fc00::2": ""})
			must(t, router.LinkDown("lan"))
			check(map[string]string{"192.168.1.1": "own_source", "192.168.1.7": ""})
			must(t, router.DelAddr("lan", lan4))
			check(map[string]string{"192.168.1.1": "", "192.168.1.7": ""})
		})
	}
}

// In a hub, a part of the hub's LAN may be allowed for one of the peers.
func TestSourcesOfThisHostInAHub(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	host := newNamespace(t, "host")
	must(t, rig.Veth(h.a, "lan", host, "eth0", 1500))
	must(t, h.a.AddAddr("lan", netip.MustParsePrefix("192.168.1.1/24")))
	must(t, h.a.LinkUp("lan"))
	must(t, host.LinkUp("eth0"))
	hub := func(allowed string) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = %q\nkeepalive = \"0s\"\naddress = [\"10.47.0.1/24\"]\n[[tunnel.peer]]\nname = \"b\"\nremote = %q\nallowed = [%s]\n",
			outerA, outerB, allowed)
	}
	a := start(t, h.a, hub(`"0.0.0.0/0"`))
	a.waitVerdict(t, h, "192.168.1.7", "10.47.0.1", "spoof")
	a.waitVerdict(t, h, "192.168.2.7", "10.47.0.1", "")
	a.mustReload(t, hub(`"0.0.0.0/0", "192.168.1.0/28"`))
	a.waitVerdict(t, h, "192.168.1.7", "10.47.0.1", "")
	a.waitVerdict(t, h, "192.168.1.77", "10.47.0.1", "spoof")
	a.waitVerdict(t, h, "192.168.1.1", "10.47.0.1", "own_source")
}
