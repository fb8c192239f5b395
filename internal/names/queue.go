package names

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Queue passes the addresses of names to the goroutine that uses them.
type Queue struct {
	resolver *Resolver
	results  chan Result
}

// Result is the addresses of a name, and the function that uses them.
type Result struct {
	addrs []netip.Addr
	use   Use
	over  <-chan struct{} // closed when the result is no longer needed
}

// Use uses the addresses of a name, and reports whether that changes anything.
type Use func([]netip.Addr) (changed bool)

// NewQueue returns a Queue for names that a Resolver looks up.
func NewQueue(r *Resolver) *Queue { return &Queue{r, make(chan Result)} }

// C returns the channel of the results. What is received must be given to Apply.
func (q *Queue) C() <-chan Result { return q.results }

// Apply applies a result and those that follow within a time, and reports whether any of
// them changes something.
func (q *Queue) Apply(ctx context.Context, r Result, within time.Duration) (changed bool) {
	settled := time.After(within)
	for {
		select {
		case <-r.over:
		default:
			changed = r.use(r.addrs) || changed
		}
		select {
		case r = <-q.results:
		case <-settled:
			return changed
		case <-ctx.Done():
			return changed
		}
	}
}

// Follow is Remote.Follow with results in the queue.
func (q *Queue) Follow(ctx context.Context, wg *sync.WaitGroup, r *Remote, network, name string, use Use) {
	r.Follow(ctx, wg, q.resolver, network, name, q.found(use))
}

// found returns a function that passes on the addresses of a name.
func (q *Queue) found(use Use) func(context.Context, []netip.Addr) {
	return func(ctx context.Context, addrs []netip.Addr) {
		select {
		case q.results <- Result{addrs, use, ctx.Done()}:
		case <-ctx.Done():
		}
	}
}

// Group is names that are followed together. One goroutine owns it.
type Group struct {
	stop context.CancelFunc // nil: no name is followed
}

// Follow starts a goroutine of wg that looks up another name until ctx ends or Stop is
// called. The results are in the queue.
func (g *Group) Follow(ctx context.Context, wg *sync.WaitGroup, q *Queue, network, name string, use Use) {
	stop := g.stop
	ctx, cancel := context.WithCancel(ctx)
	g.stop = func() {
		cancel()
		if stop != nil {
			stop()
		}
	}
	wg.Go(func() { q.resolver.Follow(ctx, network, name, nil, q.found(use)) })
}

// Stop stops following the names.
func (g *Group) Stop() {
	if g.stop != nil {
		g.stop()
		g.stop = nil
	}
}
