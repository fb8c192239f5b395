package engine

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

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
	if wiring.HasPorts(l.Kind) {
		p.logNoXDP(errUDP)
		p.report.SetIOWhy(p.noXDP)
		return datapath.Hop{}
	}
	h, err := e.arrivals.XDP.Hop(e.router, l, t.cfg.FwMark, route)
	if err != nil {
		p.logNoXDP(err)
	} else {
		p.noXDP, t.noXDP = "", ""
	}
	p.report.SetIOWhy(p.noXDP)
	return h
}

var errUDP = errors.New("its packets are UDP, which leaves through a socket of its own")

// logNoXDP logs why packets leave through a socket, if the reason is new. A hub may
// have thousands of peers: unresolved neighbours are logged at debug level only, and a
// fault of the device is logged once.
func (p *path) logNoXDP(err error) {
	t, why := p.t, err.Error()
	if why == p.noXDP {
		return
	}
	level := zap.InfoLevel
	if t.cfg.IO == config.IOXDP {
		level = zap.WarnLevel
	}
	if t.only == nil && (errors.Is(err, xdpports.ErrNoNeighbour) || why == t.noXDP) {
		level = zap.DebugLevel
	} else {
		t.noXDP = why
	}
	p.noXDP = why
	p.report.Log().Log(level, "packets leave through a socket, not through AF_XDP", zap.Error(err))
}

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

// ioOf returns how packets leave by a wire.
func ioOf(w *datapath.Wire) config.IO {
	if w.Hop.Port != nil {
		return config.IOXDP
	}
	return config.IOSocket
}
