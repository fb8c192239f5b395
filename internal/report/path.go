package report

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/keepalive"
)

// Path reports on a path to a peer. Any goroutine may call its methods, except for those that
// are for the control loop.
type Path struct {
	t    *Tunnel
	peer string // its name
	path *datapath.Path

	lastRoute lastRoute    // used by the control loop only
	noXDP     string       // why packets do not leave through AF_XDP though they should; the same
	irregular irregular    // the same
	refused   atomic.Int64 // when a send failure was last examined, in ns since the epoch

	mu       sync.Mutex // guards the fields below
	state    api.State
	liveness api.Liveness
	trouble  *api.Fault  // the last error; nil: none so far
	outage   *api.Outage // the last one; nil: none so far
	doubt    bool        // as in keepalive.Result
	kernel   inKernel    // whether packets are carried there
	wasUp    bool        // up at some time since WasUp was last called
}

// NewPath returns what reports on a path to a peer, the only one.
func NewPath(t *Tunnel, peer string, p *datapath.Path) *Path {
	return &Path{t: t, peer: peer, path: p, state: api.State{Phase: api.Starting, Since: time.Now()}}
}

// Place sets the index of the path, from 0, and the number of paths to the peer.
func (p *Path) Place(index, paths int) {
	if paths == 1 {
		p.path.Number.Store(0)
	} else {
		p.path.Number.Store(int32(index) + 1)
	}
}

// Label returns what tells the path from the others of its peer in messages, or "" if it is
// the only one.
func (p *Path) Label() string {
	if i := p.path.Number.Load(); i > 0 {
		return fmt.Sprintf("path %d", i)
	}
	return ""
}

// Log returns the tunnel's logger, with the names of the peer and of the path if they have
// any.
func (p *Path) Log() *zap.Logger {
	l := p.t.log
	if p.peer != "" {
		l = l.With(zap.String("peer", p.peer))
	}
	if i := p.path.Number.Load(); i > 0 {
		l = l.With(zap.Int32("path", i))
	}
	return l
}

// logAt logs at a level, with the logger that Log returns. To make that logger takes longer
// than all the rest of a change of state, and there may be many paths, so logAt does not do
// it in vain.
func (p *Path) logAt(level zapcore.Level, text string, fields ...zap.Field) {
	if p.t.log.Core().Enabled(level) {
		p.Log().Log(level, text, fields...)
	}
}

// RelaysDown reports that other relays and routers of an automatic tunnel are down than
// before, of which some are newly down, and where packets go now.
func (p *Path) RelaysDown(newly, down []netip.Addr, inUse netip.Addr) {
	for _, a := range newly {
		p.Log().Warn("a relay or router is down", zap.Stringer("address", a), zap.Stringer("packets_go_to", inUse))
	}
	text := fmt.Sprintf("packets whose destination contains no outer address go to %v", inUse)
	if len(down) > 0 {
		text += fmt.Sprintf(", because %v is down", down)
	}
	p.Event(api.EventState, text)
}

// Event adds an event about the path.
func (p *Path) Event(kind, text string) {
	if l := p.Label(); l != "" {
		text = l + ": " + text
	}
	p.t.Events.Add(api.Event{At: time.Now(), Tunnel: p.t.name, Peer: p.peer, Kind: kind, Text: text})
}

// Repaired counts and reports a repair for the path.
func (p *Path) Repaired(r Repair, text string) {
	p.t.Count(r)
	p.Event(api.EventRepair, text)
}

// Waits records that no packets can be sent until something is there, and logs it if it is
// new. That is no problem if it is expected to be there soon. The control loop calls it.
func (p *Path) Waits(reason string, expected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Phase == api.Waiting && p.state.Detail == reason {
		return
	}
	before := p.state
	p.state = api.State{Phase: api.Waiting, Since: time.Now(), Detail: reason}
	if before.Phase.Carries() {
		p.beginOutage("it waits for " + reason)
	}
	p.Event(api.EventState, "waiting for "+reason)
	level := p.t.waitingLevel()
	if expected {
		level = p.t.Level()
	}
	p.logAt(level, "waiting", zap.String("for", reason))
}

// beginOutage records that the peer cannot be reached from now on. p.mu must be held.
func (p *Path) beginOutage(why string) {
	if p.outage == nil || !p.outage.Until.IsZero() {
		p.outage = &api.Outage{From: time.Now(), Why: why}
	}
}

// endOutage records that the peer can be reached again. p.mu must be held.
func (p *Path) endOutage() {
	if p.outage != nil && p.outage.Until.IsZero() {
		p.outage.Until = time.Now()
	}
}

// Uses sets how packets are sent: the IO, the ends, and the path MTU in a state. If the ends
// have changed, it is unknown again whether the peer is up, provided that it is checked. The
// control loop calls it.
func (p *Path) Uses(now api.State, checked bool, tunnelMTU int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.state
	now.Phase, now.Since, now.Detail, now.IOWhy = before.Phase, before.Since, before.Detail, p.noXDP
	now.IOWanted = wantedXDP(p.noXDP)
	if !before.Phase.Carries() || !now.SameEnds(before) || before.Phase != api.Up && !checked {
		now.Phase, now.Since, now.Detail = firstPhase(checked), time.Now(), ""
	}
	p.state = now
	if before.Phase.Carries() && before.PathMTU != now.PathMTU {
		p.Event(api.EventPathMTU, fmt.Sprintf("path MTU %d (%s), was %d", now.PathMTU, now.PathMTUBy, before.PathMTU))
	}
	if now.SameEnds(before) && now.IO == before.IO && now.Phase == before.Phase { // nothing else is new
		if now != before {
			p.logAt(p.t.Level(), "path MTU", zap.Int("path_mtu", now.PathMTU), zap.String("by", now.PathMTUBy), zap.Int("before", before.PathMTU))
		}
		return
	}
	if before.Phase.Carries() && !now.SameEnds(before) {
		what := fmt.Sprintf("outer addresses %s > %s, were %s > %s", now.Local, now.Remote, before.Local, before.Remote)
		p.Event(api.EventAddress, what)
	}
	if now.Phase != before.Phase {
		p.Event(api.EventState, string(now.Phase))
	}
	if now.Phase == api.Up {
		p.endOutage()
	}
	p.logAt(p.t.Level(), string(now.Phase), zap.String("local", now.Local), zap.String("remote", now.Remote), zap.String("io", now.IO),
		zap.Int("path_mtu", now.PathMTU), zap.String("path_mtu_by", now.PathMTUBy), zap.Int64("mtu", tunnelMTU))
}

// firstPhase returns the phase of a path that can send packets now.
func firstPhase(checked bool) api.Phase {
	if checked {
		return api.Probing
	}
	return api.Up
}

// Liveness updates the state to the result of liveness checks, and reports whether the phase, or the reason
// for it, has changed. It ignores results of a path that was replaced.
func (p *Path) Liveness(r *keepalive.Result, phase api.Phase) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks(p.liveness.Marks, r.Counts.Marks)
	p.liveness, p.doubt = r.Counts, r.Doubt
	before := p.state
	wire := p.path.Wire.Load()
	if wire == nil || !before.Phase.Carries() || !r.IsAbout(wire) {
		return false
	}
	detail := ""
	if phase == api.Up && r.OnlyHost {
		detail = onlyHostAnswers
	}
	if before.Phase == phase && (!r.OneWay || before.Detail == NoAnswers) {
		if phase == api.Up {
			p.state.Detail = detail
		}
		return false
	}
	p.state.Detail = detail
	if before.Phase != phase {
		p.state.Phase, p.state.Since = phase, time.Now()
	}
	text := string(phase)
	switch phase {
	case api.Suspect, api.Down:
		if p.state.Detail = p.silence(r); r.OneWay {
			p.state.Detail = NoAnswers
			p.trouble = &api.Fault{At: time.Now(), What: NoAnswers}
		}
		text += ": " + p.state.Detail
		if phase == api.Down {
			p.beginOutage(p.state.Detail)
		}
		p.logAt(p.t.FallLevel(zap.WarnLevel), string(phase), zap.String("remote", Named(r.Remote, wire.Hop.Interface)), zap.String("why", p.state.Detail))
	case api.Up:
		p.wasUp = true
		p.endOutage()
		level := p.t.Level() // an ordinary change after the start
		if before.Phase != api.Probing {
			level = p.t.lifeLevel(p.t.returns, zap.InfoLevel)
		}
		fields := []zap.Field{zap.String("remote", Named(r.Remote, wire.Hop.Interface))}
		if r.RTT > 0 {
			text += fmt.Sprintf(", RTT %v", r.RTT.Round(time.Microsecond))
			fields = append(fields, zap.Duration("rtt", r.RTT))
		}
		p.logAt(level, "up", fields...)
	}
	p.Event(api.EventState, text)
	return true
}

// marks reports that probes have shown whether congestion marks reach the peer. p.mu must be
// held.
func (p *Path) marks(before, now api.Marks) {
	switch {
	case now == before:
	case now == api.MarksRemoved:
		p.Event(api.EventECN, MarksRemoved)
		p.Log().Log(p.t.FallLevel(zap.WarnLevel), MarksRemoved)
	case now == api.MarksKept && before == api.MarksRemoved:
		p.Event(api.EventECN, "ECN congestion marks reach the peer again")
	}
}

// MarksRemoved says that marks do not reach the peer.
const MarksRemoved = "ECN congestion marks do not reach the peer: the path removes them, or the peer does not copy them (RFC 6040)"

// onlyHostAnswers is the detail of a peer that is up only because its outer address answers
// pings.
const onlyHostAnswers = "its host answers pings, but nothing comes through the tunnel"

// NoAnswers is the reason why a peer that still sends packets is suspect.
const NoAnswers = "packets come from it, but it no longer answers probes: our packets may not reach it"

// silence returns why a peer is suspect or down. p.mu must be held.
func (p *Path) silence(r *keepalive.Result) string {
	l := r.Counts
	why := fmt.Sprintf("%d probes in a row were not answered", l.Missed)
	if l.LastPacket.IsZero() {
		why += ", and no packet was received"
	} else {
		why += fmt.Sprintf(", silent for %v", time.Since(l.LastPacket).Round(time.Second))
		if r.Unanswered {
			why += ", and it has never answered one: only packets from it can show that it is up"
		}
	}
	if p.trouble != nil && p.trouble.What != NoAnswers && !p.trouble.At.Before(l.LastPacket) {
		why += "; the last error: " + p.trouble.What
	}
	return why
}
