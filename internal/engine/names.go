package engine

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
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

// resolveInterval is how often a name is looked up again. Records of hosts with changing
// addresses have short TTLs, but the resolver does not report them.
const resolveInterval = 5 * time.Minute

// resolveRetry is the pause after a failed look-up.
const resolveRetry = 5 * time.Second

// concurrentLookups limits concurrent look-ups.
const concurrentLookups = 16

// followNames starts to look up the names in a tunnel's configuration regularly.
func (e *Engine) followNames(t *tunnel) {
	for p := range t.paths() {
		e.followPath(p)
	}
	e.followHosts(t)
}

// followPath looks up the name of a path's remote end regularly, if the peer has one, and stops looking up
// its former name.
func (e *Engine) followPath(p *path) {
	p.stopFollowing()
	name := p.remote().Name
	if name == "" {
		return
	}
	network := "ip4"
	if p.t.outerVersion() == 6 {
		network = "ip6"
	}
	ctx, cancel := context.WithCancel(e.ctx)
	doubt := make(chan struct{}, 1)
	p.unfollow = cancel
	p.lookUpSoon.Store(&doubt)
	e.wg.Go(func() { e.follow(ctx, network, resolution{t: p.t, p: p, name: name, over: ctx.Done()}, doubt) })
}

func (p *path) stopFollowing() {
	if p.unfollow != nil {
		p.unfollow()
		p.unfollow = nil
		p.lookUpSoon.Store(nil)
	}
}

// followHosts looks up the names of a tunnel's mechanism regularly.
func (e *Engine) followHosts(t *tunnel) {
	t.stopFollowing()
	if t.mech == nil {
		return
	}
	var ctx context.Context
	for i, h := range t.mech.cfg.Hosts() {
		if h.Name == "" {
			continue
		}
		if t.unfollowHosts == nil {
			ctx, t.unfollowHosts = context.WithCancel(e.ctx)
		}
		e.wg.Go(func() { e.follow(ctx, "ip4", resolution{t: t, host: i, name: h.Name, over: ctx.Done()}, nil) })
	}
}

// stopFollowing stops looking up the names of the mechanism's hosts.
func (t *tunnel) stopFollowing() {
	if t.unfollowHosts != nil {
		t.unfollowHosts()
		t.unfollowHosts = nil
	}
}

// follow sends to the control loop the result of the first look-up of a name, and each
// change of its addresses, until ctx ends.
func (e *Engine) follow(ctx context.Context, network string, r resolution, doubt <-chan struct{}) {
	for first := true; ; first = false {
		wait, looked := resolveRetry, time.Now()
		addrs := e.lookUp(ctx, network, r.name)
		if len(addrs) > 0 {
			wait = resolveInterval
		}
		if first || len(addrs) > 0 && !slices.Equal(addrs, r.addrs) {
			r.addrs = addrs
			select {
			case e.names <- r:
			case <-ctx.Done():
			}
		}
		select {
		case <-time.After(wait):
		case <-doubt:
			select {
			case <-time.After(time.Until(looked.Add(resolveRetry))):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// doubtName is called when the peer's address seems wrong. If the address came from a
// name, the peer may have moved, and the name is looked up soon (mechanisms 2.7).
func (p *path) doubtName() {
	d := p.lookUpSoon.Load()
	if d == nil { // not a name
		return
	}
	select {
	case *d <- struct{}{}:
	default: // already requested
	}
}

// lookUp returns a name's addresses, sorted; none if the look-up fails.
func (e *Engine) lookUp(ctx context.Context, network, name string) []netip.Addr {
	select {
	case e.looking <- struct{}{}:
		defer func() { <-e.looking }()
	case <-ctx.Done():
		return nil
	}
	addrs, err := e.resolver.LookupNetIP(ctx, network, name)
	if err != nil {
		return nil
	}
	return usable(addrs)
}

// usable returns the addresses that an end of a tunnel can have, sorted. A name server that
// blocks a name may answer 0.0.0.0, which the kernel would send to this host.
func usable(addrs []netip.Addr) []netip.Addr {
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Zone() != "" || config.NotUnicast(a) != "" })
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
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
				r.log().Log(r.t.level(), "resolved", zap.String("name", r.name), zap.Stringers("addresses", r.addrs))
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
	return r.p.log()
}

// apply applies a resolution. A peer's name may have several addresses in any order: the
// peer keeps its present one if the name still has it.
func (r *resolution) apply() (changed bool) {
	select {
	case <-r.over:
		return false
	default:
	}
	if r.p == nil {
		r.t.mech.hosts[r.host], r.t.mech.looked = r.addrs, true
		return true
	}
	return r.p.learnName(r.name, r.addrs)
}
