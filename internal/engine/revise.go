package engine

import (
	"fmt"
	"reflect"
	"slices"

	"sixfour/encap/source"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/report"
)

// canBecome reports whether a tunnel, one of the given number, can take another
// configuration and keep its interface.
func (t *tunnel) canBecome(cfg *config.Tunnel, of int) bool {
	want := cfg.QueuesOf(of)
	if cfg.Queues == 0 && t.cfg.Queues == 0 && !cfg.InOrder() { // a different number of tunnels alone is no reason to replace it
		want = t.Queues
	}
	return t.cfg.Netns == cfg.Netns && t.cfg.Hub == cfg.Hub && t.cfg.NoOffload == cfg.NoOffload && t.cfg.Reserve == cfg.Reserve && t.Queues == want &&
		(!t.automatic() && !cfg.Mode.Automatic || reflect.DeepEqual(t.cfg.Mode, cfg.Mode))
}

// revision is a new configuration for a tunnel that keeps its interface, together with the
// old one.
type revision struct {
	t        *tunnel
	cfg, old config.Tunnel
	table    *source.Peers[*datapath.Peer]
	oldTable *source.Peers[*datapath.Peer]
	peers    []*peer
	oldPeers []*peer
	fresh    []*peer // only in the new configuration
	gone     []*peer // only in the old configuration
	changed  []peerRevision
	same     bool // only peers have changed
	renewed  bool // the mechanism has changed
}

// peerRevision is a new configuration of a peer that stays, with the paths of both.
type peerRevision struct {
	p               *peer
	cfg, old        config.Peer
	paths, oldPaths []*path
	fresh, gone     []*path // only in one of them
	past, oldPast   *report.Past
}

// revise prepares a new configuration of a peer. A path stays if its configuration does, in
// whatever order the paths are. Of the others, those with the same index stay and change.
func (p *peer) revise(next *config.Peer) peerRevision {
	r := peerRevision{p: p, cfg: *next, old: p.cfg, oldPaths: p.paths, oldPast: p.past}
	var counts []func() api.PeerStatus
	for _, at := range config.MatchPaths(p.cfg.Paths, next.Paths) {
		if at >= 0 {
			r.paths = append(r.paths, p.paths[at])
			continue
		}
		one := newPath(p)
		r.paths, r.fresh = append(r.paths, one), append(r.fresh, one)
	}
	for _, one := range p.paths {
		if !slices.Contains(r.paths, one) {
			r.gone, counts = append(r.gone, one), append(counts, one.status)
		}
	}
	r.past = p.past.And(counts)
	return r
}

// revise prepares a revision. It identifies peers by their names.
func (t *tunnel) revise(cfg *config.Tunnel) (*revision, error) {
	r := &revision{t: t, cfg: *cfg, old: t.cfg, oldPeers: t.peers, oldTable: t.Peers.Table.Load(), same: t.cfg.SameBesidesPeers(cfg)}
	known := make(map[string]*peer, len(t.peers))
	for _, p := range t.peers {
		known[p.cfg.Name] = p
	}
	for i := range cfg.Peers {
		next := &cfg.Peers[i]
		p := known[next.Name]
		delete(known, next.Name)
		switch {
		case p == nil:
			p = newPeer(t, next)
			r.fresh = append(r.fresh, p)
		case !p.cfg.Equal(next):
			r.changed = append(r.changed, p.revise(next))
		}
		r.peers = append(r.peers, p)
	}
	for _, p := range t.peers {
		if known[p.cfg.Name] != nil {
			r.gone = append(r.gone, p)
		}
	}
	if t.mech != nil {
		r.renewed = !t.mech.HasConfig(cfg.Layers[t.mech.Layer()].Mechanism)
	}
	if !cfg.Hub {
		return r, nil
	}
	var err error
	if r.table, err = r.newTable(); err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", cfg.Name, err)
	}
	return r, nil
}

// newTable returns the table of the new peers by inner destination. It changes the old one if
// few peers are different.
func (r *revision) newTable() (*source.Peers[*datapath.Peer], error) {
	if 8*(len(r.fresh)+len(r.gone)+len(r.changed)) > len(r.peers) {
		return newBehind(r.peers, r.cfg.Peers)
	}
	var old, fresh []source.Peer[*datapath.Peer]
	for _, p := range r.gone {
		old = append(old, source.Peer[*datapath.Peer]{Peer: &p.Peer, Allowed: p.cfg.Allowed})
	}
	for _, c := range r.changed {
		old = append(old, source.Peer[*datapath.Peer]{Peer: &c.p.Peer, Allowed: c.old.Allowed})
		fresh = append(fresh, source.Peer[*datapath.Peer]{Peer: &c.p.Peer, Allowed: c.cfg.Allowed})
	}
	for _, p := range r.fresh {
		fresh = append(fresh, source.Peer[*datapath.Peer]{Peer: &p.Peer, Allowed: p.cfg.Allowed})
	}
	return r.oldTable.Replace(old, fresh)
}

// onlyPeers reports whether nothing but peers is different.
func (r *revision) onlyPeers() bool {
	return r.same && !r.renewed && 8*(len(r.fresh)+len(r.gone)+len(r.changed)) <= len(r.peers)
}

// displaced returns the paths that are only in the old configuration.
func (r *revision) displaced() (paths []*path) {
	for _, p := range r.gone {
		paths = append(paths, p.paths...)
	}
	for _, c := range r.changed {
		paths = append(paths, c.gone...)
	}
	return paths
}

// moved returns the paths of the peers that are new or have changed.
func (r *revision) moved() (paths []*path) {
	for _, p := range r.fresh {
		paths = append(paths, p.paths...)
	}
	for _, c := range r.changed {
		paths = append(paths, c.p.paths...)
	}
	return paths
}

// touched returns the peers that are new or have changed.
func (r *revision) touched() []*peer {
	peers := slices.Clone(r.fresh)
	for _, c := range r.changed {
		peers = append(peers, c.p)
	}
	return peers
}

// put applies the new configuration to the tunnel. The engine's mu must be held.
func (r *revision) put() {
	r.become(&r.cfg, r.peers, r.table)
	for _, c := range r.changed {
		c.p.assume(&c.cfg, c.paths)
		c.p.past = c.past
	}
}

func (r *revision) back() {
	r.become(&r.old, r.oldPeers, r.oldTable)
	for _, c := range r.changed {
		c.p.assume(&c.old, c.oldPaths)
		c.p.past = c.oldPast
	}
}

func (r *revision) become(cfg *config.Tunnel, peers []*peer, table *source.Peers[*datapath.Peer]) {
	t := r.t
	reselect := t.cfg.Select != cfg.Select
	t.cfg.Assume(cfg)
	t.peers = peers
	t.surroundings.Renew()
	t.Peers.Table.Store(table)
	if reselect {
		for _, p := range peers {
			if c := p.choice.Load(); c != nil {
				p.configure(c)
			}
		}
	}
	t.wires.Changed(r.same)
	if r.renewed {
		t.mech.SetConfig(cfg.Layers[t.mech.Layer()].Mechanism)
	}
}

// assume applies a new configuration to a peer, and its paths. It never writes the name.
func (p *peer) assume(cfg *config.Peer, paths []*path) {
	if !config.SamePaths(p.cfg.Paths, cfg.Paths) {
		p.cfg.Paths = cfg.Paths
		p.setPaths(paths)
	}
	if !slices.Equal(p.cfg.InnerRemotes, cfg.InnerRemotes) {
		p.cfg.InnerRemotes = cfg.InnerRemotes
	}
	p.cfg.Allowed = cfg.Allowed
	if p.cfg.Probe != cfg.Probe {
		p.cfg.Probe = cfg.Probe
	}
}

// follow starts to follow the names of the new configuration.
func (r *revision) follow(e *Engine) {
	for _, p := range r.fresh {
		for _, one := range p.paths {
			e.followPath(one)
		}
	}
	for _, c := range r.changed {
		for _, one := range c.fresh {
			e.followPath(one)
		}
	}
	r.refollow(e)
}

func (r *revision) unfollow(e *Engine) {
	e.removePeers(r.fresh)
	for _, c := range r.changed {
		e.removePaths(c.fresh)
	}
	r.refollow(e)
}

// refollow follows the names of the paths that stay and have another remote end.
func (r *revision) refollow(e *Engine) {
	for _, c := range r.changed {
		for i, p := range c.paths {
			at := slices.Index(c.oldPaths, p)
			if at >= 0 && c.cfg.Paths[i].Remote != c.old.Paths[at].Remote {
				p.far.Forget()
				e.followPath(p)
			}
		}
	}
	if r.renewed {
		e.followHosts(r.t)
	}
}

// finish stops the peers and paths that were removed. No table refers to them any more.
func (r *revision) finish(e *Engine) {
	e.removePeers(r.gone)
	for _, c := range r.changed {
		e.removePaths(c.gone)
		if r.t.only != nil {
			for _, one := range c.fresh {
				e.finder.Watch(one.Search)
			}
		}
	}
	if r.renewed {
		r.t.mech.Warn(r.t.Log)
	}
}

// removePeers ends everything that works for peers.
func (e *Engine) removePeers(peers []*peer) {
	var paths []*path
	for _, p := range peers {
		if c := p.choice.Load(); c != nil {
			c.End()
		}
		p.kernel.Load().Remove()
		paths = append(paths, p.paths...)
	}
	e.removePaths(paths)
}

// removePaths ends everything that works for paths.
func (e *Engine) removePaths(paths []*path) {
	for _, one := range paths {
		one.publish(nil)
		one.far.Stop()
		e.arrivals.Displace(one)
	}
	if len(paths) > 0 {
		e.forget(paths)
	}
}
