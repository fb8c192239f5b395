package selection

import (
	"slices"
	"time"

	"sixfour/internal/api"
)

// preferred uses the first path, in the order of the configuration, that is up. If none is
// up, it keeps the path in use while that can send at all, since its state may only be
// unknown as yet.
type preferred struct {
	used   int    // index of the path in use; -1: none
	failed []bool // paths that were in use when they failed
}

// steady is how long a path that has failed must be up before it is used again.
const steady = 10 * time.Second

// Choose implements Policy.
func (p *preferred) Choose(now time.Time, paths []Measured) (use []int, again time.Time) {
	p.failed = slices.Grow(p.failed, len(paths))[:len(paths)]
	isUp := func(i int) bool { return paths[i].Usable && paths[i].Phase == api.Up }
	if p.used >= 0 && !isUp(p.used) && anyUp(paths) {
		p.failed[p.used] = true
	}
	p.used, again = p.next(now, paths, isUp)
	if p.used < 0 {
		return nil, again
	}
	return []int{p.used}, again
}

// next returns the path to be used now, or -1, and when a path that is up again may replace
// it.
func (p *preferred) next(now time.Time, paths []Measured, isUp func(int) bool) (used int, again time.Time) {
	spare := -1 // the first path that is up, but has failed lately
	for i := range paths {
		if !isUp(i) {
			continue
		}
		at := paths[i].Since.Add(steady)
		if !p.failed[i] || !now.Before(at) {
			p.failed[i] = false
			return i, again
		}
		if again.IsZero() || at.Before(again) {
			again = at
		}
		if spare < 0 {
			spare = i
		}
	}
	switch {
	case spare >= 0:
		return spare, again
	case p.used >= 0 && paths[p.used].Usable:
		return p.used, again
	}
	return slices.IndexFunc(paths, func(m Measured) bool { return m.Usable }), again
}

// anyUp reports whether a path is up.
func anyUp(paths []Measured) bool {
	return slices.ContainsFunc(paths, func(m Measured) bool { return m.Usable && m.Phase == api.Up })
}
