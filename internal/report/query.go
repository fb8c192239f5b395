package report

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/selection"
)

// Phase returns the present phase, and its detail: what the path waits for, or why the peer
// is not up.
func (p *Path) Phase() (phase api.Phase, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Phase, p.state.Detail
}

// WasUp reports whether the path was up at some time since the last call.
func (p *Path) WasUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.wasUp
	p.wasUp = false
	return was
}

// UsesXDP sets why the path's packets do not leave through AF_XDP though they should; nil: they
// do. A new reason is logged, as a warning if they must. A hub may have thousands of peers:
// what is usual is logged at debug level there, and a reason that several peers share is
// logged once. The control loop calls it.
func (p *Path) UsesXDP(err error, must, usual bool) {
	before := p.noXDP
	if p.noXDP = ""; err != nil {
		p.noXDP = err.Error()
	} else {
		p.t.noXDP = ""
	}
	p.mu.Lock()
	p.state.IOWhy, p.state.IOWanted = p.noXDP, wantedXDP(p.noXDP)
	p.mu.Unlock()
	if err == nil || p.noXDP == before {
		return
	}
	level := zap.InfoLevel
	if must {
		level = zap.WarnLevel
	}
	if p.t.hub && (usual || p.noXDP == p.t.noXDP) {
		level = zap.DebugLevel
	} else {
		p.t.noXDP = p.noXDP
	}
	p.logAt(level, "packets leave through a socket, not through AF_XDP", zap.Error(err))
}

// wantedXDP returns how packets should leave if there is a reason why they do not.
func wantedXDP(why string) string {
	if why == "" {
		return ""
	}
	return "xdp"
}

// LastError returns the last error after the given time, if there is one.
func (p *Path) LastError(since time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trouble != nil && p.trouble.At.After(since) {
		return p.trouble.What
	}
	return ""
}

// Measured returns what was measured of the path, for the policy that chooses among the paths
// of a peer. A path is usable if packets can be sent.
func (p *Path) Measured(usable bool) selection.Measured {
	p.mu.Lock()
	defer p.mu.Unlock()
	return selection.Measured{
		Usable: usable, Phase: p.state.Phase, Since: p.state.Since, Doubt: p.doubt, Heard: p.liveness.LastPacket,
		RTT: time.Duration(p.liveness.RTT * float64(time.Second)), Loss: p.liveness.Loss,
	}
}

// Status returns the status of the path, as that of the peer. The tunnel has the given MTU.
func (p *Path) Status(probes api.Probes, tunnelMTU int) api.PeerStatus {
	d := p.path
	s := api.PeerStatus{
		Peer:       p.peer,
		In:         d.In.Traffic(),
		Out:        d.Out.Traffic(),
		Answered:   d.Requests.Answered.Load(),
		ICMP:       api.ICMP{ReceivedTypes: d.ICMP.Errors.Types(), Ignored: d.ICMP.Ignored.Load()},
		Probes:     probes,
		InvalidECN: d.Record.OddECN(),
		IDRepeats:  d.Record.Wraps(),
	}
	s.ICMP.Received = s.ICMP.ReceivedTypes.Total()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.Liveness = p.state, p.liveness
	p.kernel.show(&s.State)
	if s.State.Phase.Carries() {
		s.State.TunnelMTU = tunnelMTU
	}
	if p.trouble != nil {
		t := *p.trouble
		s.LastError = &t
	}
	if p.outage != nil {
		o := *p.outage
		s.LastDown = &o
	}
	return s
}

// StateOf returns the state of a path with a wire: how packets leave, its MTU, and the
// addresses of the outermost layer and of the innermost layer over IPv6 inside it.
func StateOf(wire *datapath.Wire) (s api.State) {
	layers, outer := wire.Layers, wire.Outer()
	s.IO, s.PathMTU, s.PathMTUBy = "socket", int(wire.MTU), string(wire.By)
	if wire.Hop.Port != nil {
		s.IO = "xdp"
	}
	s.Local, s.Remote = Named(outer.Local, wire.Hop.Interface), "any"
	if outer.Resolver == nil {
		s.Remote = Named(outer.Remote, wire.Hop.Interface)
	}
	for _, l := range layers[:len(layers)-1] {
		if l.Kind.Over() == 6 {
			s.Local6, s.Remote6 = l.Local.String(), l.Remote.String()
			break
		}
	}
	return s
}

// Named formats an address, with the interface's name as its zone, for messages.
func Named(a netip.Addr, device string) string {
	if a.Zone() != "" {
		a = a.WithZone(device)
	}
	return a.String()
}
