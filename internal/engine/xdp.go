package engine

import (
	"errors"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/netcfg"
	"sixfour/internal/wiring"
	"sixfour/internal/xdpports"
)

// wantsXDP reports whether a tunnel may use AF_XDP.
func (t *tunnel) wantsXDP() bool { return t.cfg.IO != config.IOSocket }

// findHop returns the next hop through the route's device if the tunnel is to use AF_XDP
// and the device supports it.
func (e *Engine) findHop(p *path, l *encap.Layer, route netcfg.Route) datapath.Hop {
	t := p.t
	if !t.wantsXDP() || t.automatic() {
		return datapath.Hop{}
	}
	var h datapath.Hop
	err := errUDP
	if !wiring.HasPorts(l.Kind) {
		h, err = e.arrivals.XDP.Hop(e.router, l, t.cfg.FwMark, route)
	}
	p.report.UsesXDP(err, t.cfg.IO == config.IOXDP, errors.Is(err, xdpports.ErrNoNeighbour))
	return h
}

var errUDP = errors.New("its packets are UDP, which leaves through a socket of its own")

// readPolicies reads this host's IPsec policies if a tunnel may use AF_XDP.
func (e *Engine) readPolicies() {
	if slices.ContainsFunc(e.tunnels, (*tunnel).wantsXDP) {
		e.arrivals.XDP.ReadPolicies(e.router)
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
