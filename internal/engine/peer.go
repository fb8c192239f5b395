package engine

import (
	"iter"
	"sync/atomic"

	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/kernelpath"
	"sixfour/internal/pathchoice"
	"sixfour/internal/report"
)

// peer is one remote end of a tunnel. It has at least one path.
type peer struct {
	datapath.Peer
	t       *tunnel
	cfg     config.Peer                        // the name never changes; the rest follows the rule of tunnel.cfg
	paths   []*path                            // in the order of cfg.Paths; same rule
	choice  atomic.Pointer[pathchoice.Chooser] // nil: the peer has had one path only
	kernel  atomic.Pointer[kernelpath.Peer]    // nil: its packets are not to be carried in the kernel
	past    *report.Past                       // the paths that were removed; nil: none; same rule
	changes int                                // of the paths: wires with the checks of former paths are made again
}

func newPeer(t *tunnel, cfg *config.Peer) *peer {
	p := &peer{t: t, cfg: *cfg}
	paths := make([]*path, len(cfg.Paths))
	for i := range paths {
		paths[i] = newPath(p)
	}
	p.setPaths(paths)
	return p
}

// setPaths sets the paths of the peer, in the order of cfg.Paths. Those that it had before
// go on. The engine's mu must be held if the peer belongs to a tunnel already.
func (p *peer) setPaths(paths []*path) {
	p.paths = paths
	p.changes++
	for i, one := range paths {
		one.at = i
		one.report.Place(i, len(paths))
	}
	c := p.choice.Load()
	if c == nil && len(paths) == 1 {
		p.SetPaths([]*datapath.Path{paths[0].Path})
		return
	}
	if c == nil {
		c = pathchoice.New(&p.Peer, func() { p.kernel.Load().Refresh() })
		p.configure(c)
		p.choice.Store(c)
		c.Choose() // what was reported meanwhile
		return
	}
	p.configure(c)
}

// configure makes a Chooser choose among the peer's paths as the configuration says.
func (p *peer) configure(c *pathchoice.Chooser) {
	list := make([]pathchoice.Path, len(p.paths))
	for i, one := range p.paths {
		list[i] = pathchoice.Path{Path: one.Path, Report: one.report, Weight: int(p.cfg.Paths[i].Weight), Prober: one}
	}
	c.SetPaths(list, p.t.cfg.Select)
}

// choose makes packets use other paths if a path has another wire or another state. Any
// goroutine may call it.
func (p *peer) choose() {
	if c := p.choice.Load(); c != nil {
		c.Choose()
	}
	p.kernel.Load().Refresh()
}

// inUse returns the path that the next packet to the peer may use; without one, the first
// path. Any goroutine may call it.
func (p *peer) inUse() *path {
	if c := p.choice.Load(); c != nil {
		return c.First().Owner.(*path)
	}
	return p.First().Owner.(*path)
}

// name returns the name by which operators refer to the peer.
func (p *peer) name() report.PeerName {
	return report.PeerName{Tunnel: p.t.cfg.Name, Peer: p.cfg.Name, Only: p.t.only != nil}
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
