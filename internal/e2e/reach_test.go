package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// between returns the keys of a tunnel of a mode over the internet, for end 1 or 2.
func (n internet) between(mode string, end int) string {
	local, remote := addrA, addrB
	if strings.HasSuffix(mode, "6") {
		local, remote = addrA6, addrB6
	}
	if end == 2 {
		local, remote = remote, local
	}
	c := fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = %q\nlocal = \"%v\"\nremote = \"%v\"\n", mode, local, remote)
	switch mode {
	case "4in6in4":
		return c + fmt.Sprintf("local6 = \"fc00::%d\"\nremote6 = \"fc00::%d\"\naddress = [\"10.0.0.%d/30\", \"fc00::%d/64\"]\n", end, 3-end, end, end)
	case "4in4":
		return c + fmt.Sprintf("address = [\"10.0.0.%d/30\"]\n", end)
	case "6in6":
		return c + fmt.Sprintf("address = [\"fc00::%d/64\"]\n", end)
	}
	return c + fmt.Sprintf("address = [\"10.0.0.%d/30\", \"fc00::%d/64\"]\n", end, end)
}

// There is no loop if the outer packets have a route of their own: then the peer's public
// address is reached through its tunnel, too, from any address of ours.
func TestPeersOwnAddress(t *testing.T) {
	t.Run("default route", func(t *testing.T) {
		for _, mode := range []string{"4in6in4", "gre", "4in4", "gre6", "6in6"} {
			t.Run(mode, func(t *testing.T) {
				t.Parallel()
				n := newInternet(t)
				to, inside := addrB, inA
				if strings.HasSuffix(mode, "6") {
					to, inside = addrB6, in6A
				}
				start(t, n.b, n.between(mode, 2))
				a := start(t, n.a, n.between(mode, 1)+"[gateway]\ndefault_route = true\n")
				waitSource(t, n.a, n.b, to, inside)
				_, s := a.status(t)
				if len(s.Out.Drops) > 0 {
					t.Errorf("%v", s.Out.Drops)
				}
			})
		}
	})
	t.Run("marked", func(t *testing.T) {
		for mode, prefix := range map[string]string{"gre": "203.0.113.0/24", "6in6": "2001:db8:b::/64"} {
			t.Run(mode, func(t *testing.T) {
				t.Parallel()
				n := newInternet(t)
				to, inside, ours, family := addrB, inA, addrA, unix.AF_INET
				if mode == "6in6" {
					to, inside, ours, family = addrB6, in6A, addrA6, unix.AF_INET6
				}
				must(t, n.a.Sysctl("net/ipv4/conf/all/rp_filter", "2")) // packets without the mark would be sent back through six0
				rule := netlink.NewRule()
				rule.Mark, rule.Table, rule.Family, rule.Priority = 7, 100, family, 100
				must(t, n.a.Handle().RuleAdd(rule))
				link, err := n.a.Handle().LinkByName("eth0")
				must(t, err)
				must(t, n.a.Handle().RouteAdd(&netlink.Route{Table: 100, LinkIndex: link.Attrs().Index, Gw: first(ours).AsSlice()}))
				start(t, n.b, n.between(mode, 2))
				a := start(t, n.a, n.between(mode, 1)+fmt.Sprintf("fwmark = 7\nroutes = [%q]\n", prefix))
				waitSource(t, n.a, n.b, to, inside)

				// From our own outer address to the peer's, but not by the tunnel's
				// protocol.
				out, err := n.a.Capture("six0")
				must(t, err)
				defer out.Close()
				far, err := n.b.Capture("six0")
				must(t, err)
				defer far.Close()
				must(t, out.Inject(experimental(ours, to)))
				_, err = far.Find(t.Context(), func(f rig.Frame) bool { return strings.Contains(string(f.Packet()), "known by its content") })
				must(t, err)
				if family == unix.AF_INET {
					must(t, out.Inject(ip4(ours, to, header.GRE, greOf(experimental(inA, to)))))
				} else {
					must(t, out.Inject(ip6(ours, to, header.ProtoIPv6, experimental(in6A, to))))
				}
				eventually(t, "the tunnel's own packet is a loop", func() error {
					if _, s := a.status(t); s.Out.Drops["loop"] != 1 {
						return fmt.Errorf("%v", s.Out.Drops)
					}
					return nil
				})
			})
		}
	})
	t.Run("namespace", func(t *testing.T) {
		t.Parallel()
		n := newInternet(t)
		inside := newNamespace(t, "inside")
		start(t, n.b, n.between("4in6in4", 2))
		a := start(t, n.a, n.between("4in6in4", 1)+fmt.Sprintf("netns = %q\nroutes = [\"0.0.0.0/0\"]\n", inside.Path()))
		waitSource(t, inside, n.b, addrB, inA)
		if _, s := a.status(t); len(s.Out.Drops) > 0 {
			t.Errorf("%v", s.Out.Drops)
		}
	})
}

// While outer packets would enter the tunnel again, the tunnel waits.
func TestRouteIntoTunnel(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	start(t, n.b, n.between("gre", 2))
	a := start(t, n.a, n.between("gre", 1))
	reachable(t, n.a, inB)
	loop := netip.PrefixFrom(addrB, 32)
	must(t, n.a.AddRoute(loop, netip.Addr{}, "six0"))
	a.waitsFor(t, "does not lead into six0 itself")
	must(t, n.a.DelRoute(loop, netip.Addr{}, "six0"))
	reachable(t, n.a, inB)
}

// A default route into the tunnel is set if a longer route leads to the peer outside the
// tunnel, and held back while there is none: the host keeps its own default route.
func TestDefaultRouteAround(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprintf("by name %v", named), func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			link, err := n.a.Handle().LinkByName("eth0")
			must(t, err)
			// With the metric of a network manager, so that our route is preferred.
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			must(t, n.a.DelRoute(all, first(addrA), ""))
			must(t, n.a.Handle().RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: first(addrA).AsSlice(), Priority: 100}))
			start(t, n.b, serverConfig())
			config := n.between("4in6in4", 1) + "routes = [\"0.0.0.0/0\"]\n"
			var a *daemon
			if named {
				names, err := n.a.ServeNames()
				must(t, err)
				t.Cleanup(func() { names.Close() })
				names.Set("b.example", addrB)
				file := filepath.Join(t.TempDir(), "resolv.conf")
				must(t, os.WriteFile(file, []byte(rig.Resolv), 0o644))
				a = launchWith(t, n.a, strings.Replace(config, addrB.String(), "b.example", 1), map[string]string{"/etc/resolv.conf": file})
			} else {
				a = launch(t, n.a, config)
			}
			host := netip.PrefixFrom(addrB, 32)
			for range 2 {
				a.waitsFor(t, "the key routes contains 0.0.0.0/0, which would lead the tunnel's own packets into six0 again")
				waitSource(t, n.a, n.c, addrC, addrA)
				must(t, n.a.AddRoute(host, first(addrA), ""))
				waitSource(t, n.a, n.c, addrC, addrB)
				waitSource(t, n.a, n.b, netip.MustParseAddr("10.0.0.2"), inA)
				must(t, n.a.DelRoute(host, first(addrA), ""))
			}
		})
	}
}
