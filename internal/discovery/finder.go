// Package discovery finds the path MTUs of all paths: it drives the state machines of
// package pathmtu with the traffic of the paths, the answers to probes and the reports of
// routers.
package discovery

import (
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

// Finder finds the path MTUs of all paths. It runs on one goroutine, which sleeps while
// no large packets are sent, and passes on its results through Updates.
//
// A path MTU does not change the MTU of the interface, which depends on the first hop
// only; ICMP tells senders of smaller limits. One interface may have many peers, each with
// its own path, and an interface with an MTU below 1280 bytes would lose IPv6. The
// kernel's tunnels work in the same way.
type Finder struct {
	log     *zap.Logger
	wake    chan struct{}
	asleep  atomic.Bool
	reports chan tooBig
	answers chan answer
	updates chan Update

	mu      sync.Mutex // guards fresh, leaving, and retired of subjects
	fresh   []*Subject // to be watched from now on
	leaving bool       // some watched subjects are retired

	// Used by the goroutine only.
	subjects []*Subject // watched
	searches map[*Subject]*search
	seen     map[*Subject]uint64 // large packets already counted
	checks   allowance           // bytes allowed for checking unproven reports
}

// Update is a path MTU that was found.
type Update struct {
	Path     *datapath.Path
	Layers   []encap.Layer // of the wire whose MTU was searched
	Hop, MTU encap.PathMTU // of the first hop, and of the path
	By       pathmtu.Source
	Applied  chan struct{} // the receiver closes it when the path has a wire with this MTU
}

// search is the state of the path MTU search of one path.
type search struct {
	*pathmtu.Path
	layers  []encap.Layer // of the wire whose MTU is searched
	hop     encap.PathMTU // MTU of its first hop
	options encap.Options
	stack   *encap.Stack // for probes
	again   time.Time    // time of the next step; zero: when there is traffic
	asked   uint64       // large requests of the path at the last step
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

// New returns a Finder that has no paths yet. Run must follow.
func New(log *zap.Logger) *Finder {
	return &Finder{
		log:      log,
		wake:     make(chan struct{}, 1),
		reports:  make(chan tooBig, 64),
		answers:  make(chan answer, 256),
		updates:  make(chan Update),
		searches: make(map[*Subject]*search),
		seen:     make(map[*Subject]uint64),
		checks:   newAllowance(time.Now()),
	}
}

// Updates returns the channel of the path MTUs that were found. Its receiver must close
// Applied of each.
func (f *Finder) Updates() <-chan Update { return f.updates }

// Watch makes the Finder watch a path from now on. Of a hub with many peers it watches
// only the paths on which there is traffic.
func (f *Finder) Watch(s *Subject) {
	if !s.watched.Load() && !s.watched.Swap(true) {
		f.mu.Lock()
		if !s.retired {
			f.fresh = append(f.fresh, s)
		}
		f.mu.Unlock()
	}
	f.Notify()
}

// Forget makes the Finder forget paths that were removed.
func (f *Finder) Forget(removed ...*Subject) {
	f.mu.Lock()
	for _, s := range removed {
		s.retired = true
	}
	f.leaving = true
	f.mu.Unlock()
	f.Notify()
}

// HasForgotten reports whether a path was removed.
func (f *Finder) HasForgotten(s *Subject) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.retired
}

// settle adds new paths to the watched ones, and drops retired ones.
func (f *Finder) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subjects = append(f.subjects, f.fresh...)
	f.fresh = nil
	if !f.leaving {
		return
	}
	f.leaving = false
	f.subjects = slices.DeleteFunc(f.subjects, func(s *Subject) bool {
		if s.retired {
			delete(f.searches, s)
			delete(f.seen, s)
		}
		return s.retired
	})
}

// Notify wakes the goroutine if it sleeps: a path has another wire, or is received now.
func (f *Finder) Notify() {
	if f.asleep.Load() && f.asleep.Swap(false) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// trafficPoll is how often traffic counters are read while there is traffic.
const trafficPoll = 500 * time.Millisecond

// guard calls do. After a panic the state of all paths is discarded and learnt again.
func (f *Finder) guard(do func()) {
	if recovery.Guard(f.log, "searching path MTUs", do) {
		clear(f.searches)
		clear(f.seen)
	}
}

// Run finds path MTUs until ctx ends.
func (f *Finder) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.wake:
		case r := <-f.reports:
			f.guard(func() { f.handleReport(ctx, r) })
		case a := <-f.answers:
			f.guard(func() { f.handleAnswer(a) })
		}
		f.asleep.Store(false)
		next := time.Now().Add(trafficPoll)
		f.guard(func() { next = f.step(ctx) })
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		if next.IsZero() || time.Until(next) > trafficPoll { // let traffic wake the goroutine
			f.asleep.Store(true)
			if f.pending() { // something arrived before asleep was set
				timer.Reset(0)
			}
		}
	}
}

// handleAnswer handles an answer and all others that are waiting: a step visits all paths, so
// one step for each answer would be slow with many paths.
func (f *Finder) handleAnswer(a answer) {
	now := time.Now()
	for {
		if pr := f.searches[a.of]; pr != nil {
			pr.Answer(a.seq, now)
			pr.again = now
		}
		select {
		case a = <-f.answers:
		default:
			return
		}
	}
}

// pending reports whether large packets were sent on a path that are not counted yet, or a
// path has a new wire.
func (f *Finder) pending() bool {
	f.mu.Lock()
	fresh := len(f.fresh) > 0 || f.leaving
	f.mu.Unlock()
	if fresh {
		return true
	}
	for _, s := range f.subjects {
		wire, pr := s.Wire.Load(), f.searches[s]
		if s.Large.Load() != f.seen[s] || s.arrived.Load() || wire != nil && s.learns(wire) && !pr.isAbout(wire) {
			return true
		}
	}
	return false
}

// isAbout reports whether a wire has the layers, first hop and options that are being
// searched.
func (pr *search) isAbout(w *datapath.Wire) bool {
	return pr != nil && w.Is(pr.layers, pr.hop) && w.Options == pr.options
}

// step does all work that is due, and returns when the next is; zero: when there is
// traffic.
func (f *Finder) step(ctx context.Context) (next time.Time) {
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	f.settle()
	for _, s := range f.subjects {
		large := s.Large.Load()
		pr := f.searchOf(s, now)
		if pr == nil {
			f.seen[s] = large
			continue
		}
		if s.arrived.Load() {
			s.arrived.Store(false)
			pr.Received(now)
			pr.again = now
		}
		if n := large - f.seen[s]; n > 0 {
			pr.Sent(pr.traffic(int(n), s.Requests.Large.Load()), now)
			f.seen[s] = large
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
			if wire := s.Wire.Load(); wire.Is(pr.layers, pr.hop) {
				s.echo.SendMTUProbe(wire, pr.stack, q.Size, q.Seq)
			}
			if pr.Checking() {
				f.checks.spend(q.Size)
			}
		}
		f.report(ctx, s, pr)
		s.Notices.Request(datapath.NoticeMTU, pr.Unknown())
		if !pr.again.IsZero() {
			sooner(pr.again)
		}
	}
	return next
}

// searchOf returns the state for the present wire of a path; nil: there is no wire, or its
// MTU is not to be learnt.
func (f *Finder) searchOf(s *Subject, now time.Time) *search {
	wire, pr := s.Wire.Load(), f.searches[s]
	if wire == nil || !s.learns(wire) {
		return nil
	}
	if pr.isAbout(wire) {
		return pr
	}
	// Use a path MTU larger than any probe, so that probes are sent with DF.
	wide := wire.Hop.MTU + encap.PathMTU(int(encap.MinTunnelMTU6)+encap.Headroom)
	stack, err := encap.New(wire.Layers, wide, wire.Options, nil, s.Record)
	if err != nil { // cannot happen: the wire has a stack of the same layers
		f.log.Error("path MTU", zap.Error(err))
		return nil
	}
	pr = &search{Path: pathmtu.New(int(wire.Hop.MTU)), layers: wire.Layers, hop: wire.Hop.MTU, options: wire.Options, stack: stack, again: now, asked: s.Requests.Large.Load()}
	if s.Tunnel.Reserve > 0 {
		pr.ShowConfirmed()
	}
	f.searches[s] = pr
	return pr
}

// handleReport handles a router's report. A report without proof is checked with probes if
// the peer answers them.
func (f *Finder) handleReport(ctx context.Context, r tooBig) {
	now := time.Now()
	pr, watched := f.searchOf(r.of, now), r.of.watched.Load()
	if pr == nil {
		return
	}
	if !r.proof {
		f.checks.earn(r.size)
		// Without an allowance, ignore the report if nothing else is sent to the peer,
		// which is the case without large packets, or if confirmations will show anyway
		// whether the report is true.
		if (!watched || pr.Answering()) && !f.checks.any(now) {
			return
		}
	}
	f.Watch(r.of)
	believed := pr.TooBig(int(r.mtu), r.proof, now)
	pr.again = now
	f.report(ctx, r.of, pr)
	// Tell the sender now if possible: otherwise when it sends again.
	if !believed || r.inner == nil || r.of.echo.Sent(r.inner) {
		return
	}
	if wire := r.of.Wire.Load(); wire != nil && wire.MTU == r.mtu {
		limit := int(wire.Stack.LimitTo(r.inner))
		if header.TotalLen(r.inner) > max(limit, r.of.Tunnel.Reserve) && !wire.Stack.InPieces(r.inner, header.TotalLen(r.inner)) {
			r.of.Tunnel.Reply.TooBig(limit, r.inner, nil)
		}
	}
}

// report passes on a new MTU, and waits until the path has a wire with it.
func (f *Finder) report(ctx context.Context, s *Subject, pr *search) {
	mtu, by := pr.MTU()
	wire := s.Wire.Load()
	if wire == nil || !pr.isAbout(wire) || int(wire.MTU) == mtu && wire.By == by {
		return
	}
	u := Update{s.Path, pr.layers, pr.hop, encap.PathMTU(mtu), by, make(chan struct{})}
	select {
	case f.updates <- u:
	case <-ctx.Done():
		return
	}
	select {
	case <-u.Applied:
	case <-ctx.Done():
		return
	}
	if now := s.Wire.Load(); now != nil && now.MTU < wire.MTU && by == pathmtu.Probe {
		s.Sample.Tell(s.Tunnel, now)
	}
}
