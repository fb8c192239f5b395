package selection

import (
	"fmt"
	"time"
)

// preferred uses the first path, in the order of the configuration, that is up. A path that
// has failed is used again when it has been up for a while.
type preferred struct {
	used   int // index of the path in use; -1: none
	failed failures
}

// Choose implements Policy.
func (p *preferred) Choose(now time.Time, paths []Measured) Choice {
	c := newChoice(len(paths))
	p.failed.fit(len(paths))
	next := p.next(paths, p.failed.steady(now, paths, &c))
	if p.used >= 0 && next != p.used && paths[p.used].failed() {
		p.failed[p.used] = true
	}
	if p.used = next; next >= 0 {
		c.use(next, paths, func(int) string { return fmt.Sprintf("standby for path %d", next+1) })
	}
	return c
}

// next returns the path to be used now, or -1.
func (p *preferred) next(paths []Measured, steady []bool) int {
	for i := range paths {
		if i == p.used && paths[i].up() || steady[i] && !paths[i].Doubt {
			return i
		}
	}
	if i := spare(paths); i >= 0 {
		return i
	}
	return follow(p.used, paths)
}
