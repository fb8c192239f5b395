package engine

import (
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/keepalive"
	"sixfour/internal/liveness"
	"sixfour/internal/probing"
)

// ReportedTooBig handles a router's report about the path MTU.
func (p *path) ReportedTooBig(mtu encap.PathMTU, q encap.Quote, err icmp.Error) {
	p.t.finder.ReportedTooBig(p.search, mtu, q, err)
}

// ReportedUnreachable handles an ICMP error that says that the peer cannot be reached.
func (p *path) ReportedUnreachable(from netip.Addr, err icmp.Error) {
	p.report.NoteICMP(from, err)
	p.far.Doubt()
	p.t.keeper.Unreachable(p.life)
}

// Reported handles an ICMP error about a probe of the peer's outer address.
func (p *path) Reported(from netip.Addr, err icmp.Error) { p.report.NoteICMP(from, err) }

// LargeSent starts the search for the path MTU: large packets were sent on the path.
func (p *path) LargeSent() { p.t.finder.Watch(p.search) }

// HopRefused reports to the control loop a destination of an automatic tunnel that is
// behind another device than the rest, with a smaller MTU.
func (p *path) HopRefused(dst netip.Addr) {
	select {
	case p.t.toLoop <- tooLong{p, dst}:
	default: // the sender will retry
	}
}

// Notify tells those that wait for it that a packet has arrived.
func (p *path) Notify(flags uint32) {
	if flags&datapath.NoticeMTU != 0 {
		p.t.finder.Arrived(p.search)
	}
	if flags&datapath.NoticeLiveness != 0 {
		p.t.keeper.Arrived(p.life)
	}
	if flags&datapath.NoticeSent != 0 {
		p.t.keeper.Departed(p.life)
	}
}

// AnsweredMTU passes on an answer to a path MTU probe.
func (p *path) AnsweredMTU(seq uint16) { p.t.finder.Answered(p.search, seq) }

// AnsweredLiveness passes on an answer to a probe of a liveness session.
func (p *path) AnsweredLiveness(a probing.LivenessAnswer) { p.t.keeper.Answered(p.life, a) }

// Recovered counts and reports a panic while doing something for the tunnel.
func (t *tunnel) Recovered(doing string) { t.report.Panicked(doing) }

// SendFailed records that the kernel refused to send a packet. If there is another path, this
// one is probed, because the kernel may refuse only some packets.
func (p *path) SendFailed(err error) {
	if p.report.SendFailed(err) && len(p.peer.paths) > 1 {
		p.t.keeper.Unreachable(p.life)
	}
}

// SetRole sets for what the path is used.
func (p *path) SetRole(r liveness.Role) { p.t.keeper.SetRole(p.life, r) }

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
