package engine

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
)

// around returns what a peer waits for if one of the tunnel's routes would lead its outer
// packets into the tunnel itself, or "". The kernel chooses the longest prefix: a more
// specific route to the peer through another interface, such as a host route, prevents
// the loop. Without it the daemon does not add its own route, so that this host can still
// reach everything else.
//
// If the interface is in a namespace of its own, its routes do not affect outer packets. If
// outer packets have a mark, policy rules select their routing table.
func (t *tunnel) around(remote netip.Addr, answer netcfg.Answer) string {
	if t.cfg.Netns != "" || t.cfg.FwMark != 0 && t.cfg.FwMark != config.GatewayMark {
		return ""
	}
	first, least := netip.Prefix{}, 0
	if answer.Err == nil {
		least = answer.Bits
	}
	for p := range t.routesWith(remote) {
		if p.Bits() < least {
			continue
		}
		if !first.IsValid() || p.Bits() > first.Bits() {
			first = p
		}
		if !slices.Contains(t.held, p) {
			t.held = append(t.held, p)
		}
	}
	switch {
	case !first.IsValid():
		return ""
	case first.IsSingleIP():
		return fmt.Sprintf("a route to %v through the uplink: the key routes contains this address, so the tunnel's own packets would enter %s again: remove it from routes", remote, t.cfg.Name)
	}
	return fmt.Sprintf("a route to %v through the uplink: the key routes contains %v, which would lead the tunnel's own packets into %s again, so it is not set until there is such a route: ip route add %v/%d via GATEWAY dev UPLINK",
		remote, first, t.cfg.Name, remote, remote.BitLen())
}

// routesWith returns the configured routes that contain an outer address. While the peer's
// name is not resolved, it returns the default routes: they must not capture name look-ups.
func (t *tunnel) routesWith(remote netip.Addr) iter.Seq[netip.Prefix] {
	if len(t.cfg.Routes) == 0 || !remote.IsValid() && t.automatic() {
		return func(func(netip.Prefix) bool) {}
	}
	if t.sorted == nil || len(t.cfg.Routes) != t.sorted.n || &t.cfg.Routes[0] != t.sorted.first {
		t.sorted = newSortedRoutes(t.cfg.Routes)
	}
	within := netip.PrefixFrom(remote, remote.BitLen())
	if !remote.IsValid() && t.outerVersion() == 4 {
		within = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	} else if !remote.IsValid() {
		within = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return t.sorted.table.Supernets(within)
}

// sortedRoutes indexes the routes of a configuration by address: a hub may have as many
// routes as peers, and each peer is checked against all of them.
type sortedRoutes struct {
	table bart.Lite
	first *netip.Prefix // identifies the list of routes, together with n
	n     int
}

func newSortedRoutes(routes []netip.Prefix) *sortedRoutes {
	s := &sortedRoutes{first: &routes[0], n: len(routes)}
	for _, p := range routes {
		s.table.Insert(p)
	}
	return s
}

// routes returns the routes that the interface is to have now.
func (t *tunnel) routes() []netip.Prefix {
	if len(t.held) == 0 {
		return t.cfg.Routes
	}
	return slices.DeleteFunc(slices.Clone(t.cfg.Routes), func(p netip.Prefix) bool { return slices.Contains(t.held, p) })
}

// holdRoutes removes routes that are newly held back, and adds those that no longer are.
// Before is the previous list of routes held back.
func (t *tunnel) holdRoutes(before []netip.Prefix) {
	if t.Link == nil || slices.Equal(before, t.held) {
		return
	}
	routes := t.routes()
	if err := t.Link.RemoveOthers(t.addresses(), routes); err != nil {
		t.held = before // retry later
		t.Troubled(err)
		return
	}
	err := t.Link.AddPossible(t.addresses(), routes)
	if t.lack(err); err != nil {
		t.Troubled(err)
	}
}
