package engine

import (
	"context"
	"time"

	"sixfour/internal/readiness"
)

// loop is when the control loop does something again, and its reports.
type loop struct {
	readiness.Reporter
	moveAt time.Time // when a path that is down tries the next address of its name; zero: never
	rest   time.Time // the earliest time to evaluate everything again after a change
}

// OnBeat makes the control loop call alive at least every few seconds while it works: until
// the start is over, or forever. Call OnBeat before Run.
func (e *Engine) OnBeat(alive func(), forever bool) { e.loop.OnBeat(alive, forever) }

// Alive returns nil when the control loop has answered, or an error if it has not when ctx
// ends. Without the control loop, no change is followed and nothing is repaired. The loop
// answers while Run runs, except while it opens interfaces. Any goroutine may call Alive.
func (e *Engine) Alive(ctx context.Context) error { return e.healthChecks.Alive(ctx) }

func (e *Engine) heartbeat() { e.loop.Beat() }

// carries reports whether the tunnel can reach any of its peers.
func (t *tunnel) carries() bool {
	return t.Link != nil && t.anyPath(func(p *path) bool { return p.Wire.Load() != nil })
}

// summary returns the present state of the tunnels.
func (e *Engine) summary() readiness.Summary {
	s := readiness.Summary{Tunnels: len(e.tunnels)}
	for _, t := range e.tunnels {
		if t.carries() {
			continue
		}
		w := readiness.Wait{Tunnel: t.cfg.Name, For: t.Waits()}
		if w.For == "" {
			_, w.For = t.peers[0].inUse().report.Phase()
		}
		s.Waiting = append(s.Waiting, w)
	}
	if why := e.gateway.Waits(); why != "" {
		s.Waiting = append(s.Waiting, readiness.Wait{Tunnel: "[gateway]", For: why})
	}
	return s
}
