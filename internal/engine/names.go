package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
)

// resolution is what a DNS name has become.
type resolution struct {
	t     *tunnel
	p     *peer // whose remote it is; nil: a host of the tunnel's mechanism
	host  int
	name  string
	addrs []netip.Addr
}

// resolveInterval is how often a name is looked up again: names of hosts with
// changing addresses have short lives, and the resolver does not tell us how short.
const resolveInterval = 5 * time.Minute

// resolveRetry is how soon after a failure.
const resolveRetry = 5 * time.Second

// lookups bounds how many names are looked up at once.
const lookups = 16

// followNames resolves the names in a tunnel's configuration again and again.
func (e *Engine) followNames(ctx context.Context, t *tunnel) {
	network := "ip4"
	if t.outerVersion() == 6 {
		network = "ip6"
	}
	for _, p := range t.peers {
		if name := p.remote().Name; name != "" {
			p.doubt = make(chan struct{}, 1)
			e.wg.Go(func() { e.follow(ctx, network, resolution{t: t, p: p, name: name}) })
		}
	}
	if t.mech == nil {
		return
	}
	for i, h := range t.mech.cfg.Hosts() {
		if h.Name != "" {
			e.wg.Go(func() { e.follow(ctx, "ip4", resolution{t: t, host: i, name: h.Name}) })
		}
	}
}

// follow tells the control loop each time that a name has other addresses, until
// ctx ends.
func (e *Engine) follow(ctx context.Context, network string, r resolution) {
	var doubt chan struct{}
	if r.p != nil {
		doubt = r.p.doubt
	}
	for {
		wait, looked := resolveRetry, time.Now()
		if addrs := e.lookUp(ctx, network, r.name); len(addrs) > 0 {
			wait = resolveInterval
			if !slices.Equal(addrs, r.addrs) {
				r.addrs = addrs
				select {
				case e.names <- r:
				case <-ctx.Done():
				}
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
	select {
	case p.doubt <- struct{}{}:
	default: // not a name, or known already
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
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	if err != nil {
		return nil
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
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
			r.log().Log(r.t.level(), "resolved", zap.String("name", r.name), zap.Stringers("addresses", r.addrs))
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
	if r.p == nil {
		r.t.mech.hosts[r.host] = r.addrs
		return true
	}
	if slices.Contains(r.addrs, r.p.resolved) {
		return false
	}
	if was := r.p.resolved; was.IsValid() {
		text := fmt.Sprintf("the name %s is %v now, was %v", r.name, r.addrs[0], was)
		r.p.repaired(repairName, text)
		r.p.remember(text)
	}
	r.p.resolved = r.addrs[0]
	return true
}
