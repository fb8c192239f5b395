package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sixfour/internal/rig"
)

// With local = "auto" the addresses that contain the outer address follow it, and so do the
// packets that are accepted. A reload does not change that.
func TestAddressFollowsLocal(t *testing.T) {
	t.Parallel()
	const auto, lines = "local = \"auto\"\n", "keepalive = \"0s\"\n"
	for _, c := range []struct {
		name, a, b, before, after, peer string
	}{
		{"6rd", "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nborder_relay = \"203.0.113.20\"\n" + auto + "address = [\"2001:db8:cb00:710a::1/32\"]\nroutes = [\"::/0\"]\n",
			"mode = \"6rd\"\nprefix = \"2001:db8::/32\"\n" + local4 + "address = [\"2001:db8:cb00:7114::1/32\", \"3fff::1/64\"]\n",
			"2001:db8:cb00:710a::1/32", "2001:db8:cb00:7163::1/32", "3fff::1"},
		{"6to4", "mode = \"6to4\"\nrelay = \"203.0.113.20\"\n" + auto + "address = [\"2002:cb00:710a::1/16\"]\nroutes = [\"::/0\"]\n",
			"mode = \"6to4\"\n" + local4 + "address = [\"2002:cb00:7114::1/16\"]\n",
			"2002:cb00:710a::1/16", "2002:cb00:7163::1/16", "2002:cb00:7114::1"},
		{"isatap", "mode = \"isatap\"\nrouters = [\"203.0.113.20\"]\n" + auto + "address = [\"2001:db8:77::200:5efe:203.0.113.10/64\"]\n",
			"mode = \"isatap\"\nrouter = true\nprefix = \"2001:db8:77::/64\"\n" + local4 + "address = [\"2001:db8:77::200:5efe:203.0.113.20/64\"]\n",
			"2001:db8:77::200:5efe:203.0.113.10/64", "2001:db8:77::200:5efe:203.0.113.99/64", "2001:db8:77::200:5efe:203.0.113.20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHosts(t, 1500)
			b := start(t, h.b, tunnelOf(c.b+lines, 2))
			conf := "[[tunnel]]\nname = \"six0\"\n" + c.a + lines
			a := start(t, h.a, conf)
			peer := netip.MustParseAddr(c.peer)
			has := func(want, not string) {
				t.Helper()
				eventually(t, "the interface has "+want, func() error {
					got := addressesOf(t, h.a, "six0")
					if !slices.Contains(got, netip.MustParsePrefix(want)) || not != "" && slices.Contains(got, netip.MustParsePrefix(not)) {
						return fmt.Errorf("%v", got)
					}
					return nil
				})
			}
			has(c.before, "")
			reachable(t, h.a, peer)
			was, now := netip.PrefixFrom(outerA, 24), netip.MustParsePrefix("203.0.113.99/24")
			must(t, h.a.DelAddr("va", was))
			must(t, h.a.AddAddr("va", now))
			has(c.after, c.before)
			reachable(t, h.a, peer)
			reachable(t, h.b, netip.MustParsePrefix(c.after).Addr())
			a.wait(t, "the interface's addresses were changed")
			a.mustReload(t, conf+"ttl = 63\n")
			has(c.after, c.before)
			reachable(t, h.a, peer)
			must(t, h.a.DelAddr("va", now))
			must(t, h.a.AddAddr("va", was))
			has(c.before, c.after)
			reachable(t, h.a, peer)
			if _, s := b.status(t); s.In.Drops["spoof"] > 0 {
				t.Errorf("%+v", s.In)
			}
		})
	}
}

// addressesOf returns the addresses of an interface.
func addressesOf(t *testing.T, ns *rig.Namespace, dev string) (list []netip.Prefix) {
	t.Helper()
	link, err := ns.Handle().LinkByName(dev)
	must(t, err)
	addrs, err := ns.Handle().AddrList(link, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range addrs {
		list = append(list, netip.MustParsePrefix(strings.Fields(a.IPNet.String())[0]))
	}
	return list
}
