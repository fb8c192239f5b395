package queue

import (
	"net"
	"sync"
	"time"
)

// MaxWait is for how long a packet waits until a connection takes it. A packet that has
// waited for longer is worth less than the next one: its sender has sent it again, or it is
// too late (an application's voice or game data).
const MaxWait = 100 * time.Millisecond

// Limits of an Outbox.
const (
	maxOutbox      = 4096    // packets
	maxOutboxBytes = 4 << 20 // of their contents
	maxMessages    = 64
)

// Outbox holds packets that wait until a connection takes them. When there is no room, the
// oldest one is dropped.
type Outbox struct {
	mu       sync.Mutex
	filled   sync.Cond // with mu
	q        Ring
	bytes    int
	messages [][]byte // they leave before all packets, and are not dropped
	dropped  uint64
	closed   bool
}

// NewOutbox returns an empty Outbox.
func NewOutbox() *Outbox {
	o := new(Outbox)
	o.filled.L = &o.mu
	return o
}

// Put takes a packet, with Since. The packet is not the caller's any more.
func (o *Outbox) Put(p *Packet) {
	o.mu.Lock()
	if o.closed {
		o.dropped++
		o.mu.Unlock()
		p.Free()
		return
	}
	o.q.Push(p)
	o.bytes += len(p.B)
	for o.q.n > maxOutbox || o.bytes > maxOutboxBytes && o.q.n > 1 || p.Since.Sub(o.q.First().Since) > MaxWait {
		o.drop()
	}
	wake := o.q.n == 1
	o.mu.Unlock()
	if wake {
		o.filled.Signal()
	}
}

// drop removes the oldest packet. The caller holds mu.
func (o *Outbox) drop() {
	o.pop().Free()
	o.dropped++
}

func (o *Outbox) pop() *Packet {
	p := o.q.Pop()
	o.bytes -= len(p.B)
	return p
}

// PutMessage takes a message of the connection itself. It returns false if too many wait
// already.
func (o *Outbox) PutMessage(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.messages) >= maxMessages {
		return false
	}
	o.messages = append(o.messages, b)
	o.filled.Signal()
	return true
}

// Take waits for packets or messages. It returns all messages, and in into as many packets
// as have at most size bytes together, but at least one. There may be none of either, if all
// were too old. After Close the error is net.ErrClosed.
func (o *Outbox) Take(into []*Packet, size int) (messages [][]byte, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if o.closed {
			return nil, 0, net.ErrClosed
		}
		if o.q.n > 0 || len(o.messages) > 0 {
			break
		}
		o.filled.Wait()
	}
	now := time.Now()
	for o.q.n > 0 && now.Sub(o.q.First().Since) > MaxWait {
		o.drop()
	}
	for n < len(into) && o.q.n > 0 && (n == 0 || size >= len(o.q.First().B)) {
		into[n] = o.pop()
		size -= len(into[n].B)
		n++
	}
	messages, o.messages = o.messages, nil
	return messages, n, nil
}

// Lose counts packets that were dropped after they were taken.
func (o *Outbox) Lose(n int) {
	o.mu.Lock()
	o.dropped += uint64(n)
	o.mu.Unlock()
}

// Close drops all packets and messages, and ends Take.
func (o *Outbox) Close() {
	o.mu.Lock()
	o.dropped += uint64(o.q.n)
	o.closed, o.q, o.bytes, o.messages = true, Ring{}, 0, nil
	o.mu.Unlock()
	o.filled.Broadcast()
}

// Dropped returns how many packets were dropped.
func (o *Outbox) Dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// Len returns how many packets wait.
func (o *Outbox) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.q.n
}
