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
	"sixfour/internal/pathmtu"
)

// prober finds the path MTUs of all peers, on one goroutine, which sleeps while
// there is no traffic of large packets. What it finds out it tells the control
// loop.
//
// A path's MTU does not become that of the interface, which keeps what the first
// hop leaves: ICMP tells senders of what is less. One interface may have many
// peers, each with a path of its own, and an interface below 1280 bytes would
// lose IPv6. It is also what the kernel's tunnels do.
type prober struct {
	log     *zap.Logger
	wake    chan struct{}
	asleep  atomic.Bool
	reports chan tooBig
	answers chan answer
	lessons chan lesson

	mu      sync.Mutex
	fresh   []*peer // to be watched from now on
	leaving bool    // some of those that are watched are retired

	// Of the goroutine.
	peers  []*peer // that are watched
	paths  map[*peer]*probing
	seen   map[*peer]uint64 // large packets
	checks allowance        // of what unproven reports are checked with
}

// tooBig is what a router said of a tunnel's path.
type tooBig struct {
	p     *peer
	mtu   encap.PathMTU
	inner []byte // the packet that it was about, as far as quoted
	proof bool   // that was a probe, of which nobody else can know
	size  int    // of the report, in bytes
}

// answer is an answered probe.
type answer struct {
	p   *peer
	seq uint16
}

// lesson is what the prober learnt of a path.
type lesson struct {
	p         *peer
	layers    []encap.Layer
	link, mtu encap.PathMTU
	by        pathmtu.Source
	applied   chan struct{} // closed when the path has it
}

// probing is what the prober knows of one peer.
type probing struct {
	*pathmtu.Path
	layers  []encap.Layer // of the path that this is about
	link    encap.PathMTU
	options encap.Options
	stack   *encap.Stack // for probes
	again   time.Time    // when to look; zero: when there is traffic
	asked   uint64       // the peer's asked6 at the last look
	owed    int          // large packets still to come that answer those
}

// owedMost bounds how many answers are waited for: they may never come.
const owedMost = 16

// traffic is how many of n large packets are more than answers to the peer's probes:
// two ends that took these for traffic would have each other probe for ever.
func (pr *probing) traffic(n int, asked uint64) int {
	pr.owed = min(pr.owed+int(min(asked-pr.asked, owedMost)), owedMost)
	pr.asked = asked
	answers := min(n, pr.owed)
	pr.owed -= answers
	return n - answers
}

func newProber() *prober {
	return &prober{
		wake:    make(chan struct{}, 1),
		reports: make(chan tooBig, 64),
		answers: make(chan answer, 256),
		lessons: make(chan lesson),
		paths:   make(map[*peer]*probing),
		seen:    make(map[*peer]uint64),
		checks:  newAllowance(time.Now()),
	}
}

// sentLarge counts packets that only some paths carry, and wakes the prober if it
// sleeps.
func (p *peer) sentLarge(n uint64) {
	p.large.Add(n)
	p.t.prober.watch(p)
}

// watch makes the prober look at a peer from now on. Of the many peers of a hub it
// knows only those to which there is traffic.
func (p *prober) watch(peer *peer) {
	if !peer.watched.Load() && !peer.watched.Swap(true) {
		p.mu.Lock()
		if !peer.retired {
			p.fresh = append(p.fresh, peer)
		}
		p.mu.Unlock()
	}
	p.rouse()
}

// forget makes the prober give up peers that are no more.
func (p *prober) forget(peers []*peer) {
	p.mu.Lock()
	for _, peer := range peers {
		peer.retired = true
	}
	p.leaving = true
	p.mu.Unlock()
	p.rouse()
}

// hasForgotten reports whether a peer is no more.
func (p *prober) hasForgotten(peer *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return peer.retired
}

// settle takes in who is to be watched from now on, and who not any more.
func (p *prober) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers = append(p.peers, p.fresh...)
	p.fresh = nil
	if !p.leaving {
		return
	}
	p.leaving = false
	p.peers = slices.DeleteFunc(p.peers, func(peer *peer) bool {
		if peer.retired {
			delete(p.paths, peer)
			delete(p.seen, peer)
		}
		return peer.retired
	})
}

// rouse wakes the prober if it sleeps.
func (p *prober) rouse() {
	if p.asleep.Load() && p.asleep.Swap(false) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// tooBig reports what a router said about an inner packet. When there are many
// such reports, some are lost: routers repeat them. Size is that of the report.
func (p *prober) tooBig(of *peer, mtu encap.PathMTU, inner []byte, size int) {
	if !of.reports.Allow() {
		return
	}
	select {
	case p.reports <- tooBig{of, mtu, bytes.Clone(inner), of.echo.proves(inner), size}:
	default:
	}
}

// reportsPerSecond is how many reports of a peer are looked at.
const reportsPerSecond = 100

// trafficPoll is how often traffic is looked at while there is some.
const trafficPoll = 500 * time.Millisecond

// guard calls f. After a panic what was learnt of all paths is learnt again.
func (p *prober) guard(f func()) {
	if guarded(p.log, "find path MTUs", f) {
		clear(p.paths)
		clear(p.seen)
	}
}

// run works until ctx ends.
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
			p.guard(func() { p.believe(ctx, r) })
		case a := <-p.answers:
			p.guard(func() { p.take(a) })
		}
		p.asleep.Store(false)
		next := time.Now().Add(trafficPoll)
		p.guard(func() { next = p.step(ctx) })
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		if next.IsZero() || time.Until(next) > trafficPoll { // traffic shall wake us
			p.asleep.Store(true)
			if p.news() { // in between
				timer.Reset(0)
			}
		}
	}
}

// take takes an answer and all that have come meanwhile: of many peers each would
// otherwise have all of them looked at.
func (p *prober) take(a answer) {
	now := time.Now()
	for {
		if pr := p.paths[a.p]; pr != nil {
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

// news reports whether a peer was sent large packets that were not seen, or has a
// new path.
func (p *prober) news() bool {
	p.mu.Lock()
	fresh := len(p.fresh) > 0 || p.leaving
	p.mu.Unlock()
	if fresh {
		return true
	}
	for _, peer := range p.peers {
		path, pr := peer.path.Load(), p.paths[peer]
		if peer.large.Load() != p.seen[peer] || peer.arrived.Load() || path != nil && peer.learns(path) && !pr.isAbout(path) {
			return true
		}
	}
	return false
}

// learns reports whether the MTU of the peer's path is to be learnt, and answers to
// probes can be heard. An automatic tunnel has too many paths.
func (p *peer) learns(path *path) bool {
	return path.stack.NeedsPathMTU() && !p.t.automatic() && p.listening.Load()
}

// isAbout reports whether a path has the ends and the first hop that are known, and
// packets look the same.
func (pr *probing) isAbout(p *path) bool {
	return pr != nil && p.is(pr.layers, pr.link) && p.options == pr.options
}

// step does what is due, and returns when there is more; zero: when there is
// traffic.
func (p *prober) step(ctx context.Context) (next time.Time) {
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	p.settle()
	for _, peer := range p.peers {
		large := peer.large.Load()
		pr := p.probing(peer, now)
		if pr == nil {
			p.seen[peer] = large
			continue
		}
		if peer.arrived.Load() {
			peer.arrived.Store(false)
			pr.Heard(now)
			pr.again = now
		}
		if n := large - p.seen[peer]; n > 0 {
			pr.Sent(pr.traffic(int(n), peer.asked6.Load()), now)
			p.seen[peer] = large
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
			peer.probe(pr, q)
			if pr.Checking() {
				p.checks.spend(q.Size)
			}
		}
		p.tell(ctx, peer, pr)
		peer.wants(wantedByProber, pr.Unknown())
		if !pr.again.IsZero() {
			sooner(pr.again)
		}
	}
	return next
}

// probing is what is known of a peer's present path; nil if it has none, or if its
// MTU is not to be learnt.
func (p *prober) probing(peer *peer, now time.Time) *probing {
	path, pr := peer.path.Load(), p.paths[peer]
	if path == nil || !peer.learns(path) {
		return nil
	}
	if pr.isAbout(path) {
		return pr
	}
	// Over a path of more than any probe has, so that it is sent with DF.
	wide := path.link + encap.PathMTU(int(encap.MinTunnelMTU6)+encap.Headroom)
	stack, err := encap.New(path.layers, wide, path.options, nil, peer.record)
	if err != nil { // there is one for the path: cannot be
		peer.log().Error("path MTU", zap.Error(err))
		return nil
	}
	pr = &probing{Path: pathmtu.New(int(path.link)), layers: path.layers, link: path.link, options: path.options, stack: stack, again: now, asked: peer.asked6.Load()}
	p.paths[peer] = pr
	return pr
}

// believe takes what a router said, unless probes can tell whether it is true.
func (p *prober) believe(ctx context.Context, r tooBig) {
	now := time.Now()
	pr, watched := p.probing(r.p, now), r.p.watched.Load()
	if pr == nil {
		return
	}
	if !r.proof {
		p.checks.earn(r.size)
		// Without this report nothing would be sent to a peer to which there are no
		// large packets. To others confirmations go on.
		if (!watched || pr.Answering()) && !p.checks.any(now) {
			return
		}
	}
	p.watch(r.p)
	believed := pr.TooBig(int(r.mtu), r.proof, now)
	pr.again = now
	p.tell(ctx, r.p, pr)
	// The sender is told at once if it can be: otherwise when it sends again.
	if !believed || r.inner == nil || r.p.echo.sent(r.inner) {
		return
	}
	if path := r.p.path.Load(); path != nil && path.mtu == r.mtu {
		limit := int(path.stack.LimitTo(r.inner))
		if size(r.inner) > limit && !path.stack.InPieces(r.inner, size(r.inner)) {
			r.p.t.reply.tooBig(limit, r.inner, nil)
		}
	}
}

// tell lets the control loop know what the path does not have yet, and waits until
// it has it.
func (p *prober) tell(ctx context.Context, peer *peer, pr *probing) {
	mtu, by := pr.MTU()
	path := peer.path.Load()
	if path == nil || !pr.isAbout(path) || int(path.mtu) == mtu && path.by == by {
		return
	}
	l := lesson{peer, pr.layers, pr.link, encap.PathMTU(mtu), by, make(chan struct{})}
	select {
	case p.lessons <- l:
	case <-ctx.Done():
		return
	}
	select {
	case <-l.applied:
	case <-ctx.Done():
		return
	}
	if now := peer.path.Load(); now != nil && now.mtu < path.mtu && by == pathmtu.Probe {
		peer.witness.tell(peer.t, now)
	}
}
