package engine

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/datapath"
	"sixfour/internal/pathmtu"
	"sixfour/internal/recovery"
)

// prober finds the path MTUs of all peers. It runs on one goroutine, which sleeps while
// no large packets are sent, and reports its results to the control loop.
//
// A path MTU does not change the MTU of the interface, which depends on the first hop
// only; ICMP tells senders of smaller limits. One interface may have many peers, each with
// its own path, and an interface with an MTU below 1280 bytes would lose IPv6. The
// kernel's tunnels work in the same way.
type prober struct {
	log     *zap.Logger
	wake    chan struct{}
	asleep  atomic.Bool
	reports chan tooBig
	answers chan answer
	updates chan mtuUpdate

	mu      sync.Mutex
	fresh   []*path // to be watched from now on
	leaving bool    // some watched peers are retired

	// Used by the goroutine only.
	paths    []*path // watched peers
	searches map[*path]*search
	seen     map[*path]uint64 // large packets already counted
	checks   allowance        // bytes allowed for checking unproven reports
}

// tooBig is a router's report about the MTU of a tunnel's path.
type tooBig struct {
	p     *path
	mtu   encap.PathMTU
	inner []byte // the quoted packet, as far as it was quoted
	proof bool   // it quotes a probe, which an attacker off the path cannot know
	size  int    // of the report, in bytes
}

// answer is an answer to a path MTU probe.
type answer struct {
	p   *path
	seq uint16
}

// mtuUpdate is an MTU update: what the prober learnt about a path.
type mtuUpdate struct {
	p         *path
	layers    []encap.Layer
	link, mtu encap.PathMTU
	by        pathmtu.Source
	applied   chan struct{} // closed when the path has been updated
}

// search is the state of the path MTU search of one peer.
type search struct {
	*pathmtu.Path
	layers  []encap.Layer // of the path that is searched
	link    encap.PathMTU
	options encap.Options
	stack   *encap.Stack // for probes
	again   time.Time    // time of the next step; zero: when there is traffic
	asked   uint64       // the peer's asked6 at the last step
	owed    int          // large packets still expected as answers to those requests
}

// owedMost limits how many answers are expected: they may never be sent.
const owedMost = 16

// traffic returns how many of n large packets were more than answers to the peer's
// probes. If answers counted as traffic, two ends would keep each other probing forever.
func (pr *search) traffic(n int, asked uint64) int {
	pr.owed = min(pr.owed+int(min(asked-pr.asked, owedMost)), owedMost)
	pr.asked = asked
	answers := min(n, pr.owed)
	pr.owed -= answers
	return n - answers
}

func newProber() *prober {
	return &prober{
		wake:     make(chan struct{}, 1),
		reports:  make(chan tooBig, 64),
		answers:  make(chan answer, 256),
		updates:  make(chan mtuUpdate),
		searches: make(map[*path]*search),
		seen:     make(map[*path]uint64),
		checks:   newAllowance(time.Now()),
	}
}

// watch makes the prober watch a peer from now on. Of a hub with many peers it watches
// only those to which there is traffic.
func (p *prober) watch(path *path) {
	if !path.watched.Load() && !path.watched.Swap(true) {
		p.mu.Lock()
		if !path.retired {
			p.fresh = append(p.fresh, path)
		}
		p.mu.Unlock()
	}
	p.notify()
}

// forget makes the prober forget peers that were removed.
func (p *prober) forget(peers []*path) {
	p.mu.Lock()
	for _, path := range peers {
		path.retired = true
	}
	p.leaving = true
	p.mu.Unlock()
	p.notify()
}

// hasForgotten reports whether a peer was removed.
func (p *prober) hasForgotten(path *path) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return path.retired
}

// settle adds new peers to the watched ones, and drops retired ones.
func (p *prober) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = append(p.paths, p.fresh...)
	p.fresh = nil
	if !p.leaving {
		return
	}
	p.leaving = false
	p.paths = slices.DeleteFunc(p.paths, func(path *path) bool {
		if path.retired {
			delete(p.searches, path)
			delete(p.seen, path)
		}
		return path.retired
	})
}

// notify wakes the prober if it sleeps.
func (p *prober) notify() {
	if p.asleep.Load() && p.asleep.Swap(false) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// tooBig passes on a router's report about an inner packet; size is the length of the
// report in bytes. If there are too many reports, some are dropped: routers repeat them.
func (p *prober) tooBig(of *path, mtu encap.PathMTU, inner []byte, size int) {
	if !of.reports.Allow() {
		return
	}
	select {
	case p.reports <- tooBig{of, mtu, bytes.Clone(inner), of.echo.Proves(inner), size}:
	default:
	}
}

// reportsPerSecond limits how many reports about a peer are examined.
const reportsPerSecond = 100

// trafficPoll is how often traffic counters are read while there is traffic.
const trafficPoll = 500 * time.Millisecond

// guard calls f. After a panic the state of all paths is discarded and learnt again.
func (p *prober) guard(f func()) {
	if recovery.Guard(p.log, "searching path MTUs", f) {
		clear(p.searches)
		clear(p.seen)
	}
}

// run runs the prober until ctx ends.
func (p *prober) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		case r := <-p.reports:
			p.guard(func() { p.handleReport(ctx, r) })
		case a := <-p.answers:
			p.guard(func() { p.handleAnswer(a) })
		}
		p.asleep.Store(false)
		next := time.Now().Add(trafficPoll)
		p.guard(func() { next = p.step(ctx) })
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		if next.IsZero() || time.Until(next) > trafficPoll { // let traffic wake the goroutine
			p.asleep.Store(true)
			if p.pending() { // something arrived before asleep was set
				timer.Reset(0)
			}
		}
	}
}

// handleAnswer handles an answer and all others that are waiting: a step visits all peers, so
// one step for each answer would be slow with many peers.
func (p *prober) handleAnswer(a answer) {
	now := time.Now()
	for {
		if pr := p.searches[a.p]; pr != nil {
			pr.Answer(a.seq, now)
			pr.again = now
		}
		select {
		case a = <-p.answers:
		default:
			return
		}
	}
}

// pending reports whether a peer was sent large packets that are not counted yet, or has a
// new path.
func (p *prober) pending() bool {
	p.mu.Lock()
	fresh := len(p.fresh) > 0 || p.leaving
	p.mu.Unlock()
	if fresh {
		return true
	}
	for _, path := range p.paths {
		wire, pr := path.Wire.Load(), p.searches[path]
		if path.Large.Load() != p.seen[path] || path.arrived.Load() || wire != nil && path.learns(wire) && !pr.isAbout(wire) {
			return true
		}
	}
	return false
}

// learns reports whether to search the MTU of the peer's path: it is needed, and answers
// to probes can be received. An automatic tunnel has too many paths.
func (p *path) learns(wire *datapath.Wire) bool {
	return wire.Stack.NeedsPathMTU() && !p.t.automatic() && p.listening.Load()
}

// isAbout reports whether a path has the layers, first hop and options that are being
// searched.
func (pr *search) isAbout(p *datapath.Wire) bool {
	return pr != nil && p.Is(pr.layers, pr.link) && p.Options == pr.options
}

// step does all work that is due, and returns when the next is; zero: when there is
// traffic.
func (p *prober) step(ctx context.Context) (next time.Time) {
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	p.settle()
	for _, path := range p.paths {
		large := path.Large.Load()
		pr := p.probing(path, now)
		if pr == nil {
			p.seen[path] = large
			continue
		}
		if path.arrived.Load() {
			path.arrived.Store(false)
			pr.Received(now)
			pr.again = now
		}
		if n := large - p.seen[path]; n > 0 {
			pr.Sent(pr.traffic(int(n), path.Requests.Large.Load()), now)
			p.seen[path] = large
			sooner(now.Add(trafficPoll))
		} else if pr.again.IsZero() {
			continue
		} else if now.Before(pr.again) {
			sooner(pr.again)
			continue
		}
		var probes []pathmtu.Packet
		probes, pr.again = pr.Next(now)
		for _, q := range probes {
			if wire := path.Wire.Load(); wire.Is(pr.layers, pr.link) {
				path.echo.SendMTUProbe(wire, pr.stack, q.Size, q.Seq)
			}
			if pr.Checking() {
				p.checks.spend(q.Size)
			}
		}
		p.report(ctx, path, pr)
		path.Notices.Request(wantedByProber, pr.Unknown())
		if !pr.again.IsZero() {
			sooner(pr.again)
		}
	}
	return next
}

// probing returns the state for a peer's present path, or nil if it has no path or its
// MTU is not to be learnt.
func (p *prober) probing(path *path, now time.Time) *search {
	wire, pr := path.Wire.Load(), p.searches[path]
	if wire == nil || !path.learns(wire) {
		return nil
	}
	if pr.isAbout(wire) {
		return pr
	}
	// Use a path MTU larger than any probe, so that probes are sent with DF.
	wide := wire.Hop.MTU + encap.PathMTU(int(encap.MinTunnelMTU6)+encap.Headroom)
	stack, err := encap.New(wire.Layers, wide, wire.Options, nil, path.Record)
	if err != nil { // cannot happen: the path has a stack of the same layers
		path.log().Error("path MTU", zap.Error(err))
		return nil
	}
	pr = &search{Path: pathmtu.New(int(wire.Hop.MTU)), layers: wire.Layers, link: wire.Hop.MTU, options: wire.Options, stack: stack, again: now, asked: path.Requests.Large.Load()}
	p.searches[path] = pr
	return pr
}

// handleReport handles a router's report. A report without proof is checked with probes if
// the peer answers them.
func (p *prober) handleReport(ctx context.Context, r tooBig) {
	now := time.Now()
	pr, watched := p.probing(r.p, now), r.p.watched.Load()
	if pr == nil {
		return
	}
	if !r.proof {
		p.checks.earn(r.size)
		// Without an allowance, ignore the report if nothing else is sent to the peer,
		// which is the case without large packets, or if confirmations will show anyway
		// whether the report is true.
		if (!watched || pr.Answering()) && !p.checks.any(now) {
			return
		}
	}
	p.watch(r.p)
	believed := pr.TooBig(int(r.mtu), r.proof, now)
	pr.again = now
	p.report(ctx, r.p, pr)
	// Tell the sender now if possible: otherwise when it sends again.
	if !believed || r.inner == nil || r.p.echo.Sent(r.inner) {
		return
	}
	if wire := r.p.Wire.Load(); wire != nil && wire.MTU == r.mtu {
		limit := int(wire.Stack.LimitTo(r.inner))
		if header.TotalLen(r.inner) > limit && !wire.Stack.InPieces(r.inner, header.TotalLen(r.inner)) {
			r.p.t.Reply.TooBig(limit, r.inner, nil)
		}
	}
}

// report reports a new MTU to the control loop, and waits until the path has it.
func (p *prober) report(ctx context.Context, path *path, pr *search) {
	mtu, by := pr.MTU()
	wire := path.Wire.Load()
	if wire == nil || !pr.isAbout(wire) || int(wire.MTU) == mtu && wire.By == by {
		return
	}
	l := mtuUpdate{path, pr.layers, pr.link, encap.PathMTU(mtu), by, make(chan struct{})}
	select {
	case p.updates <- l:
	case <-ctx.Done():
		return
	}
	select {
	case <-l.applied:
	case <-ctx.Done():
		return
	}
	if now := path.Wire.Load(); now != nil && now.MTU < wire.MTU && by == pathmtu.Probe {
		path.Sample.Tell(path.Tunnel, now)
	}
}
