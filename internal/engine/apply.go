package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// apply makes the kernel and the goroutines go by the new configuration. What takes
// long, and what may fail, comes first; what goes without return comes last, in
// finish.
func (r *reload) apply() error {
	e := r.e
	e.watchAll(slices.Concat(r.before, r.after))
	e.evaluatePeers(r.added)
	replaced := make(map[string]bool)
	for _, t := range r.removed {
		replaced[t.cfg.Name] = true
	}
	for _, t := range r.added {
		if !replaced[t.cfg.Name] {
			if err := r.open(t); err != nil {
				return err
			}
		}
	}
	if err := r.leave(); err != nil {
		return err
	}
	r.closeReplaced()
	for _, t := range r.added {
		if replaced[t.cfg.Name] {
			if err := r.open(t); err != nil {
				return err
			}
		}
	}
	r.assumed = true
	e.mu.Lock()
	for _, c := range r.changes {
		c.put()
	}
	e.tunnels = r.after
	e.mu.Unlock()
	r.gateway, e.gate.cfg = e.gate.cfg, r.cfg.Gateway
	for _, c := range r.changes {
		c.follow(e)
	}
	if err := takeAll(slices.Concat(r.added, r.revised())); err != nil {
		return err
	}
	e.takeEffect()
	return nil
}

// revised are the tunnels that change in place.
func (r *reload) revised() []*tunnel {
	tunnels := make([]*tunnel, len(r.changes))
	for i, c := range r.changes {
		tunnels[i] = c.t
	}
	return tunnels
}

// takeEffect brings the paths of all peers, and the table, in line with the
// configuration.
func (e *Engine) takeEffect() {
	e.yieldDefaultRoute()
	e.stale = true
	for _, t := range e.tunnels {
		e.shards = max(e.shards, t.queues)
	}
	e.evaluatePeers(e.tunnels)
	for _, t := range e.tunnels {
		t.setMTU()
		t.renumber()
	}
	e.arrange()
}

// open makes an interface without routes: others may have them still.
func (r *reload) open(t *tunnel) error {
	s := t.settings()
	s.Routes = nil
	if err := r.e.open(t, s); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
	}
	r.opened = append(r.opened, t)
	return nil
}

// leave makes interfaces give up what they are not to have any more: those that stay,
// so that others may have it, and of those that go only that.
func (r *reload) leave() error {
	r.left = true
	for _, c := range r.changes {
		if c.t.link == nil { // it was lost, and will be made again
			continue
		}
		if err := c.t.link.Leave(c.t.addressesOf(&c.cfg), c.cfg.Routes); err != nil {
			return fmt.Errorf("tunnel %s: %w", c.t.cfg.Name, err)
		}
	}
	wanted := r.newRoutes()
	for _, t := range r.removed {
		keep := slices.DeleteFunc(slices.Clone(t.cfg.Routes), func(p route) bool { return wanted[place{t.cfg.Netns, p}] })
		if t.link == nil || len(keep) == len(t.cfg.Routes) {
			continue
		}
		if err := t.link.Leave(t.addresses(), keep); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
		}
	}
	return nil
}

// newRoutes are those that an interface is to have that does not have them.
func (r *reload) newRoutes() map[place]bool {
	routes := make(map[place]bool)
	for _, t := range r.added {
		for _, p := range t.cfg.Routes {
			routes[place{t.cfg.Netns, p}] = true
		}
	}
	for _, c := range r.changes {
		for _, p := range c.cfg.Routes {
			routes[place{c.t.cfg.Netns, p}] = true
		}
	}
	return routes
}

// takeAll gives interfaces the addresses and routes that they lack.
func takeAll(tunnels []*tunnel) error {
	for _, t := range tunnels {
		if t.link == nil {
			continue
		}
		s, waited := t.settings(), t.link.Lacks() != nil
		err := t.link.Take(s.Addresses, s.Routes)
		switch {
		case waited: // what was missing before is no reason to refuse a configuration
			t.lack(err)
		case err != nil:
			return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
		}
	}
	return nil
}

// closeReplaced removes the interfaces whose names others are to have.
func (r *reload) closeReplaced() {
	names := make(map[string]bool)
	for _, t := range r.added {
		names[t.cfg.Name] = true
	}
	for _, t := range r.removed {
		if names[t.cfg.Name] {
			r.closed = append(r.closed, t)
		}
	}
	r.e.shutAll(r.closed)
}

// shutAll takes the paths and interfaces of tunnels away. The kernel takes long to
// remove an interface, but not longer to remove many.
func shutAll(tunnels []*tunnel) {
	var all sync.WaitGroup
	for _, t := range tunnels {
		all.Go(t.shut)
	}
	all.Wait()
}

// shutAll does so although somebody keeps copies of the interfaces' descriptors.
func (e *Engine) shutAll(tunnels []*tunnel) {
	var all sync.WaitGroup
	for _, t := range tunnels {
		all.Go(func() {
			e.discard(t)
			t.shut()
		})
	}
	all.Wait()
}

// shut takes away what the tunnel has outside.
func (t *tunnel) shut() {
	for _, p := range t.peers {
		p.replacePath(nil)
	}
	t.close()
	t.closeSockets()
}

// undo puts everything back.
func (r *reload) undo() (err error) {
	e := r.e
	if r.assumed {
		e.mu.Lock()
		for _, c := range r.changes {
			c.back()
		}
		e.tunnels = r.before
		e.mu.Unlock()
		e.gate.cfg = r.gateway
		for _, c := range r.changes {
			c.unfollow(e)
		}
	}
	e.shutAll(r.opened)
	for _, t := range r.added {
		t.retire(e)
	}
	if r.left {
		for _, c := range r.changes {
			if c.t.link != nil {
				err = errors.Join(err, c.t.link.Leave(c.t.addressesOf(&c.old), c.old.Routes))
			}
		}
	}
	if len(r.closed) > 0 { // the paths first, as when they were made
		e.evaluatePeers(r.closed)
	}
	for _, t := range r.closed {
		if lost := e.open(t, t.settings()); lost != nil {
			t.lack(lost)
			err = errors.Join(err, fmt.Errorf("tunnel %s: %w", t.cfg.Name, lost))
		}
	}
	if r.left {
		err = errors.Join(err, takeAll(slices.Concat(r.removed, r.revised())))
	}
	if r.assumed || len(r.closed) > 0 {
		e.takeEffect()
	}
	e.watchAll(r.before)
	if err != nil {
		return fmt.Errorf("and what was there before could not be put back: %w", err)
	}
	return nil
}

// finish takes away what is no longer needed.
func (r *reload) finish() {
	e := r.e
	for _, t := range r.added {
		e.begin(t)
	}
	for _, c := range r.changes {
		c.finish(e)
	}
	e.shutAll(r.removed)
	for _, t := range r.removed {
		t.retire(e)
	}
	for _, name := range r.plan.Removed {
		e.endCaptures(name)
	}
	e.watchAll(r.after)
}

// retire ends what goes on behind a tunnel that is no more.
func (t *tunnel) retire(e *Engine) {
	t.retired.Store(true)
	t.closeSockets()
	t.reply.retire()
	t.stopFollowing()
	for _, p := range t.peers {
		p.stopFollowing()
	}
	if s := t.speaker.Swap(nil); s != nil {
		s.cancel()
	}
	e.prober.forget(t.peers)
	for _, p := range t.peers {
		e.keeper.mark(p)
	}
}
