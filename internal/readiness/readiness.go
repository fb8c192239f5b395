// Package readiness decides when the state of all tunnels is reported to the service manager,
// and runs the ticker for the heartbeats of its watchdog.
package readiness

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

// Reporter is the state of the reports and heartbeats. Its methods are for one goroutine.
type Reporter struct {
	ticker   *time.Ticker
	ticks    bool      // ticker is running
	alive    func()    // called regularly as a heartbeat; nil: not needed
	watched  bool      // the heartbeat is needed after the start, too
	until    time.Time // until then an incomplete start is not reported
	reported *Summary  // last summary reported; nil: none yet
}

const (
	// Interval is the time between two ticks.
	Interval = time.Second
	// startTime is how long the start may take before waiting tunnels are reported: names
	// are looked up, and IPv6 addresses are tentative for up to two seconds (RFC 4862
	// section 5.4).
	startTime = 5 * time.Second
)

// OnBeat makes Beat call alive: until the first report or, if forever is true, always. Call
// OnBeat before Begin.
func (r *Reporter) OnBeat(alive func(), forever bool) { r.alive, r.watched = alive, forever }

// Beat sends a heartbeat.
func (r *Reporter) Beat() {
	if r.alive != nil {
		r.alive()
	}
}

// Begin starts the ticker, and the time that the start may take.
func (r *Reporter) Begin() {
	r.ticker, r.ticks = time.NewTicker(Interval), true
	r.until = time.Now().Add(startTime)
}

// End stops the ticker.
func (r *Reporter) End() { r.ticker.Stop() }

// Tick returns the channel of the ticks. After each, Beat must be called.
func (r *Reporter) Tick() <-chan time.Time { return r.ticker.C }

// Pace runs the ticker until the first report, and later only for heartbeats or if it is
// needed for something else, so that an idle daemon can sleep.
func (r *Reporter) Pace(needed bool) {
	needed = needed || r.reported == nil || r.watched
	switch {
	case needed && !r.ticks:
		r.ticker.Reset(Interval)
	case !needed && r.ticks:
		r.ticker.Stop()
	}
	r.ticks = needed
}

// Report passes the state of the tunnels to tell if it has changed. A start that is not
// complete is reported only after some seconds: Report then returns the time until it must
// be called again, otherwise 0.
func (r *Reporter) Report(summary func() Summary, complete bool, tell func(Summary)) (again time.Duration) {
	if r.reported == nil && !complete {
		if again = time.Until(r.until); again > 0 {
			return again
		}
	}
	s := summary()
	if r.reported == nil || r.reported.Tunnels != s.Tunnels || !slices.Equal(r.reported.Waiting, s.Waiting) {
		r.reported = &s
		tell(s)
	}
	return 0
}
