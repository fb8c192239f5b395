package engine

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/netcfg"
	"sixfour/internal/report"
)

// resolution is the result of looking up a DNS name.
type resolution struct {
	t     *tunnel
	p     *path // the name is this peer's remote; nil: a host of the tunnel's mechanism
	host  int
	name  string
	addrs []netip.Addr
	over  <-chan struct{} // closed when the result is no longer needed
}

// followNames starts to look up the names in a tunnel's configuration regularly.
func (e *Engine) followNames(t *tunnel) {
	for p := range t.paths() {
		e.followPath(p)
	}
	e.followHosts(t)
}

// followPath looks up the name of a path's remote end regularly, if the peer has one, and
// stops looking up its former name.
func (e *Engine) followPath(p *path) {
	name := p.remote().Name
	if name == "" {
		p.far.Stop()
		return
	}
	network := "ip4"
	if p.t.outerVersion() == 6 {
		network = "ip6"
	}
	p.far.Follow(e.ctx, &e.wg, e.resolver, network, name, e.found(resolution{t: p.t, p: p, name: name}))
}

// followHosts looks up the names of a tunnel's mechanism regularly.
func (e *Engine) followHosts(t *tunnel) {
	t.stopFollowing()
	if t.mech == nil {
		return
	}
	var ctx context.Context
	for i, h := range t.mech.Hosts() {
		if h.Name == "" {
			continue
		}
		if t.unfollowHosts == nil {
			ctx, t.unfollowHosts = context.WithCancel(e.ctx)
		}
		e.wg.Go(func() {
			e.resolver.Follow(ctx, "ip4", h.Name, nil, e.found(resolution{t: t, host: i, name: h.Name}))
		})
	}
}

// stopFollowing stops looking up the names of the mechanism's hosts.
func (t *tunnel) stopFollowing() {
	if t.unfollowHosts != nil {
		t.unfollowHosts()
		t.unfollowHosts = nil
	}
}

// found returns a function that sends the addresses of a name to the control loop.
func (e *Engine) found(r resolution) func(context.Context, []netip.Addr) {
	return func(ctx context.Context, addrs []netip.Addr) {
		r := r
		r.addrs, r.over = addrs, ctx.Done()
		select {
		case e.names <- r:
		case <-ctx.Done():
		}
	}
}

// takeNames applies a resolution and those that follow shortly, and reports whether any of
// them changes something. In this way all peers are evaluated once for many names of a
// hub, and not once for each name.
func (e *Engine) takeNames(ctx context.Context, r resolution) (changed bool) {
	settled := time.After(settle)
	for {
		if r.apply() {
			changed = true
			if len(r.addrs) > 0 {
				r.log().Log(r.t.report.Level(), "resolved", zap.String("name", r.name), zap.Stringers("addresses", r.addrs))
			}
		}
		select {
		case r = <-e.names:
		case <-settled:
			return changed
		case <-ctx.Done():
			return changed
		}
	}
}

func (r *resolution) log() *zap.Logger {
	if r.p == nil {
		return r.t.Log
	}
	return r.p.report.Log()
}

// apply applies a resolution, and reports whether paths must be evaluated.
func (r *resolution) apply() (changed bool) {
	select {
	case <-r.over:
		return false
	default:
	}
	if r.p == nil {
		r.t.mech.Learn(r.host, r.addrs)
		return true
	}
	before, changed := r.p.far.Learn(r.addrs)
	if before.IsValid() {
		text := fmt.Sprintf("the name %s now resolves to %v, before to %v", r.name, r.p.far.Addr(), before)
		r.p.report.Repaired(report.Name, text)
		r.p.report.Remember(text)
	}
	return changed
}

// isLookedUp reports whether the first look-up of the peer's name is still running.
func (p *path) isLookedUp() bool { return p.remote().Name != "" && !p.far.Looked() }

// leaveDead moves a peer that is down to the next address of its name.
func (e *Engine) leaveDead(p *path, now time.Time) {
	if !p.far.HasAlternatives() {
		return
	}
	if p.report.WasUp() {
		p.far.Reached()
	}
	if phase, _ := p.report.Phase(); phase != api.Down {
		return
	}
	if due := p.far.Due(); now.Before(due) {
		if e.loop.moveAt.IsZero() || due.Before(e.loop.moveAt) {
			e.loop.moveAt = due
		}
		return
	}
	dead := p.far.Addr()
	if p.far.LeaveDead(now, func(netip.Addr) bool { return e.canUse(p, e.routesTo([]*path{p})[0]) }) {
		p.reportMove(dead, "does not answer")
	}
}

// leaveUnusable moves a peer to the next address of its name if the present one cannot be
// reached, and returns the route to it.
func (e *Engine) leaveUnusable(p *path, answer netcfg.Answer) netcfg.Answer {
	if !p.far.HasAlternatives() || e.canUse(p, answer) {
		return answer
	}
	before := p.far.Addr()
	why := "cannot be reached"
	if answer.Err == nil {
		why = "is an address of this host itself"
	}
	other := answer
	if p.far.Move(func(netip.Addr) bool {
		other = e.routesTo([]*path{p})[0]
		return e.canUse(p, other)
	}) {
		p.reportMove(before, why)
		return other
	}
	return answer
}

// canUse reports whether packets to the address in use of the peer's name, to which the
// answer is the route, leave this host.
func (e *Engine) canUse(p *path, a netcfg.Answer) bool {
	return a.Err == nil && (!a.ToThisHost || e.meets(p, p.far.Addr(), a.Route))
}

// reportMove reports that a peer has left an address of its name.
func (p *path) reportMove(from netip.Addr, why string) {
	text := fmt.Sprintf("%v %s: the next address of %s, %v, is used now", from, why, p.remote().Name, p.far.Addr())
	p.report.Remember(text)
	p.report.Log().Log(p.t.report.FallLevel(zap.InfoLevel), "using the next address of the name", zap.String("name", p.remote().Name),
		zap.Stringer("address", p.far.Addr()), zap.Stringer("before", from), zap.String("why", why))
}
