package engine

import (
	"context"

	"sixfour/encap/resolve"
	"sixfour/internal/agents"
)

// runAgent stops the agent of a tunnel's former resolver, and starts the resolver of the
// registered path if it is one. Packets must be received already.
func (e *Engine) runAgent(p *path) {
	t := p.t
	if t.mech == nil {
		return
	}
	r := p.Registered().Layers[t.mech.Layer()].Resolver
	if r == t.agentResolver {
		return
	}
	t.agentResolver = r
	agent, ok := r.(resolve.Agent)
	if !ok {
		t.endAgent()
		return
	}
	if t.stopAgent != nil {
		t.stopAgent()
	}
	ctx, cancel := context.WithCancel(e.ctx)
	runner := agents.NewRunner(p.Path, agent, agents.Events{
		Learnt: func() {
			select {
			case e.learnt <- t:
			case <-ctx.Done():
			}
		},
		Failed: func() {
			t.mech.Fail()
			e.somethingChanged()
		},
	})
	t.stopAgent = cancel
	t.setAgent(runner)
	e.wg.Go(func() { runner.Run(ctx) })
}

// learn gives the interface the addresses and routes that the routers advertised.
func (t *tunnel) learn() {
	if s := t.agent.Load(); s != nil {
		t.Learn(s.Learnt())
	}
}

// setAgent sets the running agent of the tunnel's mechanism.
func (t *tunnel) setAgent(r *agents.Runner) {
	t.agent.Store(r)
	t.SetAgent(r)
}

// endAgent stops the agent of the tunnel's mechanism if one runs.
func (t *tunnel) endAgent() {
	if t.stopAgent == nil {
		return
	}
	t.stopAgent()
	t.stopAgent = nil
	t.agent.Store(nil)
	t.SetAgent(nil)
}
