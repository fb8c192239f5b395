package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sixfour/internal/readiness"
	"slices"
	"sync"
	"time"
)

// apply brings the kernel and the goroutines in line with the new configuration. Steps
// that are slow or can fail come first; steps that cannot be undone come last, in finish.
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
	r.gateway = e.gateway.Config()
	e.gateway.SetConfig(r.cfg.Gateway)
	for _, c := range r.changes {
		c.follow(e)
		e.heartbeat()
	}
	if err := e.takeAll(slices.Concat(r.added, r.revised())); err != nil {
		return err
	}
	if r.onlyPeers() {
		for _, c := range r.changes {
			e.replacePeers(c)
			e.heartbeat()
		}
		return nil
	}
	e.takeEffect()
	return nil
}

// onlyPeers reports whether only peers of tunnels have changed, and few of them.
func (r *reload) onlyPeers() bool {
	return len(r.added)+len(r.removed) == 0 && reflect.DeepEqual(r.gateway, r.cfg.Gateway) &&
		!slices.ContainsFunc(r.changes, func(c *revision) bool { return !c.onlyPeers() })
}

// replacePeers is takeEffect for a tunnel of which a few peers have changed. It takes the
// same time however many peers the tunnel has. A full evaluation follows every reload.
func (e *Engine) replacePeers(r *revision) {
	for _, one := range r.displaced() {
		e.arrivals.Displace(one)
	}
	held := slices.Clone(r.t.held.Routes)
	moved := r.moved()
	for i, route := range e.routesTo(moved) {
		e.evaluate(moved[i], route)
	}
	r.t.holdRoutes(held)
	e.arrivals.Arrange()
	e.followKernelPeers(r.t, r.touched())
}

// revised returns the tunnels that change in place.
func (r *reload) revised() []*tunnel {
	tunnels := make([]*tunnel, len(r.changes))
	for i, c := range r.changes {
		tunnels[i] = c.t
	}
	return tunnels
}

// takeEffect updates the paths of all peers, and the table, to the configuration.
func (e *Engine) takeEffect() {
	if e.gateway.MustYield() {
		e.syncGateway()
	}
	e.arrivals.Renew()
	for _, t := range e.tunnels {
		e.arrivals.NeedShards(t.Queues)
	}
	e.evaluatePeers(e.tunnels)
	for _, t := range e.tunnels {
		t.setMTU()
		t.renumber()
		e.heartbeat()
	}
	e.arrivals.Arrange()
	e.followKernel()
}

// open makes an interface without routes: other interfaces may still have them.
func (r *reload) open(t *tunnel) error {
	r.e.heartbeat()
	s := t.settings()
	s.NoWait = r.impatient()
	s.Routes = nil
	if err := r.e.open(t, s); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
	}
	r.opened = append(r.opened, t)
	return nil
}

// impatient reports whether the reload can no longer wait for another process to release
// interfaces.
func (r *reload) impatient() bool { return time.Since(r.begun) > openTime }

// leave removes addresses and routes that interfaces are not to have any more: all of
// them from interfaces that stay, and from those that will be removed only the routes
// that another interface is to get.
func (r *reload) leave() error {
	r.left = true
	for _, c := range r.changes {
		r.e.heartbeat()
		if c.t.Link == nil { // the interface is gone and will be made again
			continue
		}
		if err := c.t.Link.RemoveOthers(c.t.addressesOf(&c.cfg), c.cfg.Routes); err != nil {
			return fmt.Errorf("tunnel %s: %w", c.t.cfg.Name, err)
		}
	}
	wanted := r.newRoutes()
	for _, t := range r.removed {
		r.e.heartbeat()
		keep := slices.DeleteFunc(slices.Clone(t.cfg.Routes), func(p netip.Prefix) bool { return wanted[routeIn{t.cfg.Netns, p}] })
		if t.Link == nil || len(keep) == len(t.cfg.Routes) {
			continue
		}
		if err := t.Link.RemoveOthers(t.addresses(), keep); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
		}
	}
	return nil
}

// newRoutes returns the routes of all added and changed tunnels.
func (r *reload) newRoutes() map[routeIn]bool {
	routes := make(map[routeIn]bool)
	for _, t := range r.added {
		for _, p := range t.cfg.Routes {
			routes[routeIn{t.cfg.Netns, p}] = true
		}
	}
	for _, c := range r.changes {
		for _, p := range c.cfg.Routes {
			routes[routeIn{c.t.cfg.Netns, p}] = true
		}
	}
	return routes
}

// takeAll adds the addresses and routes that interfaces lack.
func (e *Engine) takeAll(tunnels []*tunnel) error {
	for _, t := range tunnels {
		e.heartbeat()
		// What was already missing is no reason to refuse a configuration.
		if err := t.Complete(t.addresses(), t.routes()); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.cfg.Name, err)
		}
	}
	return nil
}

// closeReplaced removes the interfaces whose names new tunnels need.
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

// shutAll removes the paths and interfaces of tunnels. It works in parallel: the kernel
// takes long to remove an interface, but no longer to remove many at once.
func shutAll(tunnels []*tunnel) {
	var all sync.WaitGroup
	for _, t := range tunnels {
		all.Go(t.shut)
	}
	all.Wait()
}

// shutAll removes the paths and interfaces of tunnels, even if copies of the interfaces'
// descriptors are stored.
func (e *Engine) shutAll(tunnels []*tunnel) {
	var all sync.WaitGroup
	for _, t := range tunnels {
		all.Go(func() {
			t.Discard(e.arrivals.Sockets.Kept)
			t.shut()
		})
	}
	readiness.Await(&all, e.heartbeat)
}

// shut removes the tunnel's paths, interface and sockets.
func (t *tunnel) shut() {
	for p := range t.paths() {
		p.publish(nil)
	}
	t.Close(t.wires.Senders)
	t.wires.Senders.Close()
}

// undo restores everything as it was before the reload.
func (r *reload) undo() (err error) {
	e := r.e
	e.arrivals.Renew() // ports may have been opened for tunnels that are given up
	if r.assumed {
		e.mu.Lock()
		for _, c := range r.changes {
			c.back()
		}
		e.tunnels = r.before
		e.mu.Unlock()
		e.gateway.SetConfig(r.gateway)
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
			e.heartbeat()
			if c.t.Link != nil {
				err = errors.Join(err, c.t.Link.RemoveOthers(c.t.addressesOf(&c.old), c.old.Routes))
			}
		}
	}
	if len(r.closed) > 0 { // evaluate the paths first, as at the start
		e.evaluatePeers(r.closed)
	}
	for _, t := range r.closed {
		e.heartbeat()
		s := t.settings()
		s.NoWait = r.impatient()
		if lost := e.open(t, s); lost != nil {
			t.Lack(lost)
			err = errors.Join(err, fmt.Errorf("tunnel %s: %w", t.cfg.Name, lost))
		}
	}
	if r.left {
		err = errors.Join(err, e.takeAll(slices.Concat(r.removed, r.revised())))
	}
	if r.assumed || len(r.closed) > 0 {
		e.takeEffect()
	}
	e.watchAll(r.before)
	if err != nil {
		return fmt.Errorf("and the earlier state could not be restored: %w", err)
	}
	return nil
}

// finish starts what is new and removes what is no longer needed.
func (r *reload) finish() {
	e := r.e
	for _, t := range r.added {
		e.begin(t)
		e.heartbeat()
	}
	for _, c := range r.changes {
		c.finish(e)
		e.heartbeat()
	}
	e.shutAll(r.removed)
	for _, t := range r.removed {
		t.retire(e)
		e.heartbeat()
	}
	for _, name := range r.plan.Removed {
		e.endCaptures(name)
	}
	e.watchAll(r.after)
}

// retire stops all background work of a tunnel that was removed.
func (t *tunnel) retire(e *Engine) {
	t.Retired.Store(true)
	t.wires.Senders.Close()
	for _, p := range t.peers {
		if c := p.choice.Load(); c != nil {
			c.End()
		}
	}
	t.Reply.Retire()
	t.hosts.Stop()
	for p := range t.paths() {
		p.far.Stop()
	}
	t.agent.End()
	t.kernel.Remove()
	e.forget(slices.Collect(t.paths()))
	for p := range t.paths() {
		p.Keeper.Mark(p.Life)
	}
}

// routeIn is the destination of a route in a network namespace.
type routeIn struct {
	namespace string
	to        netip.Prefix
}
