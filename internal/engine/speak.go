package engine

import (
	"context"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/capture"
	"sixfour/internal/datapath"
	"sixfour/internal/iface"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/transport"
)

// speaker exchanges neighbour discovery messages for a resolver, on a goroutine of its own.
type speaker struct {
	p      *path
	wake   chan struct{}
	learnt func() // called when the interface needs an update
	failed func() // called when the resolver must be replaced
	cancel context.CancelFunc
	limit  *rate.Limiter // limits received messages

	mu sync.Mutex // guards s
	s  resolve.Agent

	drops datapath.Drops
}

// runAgent stops the speaker of a peer's former resolver, and starts one for the resolver of
// the registered path if it needs one. It must not start before packets are received: the
// first answers would be lost, and the requests would be repeated only after seconds.
func (e *Engine) runAgent(p *path) {
	if p.t.mech == nil {
		return
	}
	r := p.registered.Layers[p.t.mech.layer].Resolver
	if r == p.t.agentResolver {
		return
	}
	p.t.agentResolver = r
	if old := p.t.speaker.Load(); old != nil {
		old.cancel()
	}
	s, ok := r.(resolve.Agent)
	if !ok {
		p.t.setSpeaker(nil)
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	sp := &speaker{p: p, s: s, wake: make(chan struct{}, 1), cancel: cancel, limit: rate.NewLimiter(hearPerSecond, hearPerSecond), drops: p.t.Drops("out", pcapng.Outbound)}
	sp.learnt = func() {
		select {
		case e.learnt <- p.t:
		case <-ctx.Done():
		}
	}
	sp.failed = func() {
		p.t.mech.failed.Store(true)
		e.somethingChanged()
	}
	p.t.setSpeaker(sp)
	e.wg.Go(func() { sp.run(ctx) })
}

// learnPause is the least time between two updates of the interface: a flood of
// advertisements on the link must not keep the daemon busy.
const learnPause = 100 * time.Millisecond

// run runs the speaker until ctx ends.
func (s *speaker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	scratch := make([]byte, encap.Headroom+transport.MaxPacket)
	var before resolve.Learnt
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		again := time.Now().Add(learnPause)
		if recovery.Guard(s.p.t.Log, "processing neighbour discovery", func() { again = s.next(scratch) }) {
			s.p.t.Recovered("processing neighbour discovery")
		}
		if now := s.Learnt(); !sameLearnt(now, before) {
			if next := told.Add(learnPause); time.Now().Before(next) {
				again = next
			} else {
				before, told = now, time.Now()
				s.learnt()
			}
		}
		if !again.IsZero() {
			timer.Reset(time.Until(again))
		}
	}
}

// next sends the messages that are due, and returns when more are due.
func (s *speaker) next(scratch []byte) (again time.Time) {
	wire := s.p.Wire.Load()
	if wire == nil || !s.p.Listening.Load() { // nothing can be sent, or answers would not be received
		return time.Now().Add(settle)
	}
	s.use(func() { again = s.say(wire, scratch) })
	return again
}

// say sends the resolver's messages, and returns when more are due. It calls due again at
// once to confirm that they were sent: until then the resolver holds other packets back.
func (s *speaker) say(wire *datapath.Wire, scratch []byte) time.Time {
	send, again := s.due()
	if len(send) == 0 {
		return again
	}
	s.send(wire, scratch, send)
	if send, again = s.due(); len(send) > 0 {
		s.send(wire, scratch, send)
		return time.Now()
	}
	return again
}

// due returns the messages to send now, and when more are due.
func (s *speaker) due() (send []resolve.Message, again time.Time) {
	send, lost, again := s.s.Next(time.Now())
	if lost > 0 {
		s.drops.CountN(&s.p.Out, drop.Unresolved, lost, nil, nil)
	}
	return send, again
}

// send sends each message to its outer address.
func (s *speaker) send(wire *datapath.Wire, scratch []byte, send []resolve.Message) {
	to := new(datapath.StaticHop)
	stack, err := wire.StackTo(to)
	if err != nil { // cannot happen: the path has a stack of the same layers
		s.p.t.Log.Error("neighbour discovery", zap.Error(err))
		return
	}
	for _, m := range send {
		to.Endpoint = m.To
		n := copy(scratch[encap.Headroom:], m.Bytes)
		o := datapath.Own{Buf: scratch[:encap.Headroom+n], Stack: stack, Inner: m.Bytes}
		if m.Raw {
			o.Encapsulate = func(b []byte, off int) ([]byte, drop.Reason) { return stack.Datagram(b, off, m.To.AddrPort()) }
		}
		if not := wire.Emit(&o); not != nil {
			s.drops.Lose(&s.p.Out, &capture.Packet{At: o.At, Outer: datapath.Whole(not.Outer), Inner: datapath.Whole(m.Bytes), Reason: not.Reason, Err: not.Err})
		} else {
			s.p.Out.Carried(1, n)
		}
	}
}

// Learnt returns what the interface should have.
func (s *speaker) Learnt() resolve.Learnt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s.Learnt()
}

// hearPerSecond limits the neighbours' messages that are handled: each may cause an answer,
// and any host on their network can send them in any name.
const hearPerSecond = 1000

// Wants reports whether a packet that arrived is for Receive.
func (s *speaker) Wants(inner []byte) bool { return s.s.Wants(inner) }

// entries returns what the resolver knows of other nodes.
func (s *speaker) entries() (list []resolve.Entry) {
	s.use(func() { list = s.s.Entries(time.Now()) })
	return list
}

// Receive handles a control packet that arrived with the outer headers o. It reports whether
// the packet needs no further handling, or returns the reason why it was dropped.
func (s *speaker) Receive(o header.Outer, inner []byte) (done bool, r drop.Reason) {
	if !s.limit.Allow() {
		return true, drop.Limited
	}
	s.use(func() { done = s.s.Receive(o, inner, time.Now()) })
	s.rouse()
	return done, drop.None
}

// Hold queues a packet whose neighbour is not resolved, and reports whether there was room.
// If the neighbour has been resolved meanwhile, it reports that instead: under load each
// packet would otherwise be queued behind the one before.
func (s *speaker) Hold(pkt []byte) (held, known bool) {
	s.use(func() {
		if _, r := s.s.To(pkt); r == drop.None {
			known = true
			return
		}
		held = s.s.Hold(pkt, time.Now())
	})
	s.rouse()
	return held, known
}

// use calls f, which uses the resolver, under the lock. If f panics, the tunnel gets a new
// resolver, because the state of this one is unknown.
func (s *speaker) use(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := false
	defer func() {
		if !ok {
			s.failed()
		}
	}()
	f()
	ok = true
}

func (s *speaker) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func sameLearnt(a, b resolve.Learnt) bool {
	if len(a.Addresses) != len(b.Addresses) || !a.Default.Equal(b.Default) || a.MTU != b.MTU || a.Link != b.Link {
		return false
	}
	for i := range a.Addresses {
		x, y := a.Addresses[i], b.Addresses[i]
		if x.Prefix != y.Prefix || !x.Valid.Equal(y.Valid) || !x.Preferred.Equal(y.Preferred) {
			return false
		}
	}
	return true
}

// learn gives the interface the addresses and routes that the routers advertised.
func (t *tunnel) learn() {
	s := t.speaker.Load()
	if s == nil || t.link == nil {
		return
	}
	l, now := s.Learnt(), time.Now()
	var leases []iface.Lease
	if l.Link.IsValid() {
		leases = append(leases, iface.Lease{Prefix: l.Link, Preferred: math.MaxInt64, Valid: math.MaxInt64})
	}
	for _, a := range l.Addresses {
		leases = append(leases, iface.Lease{Prefix: a.Prefix, Preferred: max(0, a.Preferred.Sub(now)), Valid: max(0, a.Valid.Sub(now))})
	}
	if err := t.link.Learn(leases, l.Default.After(now), l.MTU); err != nil {
		t.Log.Warn("cannot apply a router advertisement to the interface", zap.Error(err))
	}
}

// setSpeaker sets the speaker of the tunnel's mechanism; nil: none.
func (t *tunnel) setSpeaker(s *speaker) {
	t.speaker.Store(s)
	if s == nil {
		t.SetAgent(nil)
	} else {
		t.SetAgent(s)
	}
}
