package selection

import (
	"fmt"
	"time"
)

// fastest uses the path with the shortest round-trip time of those that are up. It changes to
// another one only if that has been clearly faster for a while.
type fastest struct {
	used   int       // index of the path in use; -1: none
	better int       // a path that is clearly faster; -1: none
	since  time.Time // since when it is
	failed failures
}

// A path is clearly faster if its round-trip time is shorter by both a fraction of that of the
// path in use and a time.
const (
	shorterBy     = 0.2
	shorterByTime = 2 * time.Millisecond
	fasterFor     = 10 * time.Second
)

// Choose implements Policy.
func (p *fastest) Choose(now time.Time, paths []Measured) Choice {
	c := newChoice(len(paths))
	p.failed.fit(len(paths))
	steady := p.failed.steady(now, paths, &c)
	next := p.next(now, paths, steady, &c)
	if p.used >= 0 && next != p.used && paths[p.used].failed() {
		p.failed[p.used] = true
	}
	if next != p.used {
		p.better = -1
	}
	if p.used = next; next >= 0 {
		c.use(next, paths, func(int) string { return fmt.Sprintf("not clearly faster than path %d", next+1) })
	}
	return c
}

// next returns the path to be used now, or -1.
func (p *fastest) next(now time.Time, paths []Measured, steady []bool, c *Choice) int {
	best := -1
	for i := range paths {
		if steady[i] && !paths[i].Doubt && (best < 0 || faster(&paths[i], &paths[best])) {
			best = i
		}
	}
	if p.used < 0 || !paths[p.used].up() {
		switch {
		case best >= 0:
			return best
		case spare(paths) >= 0:
			return spare(paths)
		}
		return follow(p.used, paths)
	}
	if best < 0 || !clearlyFaster(&paths[best], &paths[p.used]) {
		p.better = -1
		return p.used
	}
	if best != p.better {
		p.better, p.since = best, now
	}
	if until := p.since.Add(fasterFor); now.Before(until) {
		c.wait(best, until, "it is faster, but not for long enough yet")
		return p.used
	}
	return best
}

// faster reports whether a has a shorter round-trip time than b.
func faster(a, b *Measured) bool { return a.RTT > 0 && (b.RTT == 0 || a.RTT < b.RTT) }

// clearlyFaster reports whether a has a round-trip time that is shorter than that of b by
// enough for a change.
func clearlyFaster(a, b *Measured) bool {
	return a.RTT > 0 && b.RTT-a.RTT >= max(shorterByTime, time.Duration(shorterBy*float64(b.RTT)))
}
