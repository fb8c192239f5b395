package engine

import (
	"errors"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/kernelpath"
	"sixfour/internal/netcfg"
	"sixfour/internal/xdpports"
)

// wantsXDP reports whether a tunnel may use AF_XDP.
func (t *tunnel) wantsXDP() bool { return t.cfg.IO == config.IOXDP || t.cfg.IO == config.IOAuto }

// findHop returns the next hop through the route's device if the tunnel is to use AF_XDP
// and the device supports it.
func (e *Engine) findHop(p *path, l *encap.Layer, route netcfg.Route) datapath.Hop {
	t := p.t
	if !t.wantsXDP() || t.automatic() || kernelpath.Wanted(&t.cfg) && !p.peer.kernel.Load().Refused() {
		return datapath.Hop{}
	}
	h, err := e.arrivals.XDP.Hop(e.router, l, t.cfg.FwMark, route)
	p.report.UsesXDP(err, t.cfg.IO == config.IOXDP, errors.Is(err, xdpports.ErrNoNeighbour))
	return h
}

// mayBypass reports whether packets of a tunnel may bypass the kernel's IP layer.
func (t *tunnel) mayBypass() bool { return t.wantsXDP() || kernelpath.Wanted(&t.cfg) }

// readPolicies reads this host's IPsec policies if packets may bypass the kernel's IP layer.
func (e *Engine) readPolicies() {
	if slices.ContainsFunc(e.tunnels, (*tunnel).mayBypass) {
		policies, err := e.router.Policies()
		e.arrivals.XDP.SetPolicies(policies, err)
		e.carrier.SetPolicies(policies, err)
	}
}

// nextDue returns the time until the next work of the control loop: an interface to check,
// a peer to move to another address of its name, or a port to retry. It returns most if
// that is less. A port whose retry time has passed is not needed any more.
func (e *Engine) nextDue(most time.Duration) time.Duration {
	for _, t := range e.tunnels {
		most = t.Due(most, settle)
	}
	if !e.loop.moveAt.IsZero() {
		most = min(most, max(time.Until(e.loop.moveAt), settle))
	}
	if next := e.arrivals.XDP.NextRetry(time.Now()); !next.IsZero() {
		most = min(most, max(0, time.Until(next))+settle)
	}
	return most
}
