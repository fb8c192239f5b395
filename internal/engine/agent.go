package engine

import "context"

// runAgent runs the agent of the registered path's resolver if it is one, and no other.
// Packets must be received already.
func (e *Engine) runAgent(p *path) {
	t := p.t
	if t.mech == nil {
		return
	}
	t.agent.Run(e.ctx, &e.wg, p.Path, p.Registered().Layers[t.mech.Layer()].Resolver, func(ctx context.Context) {
		select {
		case e.learnt <- t:
		case <-ctx.Done():
		}
	}, func() {
		t.mech.Fail()
		e.somethingChanged()
	})
}

// learn gives the interface the addresses and routes that the routers advertised.
func (t *tunnel) learn() {
	if s := t.agent.Running(); s != nil {
		t.Learn(s.Learnt())
	}
}
