// Package queue holds packets that wait in ports whose packets travel inside connections
// (transport.SessionPort): those that were received, and those to send.
package queue

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
)

// Packet is a packet that waits. Its memory is used again.
type Packet struct {
	B     []byte
	Outer header.Outer // of a received packet: its headers
	Since time.Time    // of a packet to send: it waits since then
	mem   []byte
}

var packets = sync.Pool{New: func() any { return &Packet{mem: make([]byte, 2048)} }}

// New returns a packet with n bytes of any content.
func New(n int) *Packet {
	p := packets.Get().(*Packet)
	if n <= len(p.mem) {
		p.B = p.mem[:n]
	} else { // large ones are rare, and do not stay
		p.B = make([]byte, n)
	}
	return p
}

// Free makes the memory of the packet available for others.
func (p *Packet) Free() {
	p.B = nil
	packets.Put(p)
}

// Ring is a queue of packets. The zero value is empty.
type Ring struct {
	all     []*Packet // of a length that is a power of 2
	head, n int
}

// Len returns the number of packets.
func (r *Ring) Len() int { return r.n }

// Push adds a packet at the end.
func (r *Ring) Push(p *Packet) {
	if r.n == len(r.all) {
		more := make([]*Packet, max(64, 2*len(r.all)))
		for i := range r.n {
			more[i] = r.all[(r.head+i)&(len(r.all)-1)]
		}
		r.all, r.head = more, 0
	}
	r.all[(r.head+r.n)&(len(r.all)-1)] = p
	r.n++
}

// First returns the oldest packet. There must be one.
func (r *Ring) First() *Packet { return r.all[r.head] }

// Pop removes and returns the oldest packet. There must be one.
func (r *Ring) Pop() *Packet {
	p := r.all[r.head]
	r.all[r.head] = nil
	r.head = (r.head + 1) & (len(r.all) - 1)
	r.n--
	if r.n == 0 && len(r.all) > 1024 { // a rare burst
		*r = Ring{}
	}
	return p
}

// maxInbox is how many packets may wait for Receive.
const maxInbox = 4096

// Inbox holds received packets until Receive is called.
type Inbox struct {
	taken []*Packet // used by Receive

	mu     sync.Mutex
	filled sync.Cond // with mu
	q      Ring
	lost   uint32
	closed bool
}

// NewInbox returns an empty Inbox.
func NewInbox() *Inbox {
	in := &Inbox{taken: make([]*Packet, transport.BatchSize)}
	in.filled.L = &in.mu
	return in
}

// Put takes a packet, unless the queue is full. The packet is not the caller's any more.
func (in *Inbox) Put(p *Packet) {
	in.mu.Lock()
	ok := in.q.n < maxInbox && !in.closed
	if ok {
		in.q.Push(p)
	} else {
		in.lost++
	}
	wake := ok && in.q.n == 1
	in.mu.Unlock()
	if wake {
		in.filled.Signal()
	}
	if !ok {
		p.Free()
	}
}

// take waits for packets and returns some of them in into.
func (in *Inbox) take(into []*Packet) (int, error) {
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
		into[i] = in.q.Pop()
	}
	return n, nil
}

// Receive does what transport.Receiver says of Receive: each packet is preceded by the UDP
// headers in its Outer.
func (in *Inbox) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	n, err := in.take(in.taken[:min(len(in.taken), len(bufs), len(meta))])
	if err != nil {
		return 0, err
	}
	for i, p := range in.taken[:n] {
		meta[i] = transport.Meta{Segment: transport.Single}
		front := header.HeadersLen(p.Outer.From.Addr())
		if size := front + len(p.B); size <= len(bufs[i]) && size <= transport.MaxPacket {
			header.PutHeaders(bufs[i][:size], &p.Outer)
			copy(bufs[i][front:], p.B)
			meta[i].Size = size
		}
		p.Free()
		in.taken[i] = nil
	}
	return n, nil
}

// Lost returns how many packets were dropped because Receive was not called soon enough,
// modulo 1<<32.
func (in *Inbox) Lost() uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.lost
}

// Close drops all packets, and ends Receive.
func (in *Inbox) Close() {
	in.mu.Lock()
	in.closed, in.q = true, Ring{}
	in.mu.Unlock()
	in.filled.Broadcast()
}

// Arriving is the part of a transport.Port that all ports have in common whose packets come
// out of connections. It is embedded in them.
type Arriving struct{ In *Inbox }

// Receive implements transport.Receiver.
func (a Arriving) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	return a.In.Receive(bufs, meta)
}

// Lost returns how many received packets were dropped because Receive was not called soon
// enough.
func (a Arriving) Lost() (n uint32, ok bool) { return a.In.Lost(), true }

// KernelHeaders returns 0.
func (Arriving) KernelHeaders() int { return 0 }

// Streams returns true.
func (Arriving) Streams() bool { return true }

// ErrNotUDP is the error for a packet to send that does not begin with the headers of a UDP
// packet. It wraps EINVAL.
var ErrNotUDP = fmt.Errorf("the bytes do not begin with the headers of a UDP packet: %w", unix.EINVAL)

// Destination returns the destination of a UDP packet, and the length of its headers, all of
// which are in head. Ok is false if it is another packet, a fragment, or has options or
// extension headers.
func Destination(head []byte) (to netip.AddrPort, n int, ok bool) {
	switch {
	case len(head) >= header.IPv4Len+header.UDPLen && head[0] == 0x45:
		if ip := header.IPv4(head); ip.Protocol() == header.UDP && !ip.IsFragment() {
			_, port := header.Ports(head[header.IPv4Len:])
			return netip.AddrPortFrom(ip.Dst(), port), header.IPv4Len + header.UDPLen, true
		}
	case len(head) >= header.IPv6Len+header.UDPLen && head[0]>>4 == 6:
		if ip := header.IPv6(head); ip.NextHeader() == header.UDP {
			_, port := header.Ports(head[header.IPv6Len:])
			return netip.AddrPortFrom(ip.Dst(), port), header.IPv6Len + header.UDPLen, true
		}
	}
	return netip.AddrPort{}, 0, false
}
