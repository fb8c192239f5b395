package connectip

import (
	"net"
	"sync"
	"time"

	"sixfour/encap/header"
)

// packet is a packet that waits. Its memory is used again.
type packet struct {
	b     []byte
	mem   []byte
	outer header.Outer // of a received packet: its headers
	since time.Time    // of a packet to send: it waits since then
}

var packets = sync.Pool{New: func() any { return &packet{mem: make([]byte, 2048)} }}

// newPacket returns a packet with n bytes of any content.
func newPacket(n int) *packet {
	p := packets.Get().(*packet)
	if n <= len(p.mem) {
		p.b = p.mem[:n]
	} else { // large ones are rare, and do not stay
		p.b = make([]byte, n)
	}
	return p
}

func (p *packet) free() {
	p.b = nil
	packets.Put(p)
}

// ring is a queue of packets. The zero value is empty.
type ring struct {
	all     []*packet // of a length that is a power of 2
	head, n int
}

func (r *ring) push(p *packet) {
	if r.n == len(r.all) {
		more := make([]*packet, max(64, 2*len(r.all)))
		for i := range r.n {
			more[i] = r.all[(r.head+i)&(len(r.all)-1)]
		}
		r.all, r.head = more, 0
	}
	r.all[(r.head+r.n)&(len(r.all)-1)] = p
	r.n++
}

func (r *ring) first() *packet { return r.all[r.head] }

func (r *ring) pop() *packet {
	p := r.all[r.head]
	r.all[r.head] = nil
	r.head = (r.head + 1) & (len(r.all) - 1)
	r.n--
	if r.n == 0 && len(r.all) > 1024 { // a rare burst
		*r = ring{}
	}
	return p
}

// maxInbox is how many packets may wait for Receive.
const maxInbox = 4096

func newInbox() *inbox {
	in := new(inbox)
	in.filled.L = &in.mu
	return in
}

// inbox holds received packets until Receive is called.
type inbox struct {
	mu     sync.Mutex
	filled sync.Cond // with mu
	q      ring
	lost   uint32
	closed bool
}

// put takes a packet, unless the queue is full.
func (in *inbox) put(p *packet) {
	in.mu.Lock()
	ok := in.q.n < maxInbox && !in.closed
	if ok {
		in.q.push(p)
	} else {
		in.lost++
	}
	wake := ok && in.q.n == 1
	in.mu.Unlock()
	if wake {
		in.filled.Signal()
	}
	if !ok {
		p.free()
	}
}

// take waits for packets and returns some of them in into.
func (in *inbox) take(into []*packet) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.q.n == 0 && !in.closed {
		in.filled.Wait()
	}
	if in.closed {
		return 0, net.ErrClosed
	}
	n := min(in.q.n, len(into))
	for i := range n {
		into[i] = in.q.pop()
	}
	return n, nil
}

func (in *inbox) close() {
	in.mu.Lock()
	in.closed, in.q = true, ring{}
	in.mu.Unlock()
	in.filled.Broadcast()
}

// Limits of an outbox. A packet that has waited for longer than maxWait is worth less than
// the next one: its sender has sent it again, or it is too late (an application's voice or
// game data).
const (
	maxWait        = 100 * time.Millisecond
	maxOutbox      = 4096    // packets
	maxOutboxBytes = 4 << 20 // of their contents
	maxCapsules    = 64      // other than DATAGRAM
)

// outbox holds packets that wait until a connection takes them. When there is no room, the
// oldest one is dropped.
type outbox struct {
	mu       sync.Mutex
	filled   sync.Cond // with mu
	q        ring
	bytes    int
	capsules [][]byte // they leave before all packets, and are not dropped
	dropped  uint64
	closed   bool
}

func newOutbox() *outbox {
	o := new(outbox)
	o.filled.L = &o.mu
	return o
}

// put takes a packet.
func (o *outbox) put(p *packet) {
	o.mu.Lock()
	if o.closed {
		o.dropped++
		o.mu.Unlock()
		p.free()
		return
	}
	o.q.push(p)
	o.bytes += len(p.b)
	for o.q.n > maxOutbox || o.bytes > maxOutboxBytes && o.q.n > 1 || p.since.Sub(o.q.first().since) > maxWait {
		o.drop()
	}
	wake := o.q.n == 1
	o.mu.Unlock()
	if wake {
		o.filled.Signal()
	}
}

// drop removes the oldest packet. The caller holds mu.
func (o *outbox) drop() {
	o.pop().free()
	o.dropped++
}

func (o *outbox) pop() *packet {
	p := o.q.pop()
	o.bytes -= len(p.b)
	return p
}

// putCapsule takes a capsule. It returns false if too many wait already.
func (o *outbox) putCapsule(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.capsules) >= maxCapsules {
		return false
	}
	o.capsules = append(o.capsules, b)
	o.filled.Signal()
	return true
}

// take waits for packets or capsules. It returns all capsules, and in into as many packets
// as have at most size bytes together, but at least one.
func (o *outbox) take(into []*packet, size int) (capsules [][]byte, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if o.closed {
			return nil, 0, net.ErrClosed
		}
		if o.q.n > 0 || len(o.capsules) > 0 {
			break
		}
		o.filled.Wait()
	}
	now := time.Now()
	for o.q.n > 0 && now.Sub(o.q.first().since) > maxWait {
		o.drop()
	}
	for n < len(into) && o.q.n > 0 && (n == 0 || size >= len(o.q.first().b)) {
		into[n] = o.pop()
		size -= len(into[n].b)
		n++
	}
	capsules, o.capsules = o.capsules, nil
	return capsules, n, nil
}

// lose counts packets that were dropped after they were taken.
func (o *outbox) lose(n int) {
	o.mu.Lock()
	o.dropped += uint64(n)
	o.mu.Unlock()
}

func (o *outbox) close() {
	o.mu.Lock()
	o.dropped += uint64(o.q.n)
	o.closed, o.q, o.bytes, o.capsules = true, ring{}, 0, nil
	o.mu.Unlock()
	o.filled.Broadcast()
}

func (o *outbox) drops() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}
