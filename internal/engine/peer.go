package engine

import (
	"iter"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/selection"
)

// peer is one remote end of a tunnel. It has at least one path; its selection says which
// paths carry its packets.
type peer struct {
	*datapath.Peer
	t      *tunnel
	cfg    config.Peer // the name never changes; the rest follows the rule of tunnel.cfg
	paths  []*path     // in the order of cfg.Paths
	choice choice
}

// choice is which paths of a peer carry its packets.
type choice struct {
	mu     sync.Mutex       // guards the fields below, and the peer's selection
	policy selection.Policy // nil: there is one path
	used   []int            // indexes of the paths in use
	timer  *time.Timer      // calls choose; nil: not needed so far
	ended  bool
}

func newPeer(t *tunnel, cfg *config.Peer) *peer {
	p := &peer{Peer: new(datapath.Peer), t: t, cfg: *cfg}
	p.choice.policy = newPolicy(t.cfg.Select, len(cfg.Paths))
	for i := range cfg.Paths {
		one := newPath(p, i)
		p.paths = append(p.paths, one)
		p.Peer.Paths = append(p.Peer.Paths, one.Path)
	}
	return p
}

// choose makes the peer's packets use the paths that its policy chooses now. It is called
// when a path has another wire or another state. Any goroutine may call it that holds no
// lock of a path.
func (p *peer) choose() {
	c := &p.choice
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if len(p.paths) == 1 {
		if w := p.paths[0].Wire.Load(); w != nil {
			p.Use(w)
		} else {
			p.Use()
		}
		return
	}
	now := time.Now()
	measured := make([]selection.Measured, len(p.paths))
	wires := make([]*datapath.Wire, len(p.paths))
	for i, one := range p.paths {
		wires[i] = one.Wire.Load()
		measured[i] = one.report.Measured(wires[i] != nil)
	}
	used, again := c.policy.Choose(now, measured)
	var chosen []*datapath.Wire
	for _, i := range used {
		chosen = append(chosen, wires[i])
	}
	p.Use(chosen...)
	p.reportChoice(used)
	switch {
	case again.IsZero():
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(again), p.choose)
	default:
		c.timer.Reset(time.Until(again))
	}
}

// reportChoice reports that other paths of several are in use. c.mu must be held.
func (p *peer) reportChoice(used []int) {
	c := &p.choice
	before := c.used
	c.used = used
	if len(used) == 0 || len(before) == 0 || used[0] == before[0] {
		return
	}
	to, from := p.paths[used[0]], p.paths[before[0]]
	why := to.report.Label() + " is up again"
	if from.Wire.Load() == nil {
		why = from.report.Label() + " cannot send"
	} else if phase, detail := from.report.Phase(); phase != api.Up {
		why = from.report.Label() + " is " + string(phase) + ": " + detail
	}
	to.report.Event(api.EventState, "packets use this path now, because "+why)
	to.report.Log().Info("packets use this path now", zap.String("because", why))
}

// setPolicy makes another policy choose among the paths, if there are several.
func (p *peer) setPolicy(name string) {
	p.choice.mu.Lock()
	p.choice.policy = newPolicy(name, len(p.paths))
	p.choice.mu.Unlock()
	p.choose()
}

// newPolicy returns the policy for a number of paths; nil: there is nothing to choose.
func newPolicy(name string, paths int) selection.Policy {
	if paths < 2 {
		return nil
	}
	return selection.New(name)
}

// endChoice stops choosing, and drops the peer's packets.
func (p *peer) endChoice() {
	c := &p.choice
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	p.Use()
}

// used returns the indexes of the paths in use.
func (p *peer) used() []int {
	p.choice.mu.Lock()
	defer p.choice.mu.Unlock()
	return slices.Clone(p.choice.used)
}

// inUse returns the path that the next packet to the peer may use; without one, the first
// path.
func (p *peer) inUse() *path {
	if len(p.paths) == 1 {
		return p.paths[0]
	}
	p.choice.mu.Lock()
	defer p.choice.mu.Unlock()
	if len(p.choice.used) > 0 {
		return p.paths[p.choice.used[0]]
	}
	return p.paths[0]
}

// name returns the name by which operators refer to the peer.
func (p *peer) name() string {
	if p.t.only != nil {
		return p.t.cfg.Name
	}
	return p.t.cfg.Name + "/" + p.cfg.Name
}

// paths returns the paths of all peers.
func (t *tunnel) paths() iter.Seq[*path] {
	return func(yield func(*path) bool) {
		for _, p := range t.peers {
			for _, one := range p.paths {
				if !yield(one) {
					return
				}
			}
		}
	}
}

// anyPath reports whether f is true for a path of the tunnel.
func (t *tunnel) anyPath(f func(*path) bool) bool {
	for p := range t.paths() {
		if f(p) {
			return true
		}
	}
	return false
}
