// Package pathchoice makes the packets of a peer use those of its paths that a policy
// chooses, by what is reported of each path.
package pathchoice

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/report"
	"sixfour/internal/selection"
)

// Path is one of the paths to a peer.
type Path struct {
	*datapath.Path
	Report *report.Path
}

// Chooser chooses the paths of one peer. Any goroutine that holds no lock of a path may call
// its methods.
type Chooser struct {
	peer  *datapath.Peer
	paths []Path

	mu     sync.Mutex       // guards the fields below, and the peer's selection
	policy selection.Policy // nil: there is one path
	used   []int            // indexes of the paths in use
	timer  *time.Timer      // calls Choose; nil: not needed so far
	ended  bool
}

// New returns a Chooser for a peer with the given paths, of which the policy of the given name
// chooses if there are several. It chooses nothing yet.
func New(peer *datapath.Peer, paths []Path, policy string) *Chooser {
	return &Chooser{peer: peer, paths: paths, policy: newPolicy(policy, len(paths))}
}

// newPolicy returns the policy for a number of paths; nil: there is nothing to choose.
func newPolicy(name string, paths int) selection.Policy {
	if paths < 2 {
		return nil
	}
	return selection.New(name)
}

// Choose makes the peer's packets use the paths that the policy chooses now. It is called when
// a path has another wire or another state.
func (c *Chooser) Choose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if len(c.paths) == 1 {
		if w := c.paths[0].Wire.Load(); w != nil {
			c.peer.Use(w)
		} else {
			c.peer.Use()
		}
		return
	}
	now := time.Now()
	measured := make([]selection.Measured, len(c.paths))
	wires := make([]*datapath.Wire, len(c.paths))
	for i, p := range c.paths {
		wires[i] = p.Wire.Load()
		measured[i] = p.Report.Measured(wires[i] != nil)
	}
	used, again := c.policy.Choose(now, measured)
	var chosen []*datapath.Wire
	for _, i := range used {
		chosen = append(chosen, wires[i])
	}
	c.peer.Use(chosen...)
	c.report(used)
	switch {
	case again.IsZero():
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(again), c.Choose)
	default:
		c.timer.Reset(time.Until(again))
	}
}

// report reports that other paths of several are in use. c.mu must be held.
func (c *Chooser) report(used []int) {
	before := c.used
	c.used = used
	if len(used) == 0 || len(before) == 0 || used[0] == before[0] {
		return
	}
	to, from := c.paths[used[0]], c.paths[before[0]]
	why := to.Report.Label() + " is up again"
	if from.Wire.Load() == nil {
		why = from.Report.Label() + " cannot send"
	} else if phase, detail := from.Report.Phase(); phase != api.Up {
		why = from.Report.Label() + " is " + string(phase) + ": " + detail
	}
	to.Report.Event(api.EventState, "packets use this path now, because "+why)
	to.Report.Log().Info("packets use this path now", zap.String("because", why))
}

// SetPolicy makes another policy choose among the paths, if there are several.
func (c *Chooser) SetPolicy(name string) {
	c.mu.Lock()
	c.policy = newPolicy(name, len(c.paths))
	c.mu.Unlock()
	c.Choose()
}

// End stops choosing, and drops the peer's packets.
func (c *Chooser) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.peer.Use()
}

// Used returns the indexes of the paths in use; none with a single path.
func (c *Chooser) Used() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.used)
}

// First returns the index of the path that the next packet to the peer may use; without one,
// that of the first path.
func (c *Chooser) First() int {
	if len(c.paths) == 1 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.used) > 0 {
		return c.used[0]
	}
	return 0
}
