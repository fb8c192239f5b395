package engine

import (
	"iter"
	"net/netip"

	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/meeting"
	"sixfour/internal/ports"
)

// updateMeeting updates how the ends of a path find each other to its configuration.
func (e *Engine) updateMeeting(p *path) {
	spec := p.spec()
	if !meeting.Needs(spec) {
		p.meeting.Store(nil)
		return
	}
	if p.meeting.Load().Is(&p.t.cfg, &p.peer.cfg, spec) {
		return
	}
	p.meeting.Store(e.meetings.New(p, p.peer.name().String(), &p.t.cfg, &p.peer.cfg, spec))
}

// metConfig returns the configuration of the path with the port at which its peer is, or what the
// path waits for. Both addresses may be unknown.
func (e *Engine) metConfig(p *path, local, remote netip.Addr) (spec *config.Path, waiting string) {
	e.updateMeeting(p)
	m := p.meeting.Load()
	if m == nil {
		return p.spec(), ""
	}
	if m.Await(local, remote) {
		e.arrivals.Renew()
	}
	return m.Config()
}

// Awaits returns the port that must be open for the path before it has a wire.
func (p *path) Awaits(shards int) (k ports.Key, n ports.Need, ok bool) {
	if m := p.meeting.Load(); m != nil {
		return m.Port(shards)
	}
	return k, n, false
}

// meeting returns how the ends of all paths find each other for which that is needed.
func (e *Engine) meeting() iter.Seq[*meeting.Path] {
	return func(yield func(*meeting.Path) bool) {
		for _, t := range e.tunnels {
			for p := range t.paths() {
				if m := p.meeting.Load(); m != nil && !yield(m) {
					return
				}
			}
		}
	}
}

// followMoves applies what is new about where peers are.
func (e *Engine) followMoves() {
	for _, m := range e.meetings.Moves() {
		if p := m.Owner().(*path); !p.IsForgotten() && m.Apply() {
			e.evaluateOne(p)
		}
	}
}

// WireNow returns the wire by which the path's packets are exchanged; nil: none.
func (p *path) WireNow() *datapath.Wire {
	if !p.Listening.Load() {
		return nil
	}
	return p.Wire.Load()
}

// Note records an error of the path.
func (p *path) Note(text string) { p.report.Note(text) }

// Label returns what tells the path from the others of its peer, or "" if it is the only one.
func (p *path) Label() string { return p.report.Label() }
