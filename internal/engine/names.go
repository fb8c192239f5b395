package engine

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
)

// resolution is what a DNS name has become.
type resolution struct {
	t     *tunnel
	p     *peer // whose remote it is; nil: a host of the tunnel's mechanism
	host  int
	name  string
	addrs []netip.Addr
	over  <-chan struct{} // closed when nobody wants to know any more
}

// resolveInterval is how often a name is looked up again: names of hosts with
// changing addresses have short lives, and the resolver does not tell us how short.
const resolveInterval = 5 * time.Minute

// resolveRetry is how soon after a failure.
const resolveRetry = 5 * time.Second

// lookups bounds how many names are looked up at once.
const lookups = 16

// followNames resolves the names in a tunnel's configuration again and again.
func (e *Engine) followNames(t *tunnel) {
	for _, p := range t.peers {
		e.followPeer(p)
	}
	e.followHosts(t)
}

// followPeer does so for the name of a peer, if it has one, and no longer for one that
// it had.
func (e *Engine) followPeer(p *peer) {
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
	p.doubt.Store(&doubt)
	e.wg.Go(func() { e.follow(ctx, network, resolution{t: p.t, p: p, name: name, over: ctx.Done()}, doubt) })
}

func (p *peer) stopFollowing() {
	if p.unfollow != nil {
		p.unfollow()
		p.unfollow = nil
		p.doubt.Store(nil)
	}
}

// followHosts does so for the names of a tunnel's mechanism.
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
		if t.unfollow == nil {
			ctx, t.unfollow = context.WithCancel(e.ctx)
		}
		e.wg.Go(func() { e.follow(ctx, "ip4", resolution{t: t, host: i, name: h.Name, over: ctx.Done()}, nil) })
	}
}

// stopFollowing is for the mechanism's hosts.
func (t *tunnel) stopFollowing() {
	if t.unfollow != nil {
		t.unfollow()
		t.unfollow = nil
	}
}

// follow tells the control loop how the first look-up of a name ended, and each time
// that the name has other addresses, until ctx ends.
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

// isDoubtful is called when somebody says that nobody is at the peer's address: if
// that is a name's, it may have moved, and is looked up at once (mechanisms 2.7).
func (p *peer) isDoubtful() {
	d := p.doubt.Load()
	if d == nil { // not a name
		return
	}
	select {
	case *d <- struct{}{}:
	default: // known already
	}
}

// lookUp are a name's addresses, in order; none if it does not resolve now.
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

// usable are the addresses that one end of a tunnel can have, in order, of those that
// somebody's name server says: 0.0.0.0 is what one answers that blocks a name, and the
// kernel would send to ourselves.
func usable(addrs []netip.Addr) []netip.Addr {
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Zone() != "" || config.NotUnicast(a) != "" })
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// takeNames takes in a resolution and those that follow at once, and reports
// whether any of them changes something: of a hub's many names each would
// otherwise have all peers looked at.
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
		return r.t.log
	}
	return r.p.log()
}

// apply takes a resolution in. A peer's name may have several addresses, in any
// order: we stay with the one that we have.
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
