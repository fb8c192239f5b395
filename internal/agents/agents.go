// Package agents runs the agents of automatic tunnels: mechanisms that send packets of their
// own, such as those of neighbour discovery, to find outer destinations.
package agents

import (
	"context"
	"net/netip"
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
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/internal/tally"
	"sixfour/transport"
)

// Runner runs an agent on a goroutine of its own: it sends the agent's messages when they are
// due, and passes it those that arrive. It is the datapath.Agent of a tunnel.
type Runner struct {
	path   *datapath.Path
	events Events
	wake   chan struct{}
	limit  *rate.Limiter // limits received messages
	shares *shares       // limits those of each source; nil: they are not limited

	mu    sync.Mutex // guards agent
	agent resolve.Agent

	drops tally.Drops
}

// Events are what a Runner reports. It calls the functions from any goroutine.
type Events struct {
	Learnt func() // the interface needs an update: Learnt returns something else
	Failed func() // the agent has panicked and must be replaced
}

// NewRunner returns a Runner for an agent whose packets use a path.
func NewRunner(p *datapath.Path, agent resolve.Agent, events Events) *Runner {
	limit := hearPerSecond
	var each *shares
	if b, ok := agent.(resolve.Busy); ok {
		limit = b.PerSecond()
		each = newShares(max(limit/sharesOfBusy, 1), time.Now())
	}
	return &Runner{
		path: p, agent: agent, events: events, wake: make(chan struct{}, 1),
		limit: rate.NewLimiter(rate.Limit(limit), limit), shares: each, drops: p.Tunnel.Drops("out", pcapng.Outbound),
	}
}

// learnPause is the least time between two updates of the interface: a flood of
// advertisements on the link must not keep the daemon busy.
const learnPause = 100 * time.Millisecond

// noPathPause is the pause before another attempt while nothing can be sent.
const noPathPause = 50 * time.Millisecond

// Run sends the agent's messages until ctx ends. It must not start before packets are
// received: the first answers would be lost, and the requests would be repeated only after
// seconds.
func (r *Runner) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	scratch := make([]byte, encap.Headroom+transport.MaxPacket)
	var before resolve.Learnt
	var told time.Time
	var mapped mapping
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		again := time.Now().Add(learnPause)
		if recovery.Guard(r.path.Tunnel.Log, "processing neighbour discovery", func() { again = r.next(scratch) }) {
			r.path.Tunnel.Owner.Recovered("processing neighbour discovery")
		}
		r.logMapping(&mapped)
		if now := r.Learnt(); !sameLearnt(now, before) {
			if next := told.Add(learnPause); time.Now().Before(next) {
				again = next
			} else {
				before, told = now, time.Now()
				r.events.Learnt()
			}
		}
		if !again.IsZero() {
			timer.Reset(time.Until(again))
		}
	}
}

// mapping is what a resolve.Qualifier has said last.
type mapping struct {
	at  netip.AddrPort
	why string
}

// logMapping logs where the agent is, if that has changed since the last call, or why it is
// not known any more.
func (r *Runner) logMapping(last *mapping) {
	var now mapping
	r.use(func() {
		if q, ok := r.agent.(resolve.Qualifier); ok {
			now.at, now.why = q.Mapped()
		}
	})
	if now == *last {
		return
	}
	*last = now
	switch {
	case now.at.IsValid():
		r.path.Tunnel.Log.Info("qualified", zap.Stringer("outside", now.at))
	case now.why != "":
		r.path.Tunnel.Log.Warn("not qualified", zap.String("because", now.why))
	}
}

// next sends the messages that are due, and returns when more are due.
func (r *Runner) next(scratch []byte) (again time.Time) {
	wire := r.path.Wire.Load()
	if wire == nil || !r.path.Listening.Load() { // nothing can be sent, or answers would not be received
		return time.Now().Add(noPathPause)
	}
	r.use(func() { again = r.say(wire, scratch) })
	return again
}

// say sends the agent's messages, and returns when more are due. It calls due again at
// once to confirm that they were sent: until then the agent holds other packets back.
func (r *Runner) say(wire *datapath.Wire, scratch []byte) time.Time {
	send, again := r.due()
	if len(send) == 0 {
		return again
	}
	r.send(wire, scratch, send)
	if send, again = r.due(); len(send) > 0 {
		r.send(wire, scratch, send)
		return time.Now()
	}
	return again
}

// due returns the messages to send now, and when more are due.
func (r *Runner) due() (send []resolve.Message, again time.Time) {
	send, lost, again := r.agent.Next(time.Now())
	if lost > 0 {
		r.drops.CountN(&r.path.Out, drop.Unresolved, lost, nil, nil)
	}
	return send, again
}

// send sends each message to its outer address.
func (r *Runner) send(wire *datapath.Wire, scratch []byte, send []resolve.Message) {
	to := new(datapath.StaticHop)
	stack, err := wire.StackTo(to)
	if err != nil { // cannot happen: the path has a stack of the same layers
		r.path.Tunnel.Log.Error("neighbour discovery", zap.Error(err))
		return
	}
	for _, m := range send {
		to.Endpoint = m.To
		n := copy(scratch[encap.Headroom:], m.Bytes)
		o := datapath.Own{Buf: scratch[:encap.Headroom+n], Stack: stack, Inner: m.Bytes}
		if m.Raw {
			o.Encapsulate = func(b []byte, off int) ([]byte, drop.Reason) { return datagram(stack, b, off, &m) }
		}
		if not := wire.Emit(&o); not != nil {
			r.drops.Lose(&r.path.Out, &capture.Packet{At: o.At, Outer: capture.Whole(not.Outer), Inner: capture.Whole(m.Bytes), Reason: not.Reason, Err: not.Err})
		} else {
			r.path.Out.Carried(1, n)
		}
	}
}

// datagram makes the outer packet of a message that is not encapsulated, whose payload is b[off:].
func datagram(stack *encap.Stack, b []byte, off int, m *resolve.Message) ([]byte, drop.Reason) {
	pkt, why := stack.Datagram(b, off, m.From, m.To.AddrPort())
	if why == drop.None && m.TTL != 0 && header.Version(pkt) == 4 {
		header.IPv4(pkt).SetTTL(m.TTL)
	}
	return pkt, why
}

// Learnt returns what the interface should have.
func (r *Runner) Learnt() resolve.Learnt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.agent.Learnt()
}

// hearPerSecond limits the neighbours' messages that are handled: each may cause an answer,
// and any host on their network can send them in any name.
const hearPerSecond = 1000

// Wants reports whether a packet that arrived is for Receive.
func (r *Runner) Wants(inner []byte) bool { return r.agent.Wants(inner) }

// Entries returns what the agent knows of other nodes.
func (r *Runner) Entries() (list []resolve.Entry) {
	r.use(func() { list = r.agent.Entries(time.Now()) })
	return list
}

// Receive handles a control packet that arrived with the outer headers o. It reports whether
// the packet needs no further handling, or returns the reason why it was dropped.
func (r *Runner) Receive(o header.Outer, inner []byte) (done bool, why drop.Reason) {
	if !r.shares.allow(o.From.Addr(), time.Now()) || !r.limit.Allow() {
		return true, drop.Limited
	}
	r.use(func() {
		done = r.agent.Receive(o, inner, time.Now())
		if a, ok := r.agent.(resolve.Refuser); ok {
			why = a.Refused()
		}
	})
	r.rouse()
	return done, why
}

// Hold queues a packet whose neighbour is not resolved, and reports whether there was room.
// If the neighbour has been resolved meanwhile, it reports that instead: under load each
// packet would otherwise be queued behind the one before.
func (r *Runner) Hold(pkt []byte) (held, known bool) {
	r.use(func() {
		if _, why := r.agent.To(pkt); why == drop.None {
			known = true
			return
		}
		held = r.agent.Hold(pkt, time.Now())
	})
	r.rouse()
	return held, known
}

// use calls f, which uses the agent, under the lock. If f panics, the tunnel gets a new agent,
// because the state of this one is unknown.
func (r *Runner) use(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ok := false
	defer func() {
		if !ok {
			r.events.Failed()
		}
	}()
	f()
	ok = true
}

func (r *Runner) rouse() {
	select {
	case r.wake <- struct{}{}:
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
