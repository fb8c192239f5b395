package engine

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/pathmtu"
)

// prober finds the path MTUs of all tunnels, on one goroutine, which sleeps while
// there is no traffic of large packets. What it finds out it tells the control
// loop.
//
// A path's MTU does not become that of the interface, which keeps what the first
// hop leaves: ICMP tells senders of what is less. One interface may have many
// peers, each with a path of its own, and an interface below 1280 bytes would
// lose IPv6. It is also what the kernel's tunnels do.
type prober struct {
	wake    chan struct{}
	asleep  atomic.Bool
	reports chan tooBig
	answers chan answer
	lessons chan lesson

	// Of the goroutine.
	paths map[*tunnel]*probing
	seen  map[*tunnel]uint64 // large packets
}

// tooBig is what a router said of a tunnel's path.
type tooBig struct {
	t     *tunnel
	mtu   encap.PathMTU
	inner []byte // the packet that it was about, as far as quoted
	proof bool   // that was a probe, of which nobody else can know
}

// answer is an answered probe.
type answer struct {
	t   *tunnel
	seq uint16
}

// lesson is what the prober learnt of a path.
type lesson struct {
	t         *tunnel
	endpoints encap.Endpoints
	link, mtu encap.PathMTU
	by        pathmtu.Source
	applied   chan struct{} // closed when the path has it
}

// probing is what the prober knows of one tunnel.
type probing struct {
	*pathmtu.Path
	endpoints encap.Endpoints // of the path that this is about
	link      encap.PathMTU
	stack     *encap.Stack // for probes
	again     time.Time    // when to look; zero: when there is traffic
}

func newProber() *prober {
	return &prober{
		wake:    make(chan struct{}, 1),
		reports: make(chan tooBig, 64),
		answers: make(chan answer, 256),
		lessons: make(chan lesson),
		paths:   make(map[*tunnel]*probing),
		seen:    make(map[*tunnel]uint64),
	}
}

// sentLarge counts packets that only some paths carry, and wakes the prober if it
// sleeps.
func (t *tunnel) sentLarge(n uint64) {
	t.large.Add(n)
	t.prober.rouse()
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
// such reports, some are lost: routers repeat them.
func (p *prober) tooBig(t *tunnel, mtu encap.PathMTU, inner []byte) {
	if !t.reports.Allow() {
		return
	}
	select {
	case p.reports <- tooBig{t, mtu, bytes.Clone(inner), t.echo.proves(inner)}:
	default:
	}
}

// reportsPerSecond is how many reports of a tunnel are looked at.
const reportsPerSecond = 100

// trafficPoll is how often traffic is looked at while there is some.
const trafficPoll = 500 * time.Millisecond

// run works until ctx ends.
func (p *prober) run(ctx context.Context, tunnels []*tunnel) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		case r := <-p.reports:
			p.believe(ctx, r)
		case a := <-p.answers:
			if pr := p.paths[a.t]; pr != nil {
				pr.Answer(a.seq, time.Now())
				pr.again = time.Now()
			}
		}
		p.asleep.Store(false)
		next := p.step(ctx, tunnels)
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		if next.IsZero() || time.Until(next) > trafficPoll { // traffic shall wake us
			p.asleep.Store(true)
			if p.news(tunnels) { // in between
				timer.Reset(0)
			}
		}
	}
}

// news reports whether a tunnel has sent large packets that were not seen, or has
// a new path.
func (p *prober) news(tunnels []*tunnel) bool {
	for _, t := range tunnels {
		path, pr := t.path.Load(), p.paths[t]
		if t.large.Load() != p.seen[t] || t.arrived.Load() || path != nil && t.learns() && !pr.isAbout(path) {
			return true
		}
	}
	return false
}

// learns reports whether the tunnel's path MTU is to be learnt, and answers to
// probes can be heard.
func (t *tunnel) learns() bool { return !t.cfg.Options.StaticMTU && t.listening.Load() }

// isAbout reports whether a path has the ends and the first hop that are known.
func (pr *probing) isAbout(p *path) bool {
	return pr != nil && pr.endpoints == p.endpoints && pr.link == p.link
}

// step does what is due, and returns when there is more; zero: when there is
// traffic.
func (p *prober) step(ctx context.Context, tunnels []*tunnel) (next time.Time) {
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, t := range tunnels {
		large := t.large.Load()
		pr := p.probing(t, now)
		if pr == nil {
			p.seen[t] = large
			continue
		}
		if t.arrived.Load() {
			t.arrived.Store(false)
			pr.Heard(now)
			pr.again = now
		}
		if n := large - p.seen[t]; n > 0 {
			pr.Sent(int(n), now)
			p.seen[t] = large
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
			t.probe(pr, q)
		}
		p.tell(ctx, t, pr)
		t.unknown.Store(pr.Unknown())
		if !pr.again.IsZero() {
			sooner(pr.again)
		}
	}
	return next
}

// probing is what is known of a tunnel's present path; nil if it has none, or if
// its MTU is not to be learnt.
func (p *prober) probing(t *tunnel, now time.Time) *probing {
	path, pr := t.path.Load(), p.paths[t]
	if path == nil || !t.learns() {
		return nil
	}
	if pr.isAbout(path) {
		return pr
	}
	// Over a path of more than any probe has, so that it is sent with DF.
	stack, err := encap.New(t.cfg.Mode, path.endpoints, path.link+encap.PathMTU(encap.MinTunnelMTU6)+header.IPv4Len, t.cfg.Options, nil, t.record)
	if err != nil { // there is one for the path: cannot be
		t.log.Error("path MTU", zap.Error(err))
		return nil
	}
	pr = &probing{Path: pathmtu.New(int(path.link)), endpoints: path.endpoints, link: path.link, stack: stack, again: now}
	p.paths[t] = pr
	return pr
}

// believe takes what a router said, unless probes can tell whether it is true.
func (p *prober) believe(ctx context.Context, r tooBig) {
	now := time.Now()
	pr := p.probing(r.t, now)
	if pr == nil {
		return
	}
	believed := pr.TooBig(int(r.mtu), r.proof, now)
	pr.again = now
	p.tell(ctx, r.t, pr)
	// The sender is told at once if it can be: otherwise when it sends again.
	if !believed || r.inner == nil || r.t.echo.sent(r.inner) {
		return
	}
	if path := r.t.path.Load(); path != nil && path.mtu == r.mtu {
		limit := int(path.stack.Limit(header.Version(r.inner)))
		if size(r.inner) > limit && !path.stack.InPieces(r.inner, size(r.inner)) {
			r.t.reply.tooBig(limit, r.inner, nil)
		}
	}
}

// tell lets the control loop know what the path does not have yet, and waits until
// it has it.
func (p *prober) tell(ctx context.Context, t *tunnel, pr *probing) {
	mtu, by := pr.MTU()
	path := t.path.Load()
	if path == nil || !pr.isAbout(path) || int(path.mtu) == mtu && path.by == by {
		return
	}
	l := lesson{t, pr.endpoints, pr.link, encap.PathMTU(mtu), by, make(chan struct{})}
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
	if now := t.path.Load(); now != nil && now.mtu < path.mtu && by == pathmtu.Probe {
		t.witness.tell(t, now)
	}
}
