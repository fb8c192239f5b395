package engine

import (
	"fmt"
	"net/netip"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/netcfg"
	"sixfour/internal/report"
)

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
	e.names.Follow(e.ctx, &e.wg, &p.far, network(p.t.outerVersion()), name, func(addrs []netip.Addr) bool { return p.resolved(name, addrs) })
}

// network returns the network of look-ups for addresses of an IP version.
func network(version int) string { return fmt.Sprintf("ip%d", version) }

// followHosts looks up the names of a tunnel's mechanism regularly.
func (e *Engine) followHosts(t *tunnel) {
	t.hosts.Stop()
	if t.mech == nil {
		return
	}
	ip := network(t.cfg.Kind(t.mech.Layer()).Over())
	for i, h := range t.mech.Hosts() {
		if h.Name != "" {
			t.hosts.Follow(e.ctx, &e.wg, e.names, ip, h.Name, func(addrs []netip.Addr) bool {
				t.mech.Learn(i, addrs)
				t.report.Resolved(t.Log, h.Name, addrs)
				return true
			})
		}
	}
}

// resolved applies new addresses of the name of the path's remote end, and reports whether
// paths must be evaluated.
func (p *path) resolved(name string, addrs []netip.Addr) bool {
	before, changed := p.far.Learn(addrs)
	if before.IsValid() {
		text := fmt.Sprintf("the name %s now resolves to %v, before to %v", name, p.far.Addr(), before)
		p.report.Repaired(report.Name, text)
		p.report.Remember(text)
	}
	if changed {
		p.t.report.Resolved(p.report.Log(), name, addrs)
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
	p.report.Moved(p.remote().Name, from, p.far.Addr(), why)
}
