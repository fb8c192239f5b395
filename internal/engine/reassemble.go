package engine

import (
	"bytes"
	"sync"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// reassembly is the door for fragments of a tunnel's IPv6 layer (RFC 2473
// section 7.2). Those of one packet may come through several receivers.
type reassembly struct {
	mu sync.Mutex
	r  *fragment.Reassembler // made when first needed
}

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
	}
	r := f.r
	f.r = nil // not to be used again after a panic
	whole, why := r.Add(pkt, time.Now())
	f.r = r
	return bytes.Clone(whole), why
}

// expire gives up what has waited too long, which the next fragment does, too.
func (f *reassembly) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r != nil {
		f.r.Expire(time.Now())
	}
}
