package engine

import (
	"net/netip"
	"slices"

	"sixfour/internal/gateway"
	"sixfour/internal/report"
)

// syncGateway updates the gateway to the tunnels, and reports whether it has been in order at
// least once.
func (e *Engine) syncGateway() (worked bool) {
	states := make([]gateway.TunnelState, len(e.tunnels))
	for i, t := range e.tunnels {
		states[i] = t.forGateway()
	}
	restored, worked := e.gateway.Sync(states)
	if restored != "" {
		for i, t := range e.tunnels {
			if e.gateway.Carries(states[i]) {
				t.report.Repaired(report.Route, restored)
			}
		}
	}
	return worked
}

// forGateway returns what the gateway needs to know about the tunnel.
func (t *tunnel) forGateway() gateway.TunnelState {
	s := gateway.TunnelState{
		Tunnel: gateway.Tunnel{
			Interface: t.cfg.Name, IPv4: t.cfg.Mode.Carries(4),
			IPv6: slices.ContainsFunc(t.cfg.Address, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsPrivate() }),
		},
		Mark: t.cfg.FwMark, Elsewhere: t.cfg.Netns != "", Share: gateway.ShareOf(&t.cfg),
		HasPath: t.anyPath(func(p *path) bool { return p.Wire.Load() != nil }),
	}
	if t.Link != nil {
		s.Index = t.Link.Index()
	}
	return s
}
