package engine

import (
	"slices"
	"time"
)

// Summary is what the service manager is told.
type Summary struct {
	Tunnels int
	Waiting []Wait // those that cannot carry packets, and the gateway if it is not there yet
}

// Wait is a tunnel that cannot carry packets, and what it waits for.
type Wait struct{ Tunnel, For string }

// loop is what the control loop does besides deciding.
type loop struct {
	ticker  *time.Ticker
	tick    <-chan time.Time // the ticker's
	ticks   bool             // it does
	alive   func()           // called again and again; nil: nobody wants to know
	watched bool             // that is wanted after the start, too
	until   time.Time        // the start may take so long, before it is told who waits
	told    *Summary         // last; nil: nothing yet
}

const (
	// tick is how often the control loop shows that it lives, and looks at namespaces.
	tick = time.Second
	// readyTime is how long after the start all tunnels may take to carry, before it is
	// said that some wait: names are looked up, and IPv6 addresses are tentative for up to
	// two seconds (RFC 4862 section 5.4).
	readyTime = 5 * time.Second
)

func (l *loop) begin() *time.Ticker {
	l.ticker, l.ticks = time.NewTicker(tick), true
	l.tick = l.ticker.C
	l.until = time.Now().Add(readyTime)
	return l.ticker
}

// pace lets the ticker tick during the start, and after it as long as something needs it:
// without, an idle daemon sleeps.
func (l *loop) pace(tunnels []*tunnel) {
	needed := l.told == nil || l.watched || slices.ContainsFunc(tunnels, func(t *tunnel) bool { return t.cfg.Netns != "" })
	switch {
	case needed && !l.ticks:
		l.ticker.Reset(tick)
	case !needed && l.ticks:
		l.ticker.Stop()
	}
	l.ticks = needed
}

// tell says how the tunnels are if that is news, and returns when to do so at the latest
// though nothing changes.
func (l *loop) tell(summary func() Summary, complete bool, tell func(Summary)) (again time.Duration) {
	if l.told == nil && !complete {
		if again = time.Until(l.until); again > 0 {
			return again
		}
	}
	s := summary()
	if l.told == nil || l.told.Tunnels != s.Tunnels || !slices.Equal(l.told.Waiting, s.Waiting) {
		l.told = &s
		tell(s)
	}
	return lookAgain
}

// OnBeat has the control loop call alive at least once in some seconds as long as it
// works: until the start is over, or forever. Call it before Run.
func (e *Engine) OnBeat(alive func(), forever bool) { e.loop.alive, e.loop.watched = alive, forever }

func (e *Engine) beat() {
	if e.loop.alive != nil {
		e.loop.alive()
	}
}

// carries reports whether the tunnel can reach any of its peers.
func (t *tunnel) carries() bool {
	return t.link != nil && slices.ContainsFunc(t.peers, func(p *peer) bool { return p.path.Load() != nil })
}

// summary is how the tunnels are.
func (e *Engine) summary() Summary {
	s := Summary{Tunnels: len(e.tunnels)}
	for _, t := range e.tunnels {
		if t.carries() {
			continue
		}
		w := Wait{t.cfg.Name, t.waits()}
		if w.For == "" {
			w.For = t.peers[0].detail()
		}
		s.Waiting = append(s.Waiting, w)
	}
	if why := e.gate.waits(); why != "" {
		s.Waiting = append(s.Waiting, Wait{"[gateway]", why})
	}
	return s
}

// detail is what the peer waits for, or "".
func (p *peer) detail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Detail
}
