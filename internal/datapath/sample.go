package datapath

import (
	"sync"

	"sixfour/encap/header"
	"sixfour/transport"
)

// ptbSample is the beginning of the last large packet that was sent. If the path turns out
// to lose such packets, the daemon uses it to send a Packet Too Big message to the sender
// at once. Otherwise the sender would learn the limit only when it sends again, and a TCP
// whose packets are all lost waits longer each time.
type ptbSample struct {
	mu   sync.Mutex
	size int              // of the packet; 0: none stored
	head *[sampleLen]byte // nil: no packet was stored so far
}

// sampleLen, in bytes, has room for IP and TCP headers with options.
const sampleLen = 128

// sampleLarge stores the last large packet of the batch.
func (o *Outbound) sampleLarge() {
	for i := len(o.batch) - 1; i >= 0; i-- {
		pkt, size := &o.batch[i], o.inner[i]
		if pkt.Len() <= everyPath {
			continue
		}
		o.wires[i].Path.Sample.remember(pkt, size)
		return
	}
}

// remember stores the inner packet of the given size at the end of an outer packet.
func (w *ptbSample) remember(pkt *transport.Packet, size int) {
	if !w.mu.TryLock() { // another queue is storing one, which is as good
		return
	}
	defer w.mu.Unlock()
	if w.head == nil {
		w.head = new([sampleLen]byte)
	}
	w.size = size
	n := copy(w.head[:], pkt.Head[pkt.Len()-size:])
	copy(w.head[n:], pkt.Body)
}

// Tell informs the sender of the stored packet if the packet is too large for the path and
// must not be fragmented. It then forgets the packet.
func (w *ptbSample) Tell(t *Tunnel, p *Wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size == 0 {
		return
	}
	head := w.head[:min(w.size, len(w.head))]
	w.size = 0
	limit := int(p.Stack.LimitTo(head))
	if size := header.TotalLen(head); size > max(limit, t.Reserve) && !p.Stack.InPieces(head, size) {
		t.Reply.TooBig(limit, head, nil)
	}
}
