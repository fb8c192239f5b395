package engine

import (
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sixfour/encap/drop"
	"sixfour/internal/api"
	"sixfour/internal/capture"
)

// panicLog limits log lines about panics of all goroutines: each has a stack trace, and
// anyone can resend a packet that causes a panic.
var panicLog = rate.NewLimiter(rate.Every(10*time.Second), 5)

// guarded calls f, logs a panic in it, and reports whether there was one. The caller must
// then replace state that f may have left half changed. Locks that f takes must be
// released by defer.
func guarded(log *zap.Logger, doing string, f func()) (panicked bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		panicked = true
		if log != nil && panicLog.Allow() {
			log.Error("panic: this is a fault of sixfourd, which goes on without what it was working on: please report this line",
				zap.String("doing", doing), zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f()
	return false
}

// recovered counts and reports a panic while doing something for the tunnel.
func (t *tunnel) recovered(doing string) {
	t.repairs[repairPanic].Add(1)
	if t.troubles.Allow() {
		t.event(api.EventError, "panic: a fault of sixfourd, which was made to "+doing+"; the log has the stack")
	}
}

// failed is called after a panic in carry. The packets of the batch are lost, and the
// workspace is not used again.
func (o *outbound) failed() {
	n := max(1, len(o.batch)-o.done)
	o.sent, o.large = nil, 0
	o.drops.countN(&o.t.out, drop.InternalError, n, nil, nil)
	o.t.recovered("carry packets from the interface")
}

// failed is called after a panic while handling the current packet.
func (in *inbound) failed() {
	c := in.stray
	if in.end != nil {
		c = &in.end.peer.in
		in.end.peer.t.recovered("handle a packet that arrived")
	}
	in.drops.lose(c, &capture.Packet{At: in.moment.at, Outer: whole(in.outer()), Reason: drop.InternalError})
}

// replace is called after a panic in a sink's flush. It discards the sink.
func (in *inbound) replace(s *sink) {
	in.sinks[s.t.id] = nil
	s.drops.countN(&s.t.in, drop.InternalError, max(1, s.gather.Len()), nil, nil)
	s.t.recovered("write packets to the interface")
}
