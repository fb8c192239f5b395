package main

import (
	"context"
	"net/netip"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/grants"
	"sixfour/internal/iface"
)

// newSessions returns the sessions of tunnels whose other end is a server. The engine need not
// exist yet.
func (p *process) newSessions() *grants.Set {
	return grants.New(grants.Options{
		Log:   p.log.Logger,
		Event: func(e api.Event) { p.Happened().Add(e) },
		Taken: func(t *config.Tunnel, route netip.Prefix) error {
			return iface.CheckRoutes(t.Netns, t.Name, []netip.Prefix{route})
		},
		Look: func() map[string]grants.Seen {
			all := map[string]grants.Seen{}
			for _, t := range p.Engine.Status().Tunnels {
				seen := grants.Seen{Phase: t.State.Phase, Since: t.State.Since}
				seen.Local, _ = netip.ParseAddr(t.State.Local)
				seen.Remote, _ = netip.ParseAddr(t.State.Remote)
				all[t.Name] = seen
			}
			return all
		},
	})
}

// applyGrants makes the engine run the present configuration with what servers have granted.
func (p *process) applyGrants(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.grants.Apply(p.cfg)
	_, err := p.Engine.Reload(ctx, a.Config)
	a.Done(err, false)
	return err
}

// Status returns the state of all tunnels, with their sessions, of the broker, and of the map server.
func (p *process) Status() api.Status {
	s := p.Engine.Status()
	p.grants.Fill(&s)
	if p.broker != nil {
		s.Broker = p.broker.Status()
	}
	if s.Tunnels == nil { // only a map server runs
		s.Tunnels = []api.TunnelStatus{}
	}
	if p.mapServer != nil {
		s.LISP = p.mapServer.Status()
	}
	return s
}

// Events delivers events as events.Log says.
func (p *process) Events(ctx context.Context) <-chan api.Event { return p.Happened().Follow(ctx) }
