package engine

import (
	"net/netip"

	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/keepalive"
	"sixfour/internal/liveness"
)

// ReportedUnreachable handles an ICMP error that says that the peer cannot be reached.
func (p *path) ReportedUnreachable(from netip.Addr, err icmp.Error) {
	p.report.NoteICMP(from, err)
	p.peer.kernel.Load().Rest()
	p.far.Doubt()
	p.Doubt()
}

// Reported handles an ICMP error about a probe of the peer's outer address.
func (p *path) Reported(from netip.Addr, err icmp.Error) { p.report.NoteICMP(from, err) }

// HopRefused reports to the control loop a destination of an automatic tunnel that is
// behind another device than the rest, with a smaller MTU.
func (p *path) HopRefused(dst netip.Addr) {
	select {
	case p.t.toLoop <- tooLong{p, dst}:
	default: // the sender will retry
	}
}

// Recovered counts and reports a panic while doing something for the tunnel.
func (t *tunnel) Recovered(doing string) { t.report.Panicked(doing) }

// SendFailed records that the kernel refused to send a packet. If there is another path, this
// one is probed, because the kernel may refuse only some packets.
func (p *path) SendFailed(err error) {
	if p.report.SendFailed(err) && len(p.peer.paths) > 1 {
		p.Doubt()
	}
}

// phases are the phases of a path with liveness sessions.
var phases = map[liveness.State]api.Phase{liveness.Unknown: api.Probing, liveness.Up: api.Up, liveness.Suspect: api.Suspect, liveness.Down: api.Down}

// Liveness updates the state of the path, and which paths the peer uses. It reports whether
// the path may have another address that works.
func (p *path) Liveness(r *keepalive.Result) bool {
	phase := phases[r.State]
	changed := p.report.Liveness(r, phase)
	p.peer.choose()
	if m := p.meeting.Load(); m != nil && changed && phase == api.Suspect {
		m.Wake()
	}
	if changed && (phase == api.Suspect || phase == api.Down) || r.Counts.Missed > 0 && phase == api.Down {
		p.far.Doubt()
	}
	return changed && phase == api.Down && p.far.HasAlternatives()
}
