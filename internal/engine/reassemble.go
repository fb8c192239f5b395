package engine

import (
	"bytes"
	"sync"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// reassembly is the door for fragments of a tunnel's IPv6 layer (RFC 2473
// section 7.2). Those of one packet may come through several receivers.
type reassembly struct {
	mu sync.Mutex
	r  *fragment.Reassembler // made when first needed
	// First fragments of packets whose time was over, of which the far ends are to be told.
	timedOut [][]byte
}

// timedOutMost bounds these: more would not be told anyway.
const timedOutMost = repliesPerSender

// reassemble takes a fragment and returns the inner packet, if that is complete:
// nil and drop.None mean that the fragment is held.
func (p *path) reassemble(t *tunnel, pkt []byte) ([]byte, drop.Reason) {
	whole, r := t.fragments.add(t, header.IPv6(pkt))
	if whole == nil {
		return nil, r
	}
	return p.stack.DecapsulateReassembled(whole)
}

func (f *reassembly) add(t *tunnel, pkt header.IPv6) ([]byte, drop.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r == nil {
		f.r = fragment.NewReassembler(fragment.DefaultLimits, func(r drop.Reason, n int) { t.in.dropped(r, n) })
		f.r.OnTimeout(func(first func() []byte) {
			if len(f.timedOut) < timedOutMost {
				f.timedOut = append(f.timedOut, first())
			}
		})
	}
	r := f.r
	f.r = nil // not to be used again after a panic
	whole, why := r.Add(pkt, time.Now())
	f.r = r
	return bytes.Clone(whole), why
}

// expire gives up what has waited too long, which the next fragment does, too. It
// returns first fragments of packets of which the far ends were not told yet.
func (f *reassembly) expire(now time.Time) (timedOut [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r != nil {
		f.r.Expire(now)
	}
	timedOut, f.timedOut = f.timedOut, nil
	return timedOut
}

// expireFragments does so for the tunnel, and tells the far ends: ICMPv6 Time Exceeded,
// code 1 (RFC 8200 section 4.5). It is for the control loop.
func (t *tunnel) expireFragments(now time.Time) {
	for _, first := range t.fragments.expire(now) {
		for _, p := range t.peers {
			path := p.path.Load()
			if path == nil {
				continue
			}
			if layer, ok := path.stack.EndOf(first); ok {
				if icmp.MayAnswer(first, false) && t.reply.may(&t.reply.own, first) {
					buf := make([]byte, encap.Headroom, encap.Headroom+header.IPv6Len+icmp.MaxLen)
					buf = layerError(buf, header.IPv6(first), icmp.TimeExceeded6, icmp.ReassemblyTime6, 0)
					if path.tell(layer, buf, make([]byte, path.mtu), t.reply) != nil {
						t.reply.sent.add(6, icmp.TimeExceeded6, icmp.ReassemblyTime6)
					}
				}
				break
			}
		}
	}
}
