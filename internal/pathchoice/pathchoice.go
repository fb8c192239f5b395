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
	Weight int // in the configuration
	Prober Prober
}

// Prober probes a path. Its method never blocks.
type Prober interface {
	// SetRole sets for what the path is used.
	SetRole(r liveness.Role)
}

// Chooser chooses among the paths of one peer, which has or had several. Any goroutine that
// holds no lock of a path may call its methods.
type Chooser struct {
	peer    *datapath.Peer
	changed func() // called, with mu held, when the peer's packets use other wires

	mu     sync.Mutex // guards the fields below, and the peer's selection
	paths  []Path
	row    *selection.Row
	policy selection.Policy
	parts  []part      // in the order of the paths; nil: nothing was chosen yet
	timer  *time.Timer // calls Choose; nil: not needed so far
	ended  bool
}

// part is the part that a path has in what was chosen.
type part struct {
	selection.Part
	wire  *datapath.Wire
	since time.Time // since when it is used, or not used for the same reason
}

// New returns a Chooser for a peer. SetPaths must be called before any other method. Changed is
// called when the peer's packets use other wires; it must not call the Chooser.
func New(peer *datapath.Peer, changed func()) *Chooser { return &Chooser{peer: peer, changed: changed} }

// SetPaths sets the paths of the peer, at least one, and the name of the policy that chooses
// among them. Packets use the same paths as before until the policy chooses others.
func (c *Chooser) SetPaths(paths []Path, policy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	same := slices.EqualFunc(paths, c.paths, func(a, b Path) bool { return a.Path == b.Path })
	if row := selection.Named(policy); row != c.row || !same {
		c.row, c.policy = row, row.New()
	}
	if !same && c.parts != nil {
		parts := make([]part, len(paths))
		for i, p := range paths {
			if at := slices.IndexFunc(c.paths, func(o Path) bool { return o.Path == p.Path }); at >= 0 {
				parts[i] = c.parts[at]
			}
		}
		c.parts = parts
	}
	c.paths = paths
	if c.ended {
		return
	}
	c.choose(time.Now())
	if !same {
		c.use()
		all := make([]*datapath.Path, len(paths))
		for i, p := range paths {
			all[i] = p.Path
		}
		c.peer.SetPaths(all)
	}
}

// Choose makes the peer's packets use the paths that the policy chooses now. It is called when
// a path has another wire or another state.
func (c *Chooser) Choose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.choose(time.Now())
	}
}

// choose is Choose. c.mu must be held.
func (c *Chooser) choose(now time.Time) {
	measured := make([]selection.Measured, len(c.paths))
	next := make([]part, len(c.paths))
	for i, p := range c.paths {
		next[i].wire = p.Wire.Load()
		measured[i] = p.Report.Measured(next[i].wire != nil)
		measured[i].Weight = p.Weight
	}
	choice := c.policy.Choose(now, measured)
	for i := range next {
		next[i].Part, next[i].since = choice.Parts[i], now
		if c.parts != nil && next[i].sameReason(&c.parts[i]) {
			next[i].since = c.parts[i].since
		}
	}
	before := c.parts
	c.parts = next
	if before == nil || !slices.EqualFunc(before, next, sameUse) {
		c.use()
	}
	c.report(before)
	c.setRoles(measured)
	if choice.Again.IsZero() {
		return
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(choice.Again.Sub(now), c.Choose)
	} else {
		c.timer.Reset(choice.Again.Sub(now))
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
	defer c.changed()
	parts := c.parts
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
	parts, rest := c.parts, liveness.Compared
	if c.row.Rests {
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
		case len(parts) == 1:
			role = liveness.Only
		case parts[i].Weight > 0:
			role = liveness.InUse
		case !parts[i].Until.IsZero() && rest != liveness.Needed:
			role = liveness.Trial
		}
		c.paths[i].Prober.SetRole(role)
	}
}

// used returns the indexes of the paths in use. c.mu must be held.
func (c *Chooser) used() (indexes []int) {
	for i := range c.parts {
		if c.parts[i].Weight > 0 {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// End stops choosing, and drops the peer's packets.
func (c *Chooser) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.peer.Use(nil)
	c.changed()
}

// First returns the path that the next packet to the peer may use; without one, the first
// path.
func (c *Chooser) First() *datapath.Path {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used := c.used(); len(used) > 0 {
		return c.paths[used[0]].Path
	}
	return c.paths[0].Path
}
