package engine

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/keepalive"
	"sixfour/internal/liveness"
)

// setState sets a phase without a path, and logs it if it is new.
func (p *path) setState(phase api.Phase, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Phase == phase && p.state.Detail == detail {
		return
	}
	before := p.state
	p.state = api.State{Phase: phase, Since: time.Now(), Detail: detail}
	if phase == api.Waiting {
		if before.Phase.Carries() {
			p.beginOutage("it waits for " + detail)
		}
		p.event(api.EventState, "waiting for "+detail)
		level := p.t.waitingLevel()
		if p.isLookedUp() { // no problem so far
			level = p.t.level()
		}
		p.log().Log(level, "waiting", zap.String("for", detail))
	}
}

// beginOutage records that the peer cannot be reached from now on. p.mu must be held.
func (p *path) beginOutage(why string) {
	if p.outage.Why == "" || !p.outage.Until.IsZero() {
		p.outage = api.Outage{From: time.Now(), Why: why}
	}
}

// endOutage records that the peer can be reached again. p.mu must be held.
func (p *path) endOutage() {
	if p.outage.Why != "" && p.outage.Until.IsZero() {
		p.outage.Until = time.Now()
	}
}

// waitingLogs limits how many of a hub's peers are logged that begin to wait at the same
// time: when the uplink fails, there may be thousands.
const waitingLogs = 10

// waitingLevel returns the log level for one more waiting peer.
func (t *tunnel) waitingLevel() zapcore.Level {
	t.waiting++
	if t.waiting > waitingLogs {
		return zap.DebugLevel
	}
	return zap.WarnLevel
}

// reportWire sets the path that is in use, and logs it. If the ends have changed, it is
// unknown again whether the peer is up.
func (p *path) reportWire(wire *datapath.Wire) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.state
	now := api.State{
		Phase: before.Phase, Since: before.Since, Detail: before.Detail,
		IO: string(ioOf(wire)), IOWhy: p.noXDP, PathMTU: int(wire.MTU), PathMTUBy: string(wire.By),
	}
	setEnds(&now, wire)
	if !before.Phase.Carries() || !now.SameEnds(before) || before.Phase != api.Up && !p.life.HasChecks(wire) {
		now.Phase, now.Since, now.Detail = p.firstPhase(wire), time.Now(), ""
	}
	p.state = now
	if before.Phase.Carries() && before.PathMTU != now.PathMTU {
		p.event(api.EventPathMTU, fmt.Sprintf("path MTU %d (%s), was %d", now.PathMTU, now.PathMTUBy, before.PathMTU))
	}
	if now.SameEnds(before) && now.IO == before.IO && now.Phase == before.Phase { // nothing else is new
		if now != before {
			p.log().Log(p.t.level(), "path MTU", zap.Int("path_mtu", int(wire.MTU)), zap.String("by", string(wire.By)), zap.Int("before", before.PathMTU))
		}
		return
	}
	if before.Phase.Carries() && !now.SameEnds(before) {
		what := fmt.Sprintf("outer addresses %s > %s, were %s > %s", now.Local, now.Remote, before.Local, before.Remote)
		p.event(api.EventAddress, what)
	}
	if now.Phase != before.Phase {
		p.event(api.EventState, string(now.Phase))
	}
	if now.Phase == api.Up {
		p.endOutage()
	}
	p.log().Log(p.t.level(), string(now.Phase), zap.String("local", now.Local), zap.String("remote", now.Remote), zap.String("io", now.IO),
		zap.Int("path_mtu", int(wire.MTU)), zap.String("path_mtu_by", string(wire.By)), zap.Int64("mtu", p.t.MTU.Load()))
}

// firstPhase returns the phase of a peer that has just got a path.
func (p *path) firstPhase(wire *datapath.Wire) api.Phase {
	if p.life.HasChecks(wire) {
		return api.Probing
	}
	return api.Up
}

// level returns the log level of ordinary state changes of a peer: a hub may have
// thousands of peers.
func (t *tunnel) level() zapcore.Level {
	if t.only == nil {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// setEnds sets in a state the addresses of the outermost layer, and those of the
// innermost layer over IPv6 inside it.
func setEnds(s *api.State, wire *datapath.Wire) {
	layers, outer := wire.Layers, wire.Outer()
	s.Local, s.Remote = named(outer.Local, wire.Hop.Interface), "any"
	if outer.Resolver == nil {
		s.Remote = named(outer.Remote, wire.Hop.Interface)
	}
	for _, l := range layers[:len(layers)-1] {
		if l.Kind.Over() == 6 {
			s.Local6, s.Remote6 = l.Local.String(), l.Remote.String()
			return
		}
	}
}

// phases are the phases of a path with liveness sessions.
var phases = map[liveness.State]api.Phase{liveness.Unknown: api.Probing, liveness.Up: api.Up, liveness.Suspect: api.Suspect, liveness.Down: api.Down}

// Liveness updates the state of the path, and which paths the peer uses. It reports whether
// the path may have another address that works.
func (p *path) Liveness(r *keepalive.Result) bool {
	phase := phases[r.State]
	changed := p.setLife(r, phase)
	if len(p.peer.paths) > 1 {
		p.peer.choose()
	}
	if changed && (phase == api.Suspect || phase == api.Down) || r.Counts.Missed > 0 && phase == api.Down {
		p.far.Doubt()
	}
	return changed && phase == api.Down && p.far.HasAlternatives()
}

// setLife updates the peer's liveness state, and reports whether the phase, or the reason
// for it, has changed. It ignores results of a path that was replaced.
func (p *path) setLife(r *keepalive.Result, phase api.Phase) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.liveness = r.Counts
	before := p.state
	wire := p.Wire.Load()
	if wire == nil || !before.Phase.Carries() || !r.IsAbout(wire) {
		return false
	}
	detail := ""
	if phase == api.Up && r.OnlyHost {
		detail = onlyHostAnswers
	}
	if before.Phase == phase && (!r.OneWay || before.Detail == noAnswers) {
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
			p.state.Detail = noAnswers
			p.trouble = api.Fault{At: time.Now(), What: noAnswers}
		}
		text += ": " + p.state.Detail
		if phase == api.Down {
			p.beginOutage(p.state.Detail)
		}
		p.log().Log(p.t.lifeLevel(p.t.falls, zap.WarnLevel), string(phase), zap.String("remote", named(r.Remote, wire.Hop.Interface)), zap.String("why", p.state.Detail))
	case api.Up:
		p.wasUp = true
		p.endOutage()
		level := p.t.level() // an ordinary change after the start
		if before.Phase != api.Probing {
			level = p.t.lifeLevel(p.t.returns, zap.InfoLevel)
		}
		fields := []zap.Field{zap.String("remote", named(r.Remote, wire.Hop.Interface))}
		if r.RTT > 0 {
			text += fmt.Sprintf(", RTT %v", r.RTT.Round(time.Microsecond))
			fields = append(fields, zap.Duration("rtt", r.RTT))
		}
		p.log().Log(level, "up", fields...)
	}
	p.event(api.EventState, text)
	return true
}

// onlyHostAnswers is the detail of a peer that is up only because its outer address answers
// pings.
const onlyHostAnswers = "its host answers pings, but nothing comes through the tunnel"

// noAnswers is the reason why a peer that still sends packets is suspect.
const noAnswers = "packets come from it, but it no longer answers probes: our packets may not reach it"

// silence returns why a peer is suspect or down. p.mu must be held.
func (p *path) silence(r *keepalive.Result) string {
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
	if p.trouble.What != "" && p.trouble.What != noAnswers && !p.trouble.At.Before(l.LastPacket) {
		why += "; the last error: " + p.trouble.What
	}
	return why
}

// Limits how many of a hub's peers are logged that fail or return at the same time.
const (
	lifeLogs     = 10
	lifeLogPause = 10 * time.Second
)

// lifeLevel returns the log level for one more peer that has failed or returned: one, or
// less if a hub has too many of them.
func (t *tunnel) lifeLevel(limit *rate.Limiter, one zapcore.Level) zapcore.Level {
	if t.only == nil && !limit.Allow() {
		return zap.DebugLevel
	}
	return one
}

// newLifeLimit returns a limiter for the log lines about peers that fail or return.
func newLifeLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(lifeLogPause), lifeLogs) }
