// Package pathchoice makes the packets of a peer use those of its paths that a policy
// chooses, by what is reported of each path.
package pathchoice

import (
	"slices"
	"sync"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/report"
	"sixfour/internal/selection"
)

// Path is one of the paths to a peer.
type Path struct {
	*datapath.Path
	Report *report.Path
	Weight int    // in the configuration
	Prober Prober // nil: there is no other path
}

// Prober probes a path. Its method never blocks.
type Prober interface {
	// SetRole sets for what the path is used.
	SetRole(r liveness.Role)
}

// Chooser chooses the paths of one peer. Any goroutine that holds no lock of a path may call
// its methods.
type Chooser struct {
	peer *datapath.Peer

	mu      sync.Mutex // guards the fields below, and the peer's selection
	paths   []Path
	several *several // nil: there is one path
	ended   bool
}

// several is what there is for a choice among several paths.
type several struct {
	row    *selection.Row
	policy selection.Policy
	parts  []part      // in the order of the paths; nil: nothing was chosen yet
	timer  *time.Timer // calls Choose; nil: not needed so far
}

// part is the part that a path has in what was chosen.
type part struct {
	selection.Part
	wire  *datapath.Wire
	since time.Time // since when it is used, or not used for the same reason
}

// New returns a Chooser for a peer with the given paths, of which the policy of the given name
// chooses if there are several. It chooses nothing yet.
func New(peer *datapath.Peer, paths []Path, policy string) *Chooser {
	c := &Chooser{peer: peer, paths: paths}
	if len(paths) > 1 {
		row := selection.Named(policy)
		c.several = &several{row: row, policy: row.New()}
	}
	return c
}

// Choose makes the peer's packets use the paths that the policy chooses now. It is called when
// a path has another wire or another state.
func (c *Chooser) Choose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
	case c.several == nil:
		c.peer.Use(c.paths[0].Wire.Load())
	default:
		c.choose(time.Now())
	}
}

// choose is Choose for several paths. c.mu must be held.
func (c *Chooser) choose(now time.Time) {
	s := c.several
	measured := make([]selection.Measured, len(c.paths))
	next := make([]part, len(c.paths))
	for i, p := range c.paths {
		next[i].wire = p.Wire.Load()
		measured[i] = p.Report.Measured(next[i].wire != nil)
		measured[i].Weight = p.Weight
	}
	choice := s.policy.Choose(now, measured)
	for i := range next {
		next[i].Part, next[i].since = choice.Parts[i], now
		if s.parts != nil && next[i].sameReason(&s.parts[i]) {
			next[i].since = s.parts[i].since
		}
	}
	before := s.parts
	s.parts = next
	if before == nil || !slices.EqualFunc(before, next, sameUse) {
		c.use()
	}
	c.report(before)
	c.setRoles(measured)
	if choice.Again.IsZero() {
		return
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(choice.Again.Sub(now), c.Choose)
	} else {
		s.timer.Reset(choice.Again.Sub(now))
	}
}

// sameReason reports whether a path is used, or not used, as before.
func (p *part) sameReason(o *part) bool {
	return (p.Weight > 0) == (o.Weight > 0) && p.Why == o.Why && (p.wire == nil) == (o.wire == nil)
}

// sameUse reports whether a path carries the same packets as before.
func sameUse(p, o part) bool { return p.Weight == o.Weight && (p.Weight == 0 || p.wire == o.wire) }

// use makes the peer's packets use what was chosen. c.mu must be held.
func (c *Chooser) use() {
	parts := c.several.parts
	var wires []*datapath.Wire
	var weights []float64
	for i := range parts {
		if parts[i].Weight == 0 {
			continue
		}
		// A weight stands at the index of its path, so that a flow keeps its path when
		// others fail.
		for len(weights) < i {
			wires, weights = append(wires, nil), append(weights, 0)
		}
		wires, weights = append(wires, parts[i].wire), append(weights, parts[i].Weight)
	}
	switch used := c.used(); len(used) {
	case 0:
		c.peer.Use(nil)
	case 1:
		c.peer.Use(parts[used[0]].wire)
	default:
		c.peer.Divide(wires, selection.Divide(weights))
	}
}

// setRoles sets for what the paths are used. c.mu must be held.
func (c *Chooser) setRoles(measured []selection.Measured) {
	parts := c.several.parts
	rest := liveness.Compared
	if c.several.row.Rests {
		rest = liveness.Standby
	}
	for i := range parts { // others are needed if one that is used may have failed
		if parts[i].Weight > 0 && (measured[i].Doubt || measured[i].Phase != api.Up) {
			rest = liveness.Needed
		}
	}
	for i := range parts {
		role := rest
		switch {
		case parts[i].Weight > 0:
			role = liveness.InUse
		case !parts[i].Until.IsZero() && rest != liveness.Needed:
			role = liveness.Trial
		}
		c.paths[i].Prober.SetRole(role)
	}
}

// used returns the indexes of the paths in use; none with a single path. c.mu must be held.
func (c *Chooser) used() (indexes []int) {
	if c.several == nil {
		return nil
	}
	for i := range c.several.parts {
		if c.several.parts[i].Weight > 0 {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// Configure makes a policy choose among the paths, which have these weights.
func (c *Chooser) Configure(policy string, weights []int) {
	c.mu.Lock()
	if c.several != nil {
		for i := range c.paths {
			c.paths[i].Weight = weights[i]
		}
		if row := selection.Named(policy); row != c.several.row {
			c.several.row, c.several.policy = row, row.New()
		}
	}
	c.mu.Unlock()
	c.Choose()
}

// End stops choosing, and drops the peer's packets.
func (c *Chooser) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.several != nil && c.several.timer != nil {
		c.several.timer.Stop()
	}
	c.peer.Use(nil)
}

// First returns the index of the path that the next packet to the peer may use; without one,
// that of the first path.
func (c *Chooser) First() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used := c.used(); len(used) > 0 {
		return used[0]
	}
	return 0
}
