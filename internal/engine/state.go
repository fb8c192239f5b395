package engine

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sixfour/encap"
)

// Phase is a tunnel's state in one word.
type Phase string

// A tunnel starts, and waits for what it lacks. When it can carry, the peer is
// probed until it is heard, and is up then; when it is silent it becomes suspect,
// and then is down. All of the last four carry packets. Without keepalive there is
// only up.
const (
	Starting Phase = "starting"
	Waiting  Phase = "waiting"
	Probing  Phase = "probing"
	Up       Phase = "up"
	Suspect  Phase = "suspect"
	Down     Phase = "down"
)

// Carries reports whether packets can be sent.
func (p Phase) Carries() bool { return p.rank() > Waiting.rank() }

// rank is how well a peer is off, in comparison.
func (p Phase) rank() int {
	switch p {
	case Waiting:
		return 1
	case Down:
		return 2
	case Probing:
		return 3
	case Suspect:
		return 4
	case Up:
		return 5
	}
	return 0
}

// setState notes a phase without a path, and logs it if it is news.
func (p *peer) setState(phase Phase, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Phase == phase && p.state.Detail == detail {
		return
	}
	before := p.state
	p.state = State{Phase: phase, Since: time.Now(), Detail: detail}
	if phase == Waiting {
		if before.Phase.Carries() {
			p.beginOutage("it waits for " + detail)
		}
		p.event(EventState, "waiting for "+detail)
		p.log().Log(p.t.waitingLevel(), "waiting", zap.String("for", detail))
	}
}

// beginOutage and endOutage note that the peer cannot be reached, and that it can
// again. P.mu is held.
func (p *peer) beginOutage(why string) {
	if p.outage.Why == "" || !p.outage.Until.IsZero() {
		p.outage = Outage{From: time.Now(), Why: why}
	}
}

func (p *peer) endOutage() {
	if p.outage.Why != "" && p.outage.Until.IsZero() {
		p.outage.Until = time.Now()
	}
}

// waitingLogs is how many of a hub's peers are told of that begin to wait at the same
// time: when the uplink goes, there may be thousands.
const waitingLogs = 10

// waitingLevel is how important it is that another peer waits.
func (t *tunnel) waitingLevel() zapcore.Level {
	t.waiting++
	if t.waiting > waitingLogs {
		return zap.DebugLevel
	}
	return zap.WarnLevel
}

// setPath notes the path that is in use, and logs it. Whether the peer lives is
// another question where its ends are others than before.
func (p *peer) setPath(path *path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.state
	now := State{
		Phase: before.Phase, Since: before.Since, Detail: before.Detail,
		IO: string(path.io()), PathMTU: int(path.mtu), PathMTUBy: string(path.by),
	}
	now.setEnds(path.layers)
	if !before.Phase.Carries() || !now.sameEnds(before) {
		now.Phase, now.Since, now.Detail = Up, time.Now(), ""
	}
	p.state = now
	if before.Phase.Carries() && before.PathMTU != now.PathMTU {
		p.event(EventPathMTU, fmt.Sprintf("path MTU %d (%s), was %d", now.PathMTU, now.PathMTUBy, before.PathMTU))
	}
	if now.sameEnds(before) && now.IO == before.IO && now.Phase == before.Phase { // nothing else is new
		if now != before {
			p.log().Log(p.t.level(), "path MTU", zap.Int("path_mtu", int(path.mtu)), zap.String("by", string(path.by)), zap.Int("before", before.PathMTU))
		}
		return
	}
	if before.Phase.Carries() && !now.sameEnds(before) {
		what := fmt.Sprintf("outer addresses %s > %s, were %s > %s", now.Local, now.Remote, before.Local, before.Remote)
		p.trouble = Trouble{time.Now(), what}
		p.event(EventAddress, what)
	}
	if now.Phase != before.Phase {
		p.event(EventState, string(now.Phase))
	}
	if now.Phase == Up {
		p.endOutage()
	}
	p.log().Log(p.t.level(), string(now.Phase), zap.String("local", now.Local), zap.String("remote", now.Remote), zap.String("io", now.IO),
		zap.Int("path_mtu", int(path.mtu)), zap.String("path_mtu_by", string(path.by)), zap.Int64("mtu", p.t.mtu.Load()))
}

// sameEnds reports whether two states have the same addresses.
func (s *State) sameEnds(o State) bool {
	return s.Local == o.Local && s.Remote == o.Remote && s.Local6 == o.Local6 && s.Remote6 == o.Remote6
}

// level is that of what each peer's life has anyhow: of a hub there may be
// thousands.
func (t *tunnel) level() zapcore.Level {
	if t.only == nil {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// setEnds notes the addresses of the outermost layer, and of the innermost one over
// IPv6 inside it.
func (s *State) setEnds(layers []encap.Layer) {
	outer := layers[len(layers)-1]
	s.Local, s.Remote = outer.Local.String(), "any"
	if outer.Resolver == nil {
		s.Remote = outer.Remote.String()
	}
	for _, l := range layers[:len(layers)-1] {
		if l.Kind.Over() == 6 {
			s.Local6, s.Remote6 = l.Local.String(), l.Remote.String()
			return
		}
	}
}
