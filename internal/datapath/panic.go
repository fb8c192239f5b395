package datapath

import (
	"slices"

	"sixfour/encap/drop"
	"sixfour/internal/capture"
)

// failed is called after a panic in carry. The packets of the batch are lost, and the
// workspace is not used again.
func (o *Outbound) failed() {
	n := max(1, len(o.batch)-o.done)
	o.sent, o.large = nil, 0
	o.drops.CountN(&o.t.Out, drop.InternalError, n, nil, nil)
	o.t.Owner.Recovered("sending packets from the interface")
}

// lostByPanic is called after a panic while handling the current packet. A sink that the panic
// left half changed is discarded: its gatherer has packets that are not counted.
func (in *Inbound) lostByPanic() {
	c := &in.Stray
	if in.end != nil {
		t := in.end.Path.Tunnel
		c = &in.end.Path.In
		t.Owner.Recovered("handling a received packet")
		if t.ID < len(in.sinks) {
			if s := in.sinks[t.ID]; s != nil && s.t == t && (s.gather == nil || s.gather.Len() != s.held+s.packets) {
				in.touched = slices.DeleteFunc(in.touched, func(other *sink) bool { return other == s })
				in.discard(s)
			}
		}
	}
	in.drops.Lose(c, &capture.Packet{At: in.moment.At, Outer: capture.Whole(in.outer()), Reason: drop.InternalError, Path: in.number()})
}

// replace is called after a panic in a sink's flush. It discards the sink.
func (in *Inbound) replace(s *sink) {
	in.discard(s)
	s.t.Owner.Recovered("writing packets to the interface")
}

// discard removes a sink whose state is unknown, and counts its packets as dropped
// instead of carried. Their peers are not known; this keeps the tunnel's total right.
func (in *Inbound) discard(s *sink) {
	in.sinks[s.t.ID] = nil
	if n := s.held + s.packets; n > 0 {
		s.t.In.Carried(-s.held, -s.all)
		s.drops.CountN(&s.t.In, drop.InternalError, n, nil, nil)
		s.kept = s.kept[:min(n, len(s.kept))] // the current packet is shown on its own
		s.showKept(in.seen, nil, true, drop.InternalError, nil)
	}
}
