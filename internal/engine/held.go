package engine

import (
	"fmt"
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
)

// around says what a peer waits for whose outer packets one of the tunnel's routes
// would lead into the tunnel itself, or "". The kernel chooses the longest prefix: a
// route that has a longer one around the peer, such as a host route, keeps them out.
// Without it that route of ours is held back, so that this host keeps its way to
// everything else.
//
// In a namespace of its own the interface's routes do not concern outer packets, and
// where they have a mark, rules say which table they go by.
func (t *tunnel) around(remote netip.Addr, answer netcfg.Answer) string {
	if t.cfg.Netns != "" || t.cfg.FwMark != 0 && t.cfg.FwMark != config.GatewayMark {
		return ""
	}
	var first netip.Prefix
	for _, p := range t.cfg.Routes {
		if !t.leadsBack(p, remote, answer) {
			continue
		}
		if !first.IsValid() {
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
		return fmt.Sprintf("a route to %v through the uplink: routes has it, so that the tunnel's own packets would come into %s again: leave it out", remote, t.cfg.Name)
	}
	return fmt.Sprintf("a route to %v through the uplink: routes has %v, which would lead the tunnel's own packets into %s again, and is held back until then: ip route add %v/%d via GATEWAY dev UPLINK",
		remote, first, t.cfg.Name, remote, remote.BitLen())
}

// leadsBack reports whether a route into the tunnel would take outer packets. While the
// peer's name is not known everything may be needed to look it up.
func (t *tunnel) leadsBack(p netip.Prefix, remote netip.Addr, answer netcfg.Answer) bool {
	if !remote.IsValid() {
		return p.Bits() == 0 && p.Addr().Is4() == (t.outerVersion() == 4) && !t.automatic()
	}
	return p.Contains(remote) && (answer.Err != nil || answer.Bits <= p.Bits())
}

// routes are those that the interface is to have now.
func (t *tunnel) routes() []netip.Prefix {
	if len(t.held) == 0 {
		return t.cfg.Routes
	}
	return slices.DeleteFunc(slices.Clone(t.cfg.Routes), func(p netip.Prefix) bool { return slices.Contains(t.held, p) })
}

// holdRoutes takes routes back that are to be held back, and adds those that are not
// to be any more. Before is what was held back until now.
func (t *tunnel) holdRoutes(before []netip.Prefix) {
	if t.link == nil || slices.Equal(before, t.held) {
		return
	}
	routes := t.routes()
	if err := t.link.Leave(t.addresses(), routes); err != nil {
		t.held = before // and try again
		t.troubled(&t.warned.state, err)
		return
	}
	err := t.link.TakeSome(t.addresses(), routes)
	if t.lack(err); err != nil {
		t.troubled(&t.warned.state, err)
	}
}
