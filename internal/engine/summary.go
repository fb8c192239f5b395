package engine

import (
	"slices"
	"time"
)

// Summary is the state that is reported to the service manager.
type Summary struct {
	Tunnels int
	Waiting []Wait // tunnels that cannot carry packets, and the gateway if it is not ready
}

// Wait names a tunnel that cannot carry packets, and what it waits for.
type Wait struct{ Tunnel, For string }

// loop is the state of the control loop's health reports and of its reports to the service
// manager.
type loop struct {
	ticker   *time.Ticker
	tick     <-chan time.Time // channel of ticker
	ticks    bool             // ticker is running
	alive    func()           // called regularly as a heartbeat; nil: not needed
	watched  bool             // the heartbeat is needed after the start, too
	until    time.Time        // until then an incomplete start is not reported
	reported *Summary         // last summary reported; nil: none yet

	moveAt time.Time // when a path that is down tries the next address of its name; zero: never
	rest   time.Time // the earliest time to evaluate everything again after a change
}

const (
	// tick is the interval of heartbeats and of namespace checks.
	tick = time.Second
	// readyTime is how long the start may take before waiting tunnels are reported: names
	// are looked up, and IPv6 addresses are tentative for up to two seconds (RFC 4862
	// section 5.4).
	readyTime = 5 * time.Second
)

func (l *loop) begin() *time.Ticker {
	l.ticker, l.ticks = time.NewTicker(tick), true
	l.tick = l.ticker.C
	l.until = time.Now().Add(readyTime)
	return l.ticker
}

// pace runs the ticker during the start, and later only if it is needed, so that an idle
// daemon can sleep.
func (l *loop) pace(tunnels []*tunnel) {
	needed := l.reported == nil || l.watched || slices.ContainsFunc(tunnels, func(t *tunnel) bool { return t.cfg.Netns != "" })
	switch {
	case needed && !l.ticks:
		l.ticker.Reset(tick)
	case !needed && l.ticks:
		l.ticker.Stop()
	}
	l.ticks = needed
}

// report reports the state of the tunnels if it has changed. It returns the time until the
// next report is due even without a change.
func (l *loop) report(summary func() Summary, complete bool, tell func(Summary)) (again time.Duration) {
	if l.reported == nil && !complete {
		if again = time.Until(l.until); again > 0 {
			return again
		}
	}
	s := summary()
	if l.reported == nil || l.reported.Tunnels != s.Tunnels || !slices.Equal(l.reported.Waiting, s.Waiting) {
		l.reported = &s
		tell(s)
	}
	return lookAgain
}

// OnBeat makes the control loop call alive at least every few seconds while it works: until
// the start is over, or forever. Call OnBeat before Run.
func (e *Engine) OnBeat(alive func(), forever bool) { e.loop.alive, e.loop.watched = alive, forever }

func (e *Engine) heartbeat() {
	if e.loop.alive != nil {
		e.loop.alive()
	}
}

// carries reports whether the tunnel can reach any of its peers.
func (t *tunnel) carries() bool {
	return t.Link != nil && t.anyPath(func(p *path) bool { return p.Wire.Load() != nil })
}

// summary returns the present state of the tunnels.
func (e *Engine) summary() Summary {
	s := Summary{Tunnels: len(e.tunnels)}
	for _, t := range e.tunnels {
		if t.carries() {
			continue
		}
		w := Wait{t.cfg.Name, t.Waits()}
		if w.For == "" {
			_, w.For = t.peers[0].inUse().report.Phase()
		}
		s.Waiting = append(s.Waiting, w)
	}
	if why := e.gateway.Waits(); why != "" {
		s.Waiting = append(s.Waiting, Wait{"[gateway]", why})
	}
	return s
}
