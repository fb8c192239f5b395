package engine

import (
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
)

// around returns what a peer waits for if one of the tunnel's routes would lead its outer
// packets into the tunnel itself, or "".
//
// If the interface is in a namespace of its own, its routes do not affect outer packets. If
// outer packets have a mark, policy rules select their routing table.
func (t *tunnel) around(remote netip.Addr, answer netcfg.Answer) string {
	if t.cfg.Netns != "" || t.cfg.FwMark != 0 && t.cfg.FwMark != config.GatewayMark || !remote.IsValid() && t.automatic() {
		return ""
	}
	return t.held.Check(t.cfg.Name, t.cfg.Routes, remote, t.outerVersion(), answer)
}

// routes returns the routes that the interface is to have now.
func (t *tunnel) routes() []netip.Prefix { return t.held.Rest(t.cfg.Routes) }

// holdRoutes removes routes that are newly held back, and adds those that no longer are.
// Before is the previous list of routes held back.
func (t *tunnel) holdRoutes(before []netip.Prefix) {
	if t.Link == nil || slices.Equal(before, t.held.Routes) {
		return
	}
	if !t.Change(t.addresses(), t.routes()) {
		t.held.Routes = before // retry later
	}
}
