package engine

import (
	"sync"

	"sixfour/encap/header"
	"sixfour/transport"
)

// witness is the beginning of the last large packet that was sent. When it turns
// out that the path has swallowed such packets, its sender is told at once: it
// would otherwise hear only when it sends again, and a TCP that has lost
// everything waits ever longer until it does.
type witness struct {
	mu   sync.Mutex
	size int // of the packet; 0: there is none
	head [witnessLen]byte
}

// witnessLen has room for IP and TCP headers with options.
const witnessLen = 128

// witness remembers the last large packet of the batch.
func (o *outbound) witness() {
	for i := len(o.batch) - 1; i >= 0; i-- {
		pkt, size := &o.batch[i], o.inner[i]
		if pkt.Len() <= everyPath {
			continue
		}
		o.peers[i].witness.remember(pkt, size)
		return
	}
}

// remember remembers the inner packet, of a size, with which an outer one ends.
func (w *witness) remember(pkt *transport.Packet, size int) {
	if !w.mu.TryLock() { // another queue's is as good
		return
	}
	defer w.mu.Unlock()
	w.size = size
	n := copy(w.head[:], pkt.Head[pkt.Len()-size:])
	copy(w.head[n:], pkt.Body)
}

// tell tells the witness's sender, if the packet is too large for the path and may
// not be cut, and forgets it.
func (w *witness) tell(t *tunnel, p *path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	head := w.head[:min(w.size, len(w.head))]
	w.size = 0
	limit := int(p.stack.LimitTo(head))
	if size(head) > limit && !p.stack.InPieces(head, size(head)) {
		t.reply.tooBig(limit, head, nil)
	}
}

// size is the length of a packet of which there is the beginning; 0 of nothing.
func size(head []byte) int {
	switch {
	case len(head) >= header.IPv6Len && header.Version(head) == 6:
		return header.IPv6Len + header.IPv6(head).PayloadLen()
	case len(head) >= header.IPv4Len && header.Version(head) == 4:
		return header.IPv4(head).TotalLen()
	}
	return 0
}
