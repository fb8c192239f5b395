package agents

import (
	"context"
	"sync"
	"sync/atomic"

	"sixfour/encap/resolve"
	"sixfour/internal/datapath"
)

// Slot runs the agent of a tunnel's present resolver, if that is one. One goroutine owns it;
// any goroutine may call Running.
type Slot struct {
	running  atomic.Pointer[Runner]
	resolver resolve.Resolver   // for which the agent runs, if it is one
	stop     context.CancelFunc // stops the agent; nil: none runs
}

// Run stops the agent of the former resolver, and starts that of another one in a goroutine
// of wg until ctx ends. Its packets use a path, at which packets must be received
// already. Learnt is called with a context that ends with the agent.
func (s *Slot) Run(ctx context.Context, wg *sync.WaitGroup, p *datapath.Path, r resolve.Resolver, learnt func(context.Context), failed func()) {
	if r == s.resolver {
		return
	}
	s.resolver = r
	agent, ok := r.(resolve.Agent)
	if !ok {
		s.End()
		return
	}
	if s.stop != nil {
		s.stop()
	}
	ctx, s.stop = context.WithCancel(ctx)
	runner := NewRunner(p, agent, Events{Learnt: func() { learnt(ctx) }, Failed: failed})
	s.set(p.Tunnel, runner)
	wg.Go(func() { runner.Run(ctx) })
}

// set makes a Runner the agent of a tunnel.
func (s *Slot) set(t *datapath.Tunnel, r *Runner) {
	s.running.Store(r)
	t.SetAgent(r)
}

// Running returns the Runner of the agent; nil: none runs.
func (s *Slot) Running() *Runner { return s.running.Load() }

// End stops the agent if one runs.
func (s *Slot) End() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.stop = nil
	if r := s.running.Swap(nil); r != nil {
		r.path.Tunnel.SetAgent(nil)
	}
}
