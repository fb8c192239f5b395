package datapath

import (
	"bytes"
	"iter"
	"sync"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/icmpreply"
)

// reassembly is the slow path for fragments of a tunnel's IPv6 layer (RFC 2473 section
// 7.2). Fragments of one packet may arrive through several receivers.
type reassembly struct {
	mu sync.Mutex
	r  *fragment.Reassembler // made when first needed
	// First fragments of packets that timed out and were not reported to the far ends yet.
	timedOut [][]byte
}

// timedOutMost limits timedOut: more errors would not be sent anyway.
const timedOutMost = icmpreply.PerSender

// reassemble adds the fragment pkt and returns what decapsulate would return for the packet
// of which it is a part, if the packet is complete. A nil packet with drop.None means that
// the fragment waits for the others.
func (in *Inbound) reassemble(s *sink, e *End, wire *Wire, pkt []byte) ([]byte, drop.Reason) {
	if header.Version(pkt) == 4 {
		return in.unseal(s, e, wire, pkt)
	}
	whole, r := s.t.fragments.add(s.t, header.IPv6(pkt))
	if whole == nil && r == drop.None {
		in.show(s.t, nil, noteHeld)
		return nil, drop.None
	}
	in.note = noteWhole
	if whole == nil {
		return nil, r
	}
	inner, r := wire.Stack.DecapsulateReassembled(whole)
	if r == drop.None {
		r = e.allows(inner)
	}
	return inner, r
}

func (f *reassembly) add(t *Tunnel, pkt header.IPv6) ([]byte, drop.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r == nil {
		f.r = fragment.NewReassembler(fragment.DefaultLimits, func(r drop.Reason, n int) { t.In.Dropped(r, n) })
		f.r.OnTimeout(func(first func() []byte) {
			if len(f.timedOut) < timedOutMost {
				f.timedOut = append(f.timedOut, first())
			}
		})
	}
	r := f.r
	f.r = nil // a reassembler must not be used again after a panic
	whole, why := r.Add(pkt, time.Now())
	f.r = r
	return bytes.Clone(whole), why
}

// expire discards packets that have waited too long for fragments, as the next fragment
// would. It returns the first fragments of timed-out packets that were not reported yet.
func (f *reassembly) expire(now time.Time) (timedOut [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r != nil {
		f.r.Expire(now)
	}
	timedOut, f.timedOut = f.timedOut, nil
	return timedOut
}

// ExpireFragments calls expire for the tunnel, and reports timed-out packets to the far
// ends: ICMPv6 Time Exceeded, code 1 (RFC 8200 section 4.5). The control loop calls it.
func (t *Tunnel) ExpireFragments(now time.Time, paths iter.Seq[*Path]) {
	for _, first := range t.fragments.expire(now) {
		for p := range paths {
			wire := p.Wire.Load()
			if wire == nil {
				continue
			}
			if layer, ok := wire.Stack.EndOf(first); ok {
				if icmp.MayAnswer(first, false) && t.Reply.Allow(first) {
					buf := make([]byte, encap.Headroom, encap.Headroom+header.IPv6Len+icmp.MaxLen)
					buf = layerError(buf, header.IPv6(first), icmp.TimeExceeded6, icmp.ReassemblyTime6, 0)
					if wire.sendError(layer, &Own{Buf: buf, Scratch: make([]byte, wire.MTU)}) {
						t.Reply.Sent.Add(6, icmp.TimeExceeded6, icmp.ReassemblyTime6)
					}
				}
				break
			}
		}
	}
}
