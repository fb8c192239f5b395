package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/events"
	"sixfour/internal/iface"
	"sixfour/internal/keepalive"
	"sixfour/internal/netcfg"
	"sixfour/internal/rig"
)

// Which routes are held back, depending on the prefix of the kernel's route to the remote
// address.
func TestHeldRoutes(t *testing.T) {
	all := []string{"0.0.0.0/0", "203.0.0.0/16", "203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8", "::/0"}
	var routes []netip.Prefix
	for _, r := range all {
		routes = append(routes, netip.MustParsePrefix(r))
	}
	for _, c := range []struct {
		name   string
		remote string
		bits   int // prefix length of the kernel's route; -1: no route
		change func(*config.Tunnel)
		held   []string
	}{
		{"host route", "203.0.113.20", 32, nil, nil},
		{"the uplink's subnet", "203.0.113.20", 24, nil, all[2:3]},
		{"default route", "203.0.113.20", 0, nil, all[:3]},
		{"none", "203.0.113.20", -1, nil, all[:3]},
		{"to the peer alone", "203.0.113.9", 32, nil, all[3:4]},
		{"another address", "192.0.2.1", 8, nil, nil},
		{"name not known yet", "", 0, nil, all[:1]},
		{"with a mark", "203.0.113.20", 0, func(c *config.Tunnel) { c.FwMark = 1 }, nil},
		{"with the gateway's", "203.0.113.20", 0, func(c *config.Tunnel) { c.FwMark = config.GatewayMark }, all[:3]},
		{"in a namespace", "203.0.113.20", 0, func(c *config.Tunnel) { c.Netns = "x" }, nil},
	} {
		tun := tunnelOf(config.Tunnel{Name: "six0", Interface: config.Interface{Routes: routes}, Mode: encap.Mode{Layers: []encap.Kind{encap.SixInFour}}})
		if c.change != nil {
			c.change(&tun.cfg)
		}
		var remote netip.Addr
		if c.remote != "" {
			remote = netip.MustParseAddr(c.remote)
		}
		answer := netcfg.Answer{Route: netcfg.Route{Bits: c.bits}}
		if c.bits < 0 {
			answer = netcfg.Answer{Err: errors.New("none")}
		}
		waiting := tun.around(remote, answer)
		var held []string
		for _, p := range tun.held.Routes {
			held = append(held, p.String())
		}
		slices.Sort(held)
		if fmt.Sprint(held) != fmt.Sprint(c.held) || (waiting == "") != (c.held == nil) || len(tun.routes()) != len(routes)-len(c.held) {
			t.Errorf("%s: holds %v back, waits for %q, want %v", c.name, held, waiting, c.held)
		}
	}
}

// A route that a single peer's evaluation holds back leaves the interface at once.
func TestHeldByOnePeer(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ns, err := rig.New("held")
	must(err)
	t.Cleanup(ns.Close)
	routes := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("10.9.0.0/16")}
	tun, p, _ := wired(t)
	tun.cfg.Routes = routes
	tun.cfg.Mode = encap.Mode{Layers: []encap.Kind{encap.FourInSix, encap.SixInFour}}
	tun.cfg.Address = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/30")}
	tun.Link, err = iface.Open(iface.Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 1, Addresses: tun.cfg.Address, Routes: routes})
	must(err)
	t.Cleanup(func() { tun.Link.Close() })
	p.peer.cfg.Paths[0].Remote.Addr = netip.MustParseAddr("203.0.113.20")
	tun.workers.Keeper, tun.report.Events = keepalive.New(func() {}), new(events.Log)
	tun.Lack(nil)
	e := &Engine{log: zap.NewNop(), running: running{tunnels: []*tunnel{tun}}}
	e.arrivals = arrivalsOf(e, refusing{})
	must(ns.Do(func() (err error) { e.router, err = netcfg.NewRouter(); return err }))
	t.Cleanup(func() { e.router.Close() })
	device, err := ns.Handle().LinkByName("six0")
	must(err)
	through := func() (dst []string) {
		list, err := ns.Handle().RouteList(device, netlink.FAMILY_V4)
		must(err)
		for _, r := range list {
			if p := r.Dst.String(); p != "10.0.0.0/30" {
				dst = append(dst, p)
			}
		}
		slices.Sort(dst)
		return dst
	}
	if got, want := fmt.Sprint(through()), "[10.9.0.0/16 203.0.113.0/24]"; got != want {
		t.Fatalf("at the start: %s, want %s", got, want)
	}
	e.evaluateOne(p) // the peer's host route through the uplink is gone
	if got, want := fmt.Sprint(through()), "[10.9.0.0/16]"; got != want {
		t.Errorf("routes through the interface: %s, want %s; held back: %v", got, want, tun.held.Routes)
	}
}
