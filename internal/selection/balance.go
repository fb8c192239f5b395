package selection

import (
	"math"
	"slices"
	"time"
)

// balance uses all paths that are up. The share of a path is its weight, less what it loses.
type balance struct {
	carries []bool
	loss    []float64 // as the shares count it
	failed  failures
}

const (
	// lossStep is how much the loss of a path must change before the shares do, since then
	// some flows change their path.
	lossStep = 0.2
	// mostLoss is the largest loss that counts: a path that is up always has a share.
	mostLoss = 0.95
)

// Choose implements Policy.
func (p *balance) Choose(now time.Time, paths []Measured) Choice {
	c := newChoice(len(paths))
	p.failed.fit(len(paths))
	p.carries = slices.Grow(p.carries, max(0, len(paths)-len(p.carries)))[:len(paths)]
	p.loss = slices.Grow(p.loss, max(0, len(paths)-len(p.loss)))[:len(paths)]
	use := p.next(paths, p.failed.steady(now, paths, &c))
	for i := range paths {
		m := &paths[i]
		if p.carries[i] && !use[i] && m.failed() {
			p.failed[i] = true
		}
		loss := m.Loss
		if m.RTT == 0 { // the peer has never answered: it may not do that at all
			loss = 0
		}
		if use[i] && (!p.carries[i] || math.Abs(loss-p.loss[i]) >= lossStep) {
			p.loss[i] = loss
		}
		if use[i] {
			c.Parts[i] = Part{Weight: float64(max(1, m.Weight)) * (1 - min(p.loss[i], mostLoss))}
		} else if m.up() && c.Parts[i].Why == "" {
			c.Parts[i].Why = inDoubt
		}
	}
	p.carries = use
	return c
}

// next returns for each path whether it carries packets now.
func (p *balance) next(paths []Measured, steady []bool) []bool {
	use := make([]bool, len(paths))
	for i := range paths {
		use[i] = paths[i].up() && (p.carries[i] || steady[i] && !paths[i].Doubt)
	}
	if slices.Contains(use, true) {
		return use
	}
	if i := spare(paths); i >= 0 {
		use[i] = true
		return use
	}
	if i := follow(slices.Index(p.carries, true), paths); i >= 0 {
		use[i] = true
	}
	return use
}
