package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

var (
	linkA = netip.MustParseAddr("fe80::1")
	linkB = netip.MustParseAddr("fe80::2")
)

// twoLinks is a host between two others, with the same link-local addresses on both
// links:
//
//	namespace b            namespace a            namespace c
//	fe80::2 vb ─────────── va fe80::1 wa ──────── wc fe80::2
func twoLinks(t *testing.T) (a, b, c *rig.Namespace) {
	t.Helper()
	a, b, c = newNamespace(t, "a"), newNamespace(t, "b"), newNamespace(t, "c")
	for _, l := range []struct {
		ours, theirs string
		far          *rig.Namespace
	}{{"va", "vb", b}, {"wa", "wc", c}} {
		must(t, rig.Veth(a, l.ours, l.far, l.theirs, 1500))
		must(t, a.AddAddr(l.ours, netip.PrefixFrom(linkA, 64)))
		must(t, l.far.AddAddr(l.theirs, netip.PrefixFrom(linkB, 64)))
	}
	return a, b, c
}

// linkEnd is one end of a tunnel between link-local addresses.
func linkEnd(name, mode, local, remote, inner string) string {
	return fmt.Sprintf("[[tunnel]]\nname = %q\nmode = %q\nlocal = %q\nremote = %q\naddress = [%q]\n", name, mode, local, remote, inner)
}

// The ends of a tunnel may be link-local addresses, each with its interface: the same pair
// on two links is two peers. If an interface is deleted and made again, the tunnel works
// again.
func TestLinkLocalEnds(t *testing.T) {
	for _, mode := range []string{"4in6", "6in6", "gre6"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			a, b, c := twoLinks(t)
			inner := func(net, host int) string {
				if mode == "6in6" {
					return fmt.Sprintf("fd00:%d::%d/64", net, host)
				}
				return fmt.Sprintf("10.0.%d.%d/30", net, host)
			}
			addr := func(net, host int) netip.Addr { return netip.MustParsePrefix(inner(net, host)).Addr() }
			d := start(t, a, linkEnd("six0", mode, "fe80::1%va", "fe80::2%va", inner(1, 1))+often+"\n"+linkEnd("six1", mode, "auto", "fe80::2%wa", inner(2, 1))+often+"\n")
			start(t, b, linkEnd("six0", mode, "fe80::2%vb", "fe80::1%vb", inner(1, 2)))
			start(t, c, linkEnd("six0", mode, "auto", "fe80::1%wc", inner(2, 2)))
			for i, far := range []*rig.Namespace{b, c} {
				reachable(t, a, addr(i+1, 2))
				reachable(t, far, addr(i+1, 1))
				pings(t, a, addr(i+1, 2), rig.PingOptions{Size: 4000})
				transfer(t, a, far, addr(i+1, 2), 1<<20)
			}
			s, err := client.Status(t.Context(), d.socket)
			must(t, err)
			for i, dev := range []string{"va", "wa"} {
				state := s.Tunnels[i].State
				if state.Remote != "fe80::2%"+dev || !strings.HasSuffix(state.Local, "%"+dev) || len(s.Tunnels[i].In.Drops) > 0 {
					t.Errorf("%+v, %v", state, s.Tunnels[i].In.Drops)
				}
			}

			link, err := a.Handle().LinkByName("va")
			must(t, err)
			must(t, a.Handle().LinkDel(link))
			d.waitsFor(t, "there is no interface va")
			must(t, rig.Veth(a, "va", b, "vb", 1500))
			must(t, a.AddAddr("va", netip.PrefixFrom(linkA, 64)))
			must(t, b.AddAddr("vb", netip.PrefixFrom(linkB, 64)))
			reachable(t, a, addr(1, 2))
			reachable(t, a, addr(2, 2))
		})
	}
}

// An uplink may have only a link-local address, from which packets are then sent.
func TestLinkLocalUplink(t *testing.T) {
	t.Parallel()
	a, b, _ := twoLinks(t)
	must(t, b.AddAddr("vb", netip.PrefixFrom(outer6B, 64)))
	must(t, a.AddRoute(netip.PrefixFrom(outer6B, 64).Masked(), netip.Addr{}, "va"))
	d := start(t, a, linkEnd("six0", "4in6", "auto", outer6B.String(), "10.0.0.1/30"))
	start(t, b, linkEnd("six0", "4in6", outer6B.String(), "fe80::1%vb", "10.0.0.2/30"))
	_, s := d.status(t)
	if !strings.HasPrefix(s.State.Local, "fe80::") || !strings.HasSuffix(s.State.Local, "%va") {
		t.Error(errors.New(s.State.Local))
	}
	reachable(t, a, inB)
	pings(t, b, inA, rig.PingOptions{Size: 4000})
}
