package engine

import (
	"iter"

	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/pathchoice"
)

// peer is one remote end of a tunnel. It has at least one path; its selection says which
// paths carry its packets.
type peer struct {
	*datapath.Peer
	t      *tunnel
	cfg    config.Peer // the name never changes; the rest follows the rule of tunnel.cfg
	paths  []*path     // in the order of cfg.Paths
	choice *pathchoice.Chooser
}

func newPeer(t *tunnel, cfg *config.Peer) *peer {
	p := &peer{Peer: new(datapath.Peer), t: t, cfg: *cfg}
	var paths []pathchoice.Path
	for i := range cfg.Paths {
		one := newPath(p, i)
		p.paths = append(p.paths, one)
		p.Peer.Paths = append(p.Peer.Paths, one.Path)
		paths = append(paths, pathchoice.Path{Path: one.Path, Report: one.report, Weight: int(cfg.Paths[i].Weight), Prober: one})
	}
	p.choice = pathchoice.New(p.Peer, paths, t.cfg.Select)
	return p
}

// inUse returns the path that the next packet to the peer may use; without one, the first
// path.
func (p *peer) inUse() *path { return p.paths[p.choice.First()] }

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
