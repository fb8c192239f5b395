package ayiya

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// room is the space before an inner packet for all headers.
const room = header.IPv6Len + header.UDPLen + ayiya.MaxHeaderLen

// maxInner is the largest inner packet that fits into a datagram with any headers.
const maxInner = transport.MaxPacket - room

// hopLimit is the TTL or hop limit of packets that carry none of a tunnel.
const hopLimit = 64

// Errors of packets to clients.
var (
	errLarge = fmt.Errorf("the packet is larger than a datagram: %w", unix.EMSGSIZE)
	errNotIP = fmt.Errorf("the packet is neither IPv4 nor IPv6: %w", unix.EINVAL)
)

// seal writes the headers of a packet whose payload begins at b[room], and returns the packet.
// The payload may be empty. The kernel computes the UDP checksum.
func seal(b []byte, o *header.Outer, h *ayiya.Header, k *ayiya.Key, s *ayiya.Signer) []byte {
	front := header.HeadersLen(o.From.Addr())
	b = b[room-k.Hash().HeaderLen()-front:]
	s.Sign(b[front:], h, k)
	header.PutHeaders(b, o)
	if o.From.Addr().Is4() {
		binary.BigEndian.PutUint16(b[6:], header.DF)
	}
	b[front-1] = 1 // there is to be a checksum
	return b
}

// outer returns the outer headers of a packet from a socket.
func outer(local, from, to netip.AddrPort) header.Outer {
	if !local.Addr().IsUnspecified() || !from.IsValid() {
		from = local
	}
	return header.Outer{From: netip.AddrPortFrom(from.Addr(), local.Port()), At: to, TTL: hopLimit}
}

// nextHeader returns the protocol number of an inner packet; 0: it is none.
func nextHeader(inner []byte) byte {
	switch header.Version(inner) {
	case 4:
		return ayiya.NextIPv4
	case 6:
		return ayiya.NextIPv6
	}
	return 0
}

// outboxLen is how many packets wait at most for the goroutine that signs and sends them.
const outboxLen = 2048

// parcel is a packet that waits. Its memory is used again.
type parcel struct {
	to   *session
	op   ayiya.OpCode
	next byte
	b    []byte // the payload begins at room
}

// put writes the payload.
func (p *parcel) put(payload []byte) {
	if n := room + len(payload); cap(p.b) < n {
		p.b = make([]byte, n, max(n, usualLen))
	} else {
		p.b = p.b[:n]
	}
	copy(p.b[room:], payload)
}

// usualLen is the capacity of a buffer for most packets.
const usualLen = 1500 + room

// outbox has the packets that a goroutine signs and sends: those for all clients whose first
// packet came through the same socket.
type outbox struct {
	port   *transport.UDPPort
	tx     transport.Sender
	signer ayiya.Signer
	now    func() time.Time

	mu     sync.Mutex
	filled sync.Cond // with mu
	in     []parcel  // of length outboxLen
	n      int       // how many of them wait
	closed bool

	out  []parcel // those that are being sent
	pkts []transport.Packet
}

func newOutbox(port *transport.UDPPort, o transport.Options, now func() time.Time) (*outbox, error) {
	tx, err := port.Sender(o)
	if err != nil {
		return nil, err
	}
	b := &outbox{
		port: port, tx: tx, now: now,
		in: make([]parcel, outboxLen), out: make([]parcel, outboxLen), pkts: make([]transport.Packet, 0, outboxLen),
	}
	b.filled.L = &b.mu
	return b, nil
}

var errNoRoom = fmt.Errorf("too many packets wait for the AYIYA server: %w", unix.ENOBUFS)

// put adds a packet.
func (b *outbox) put(to *session, op ayiya.OpCode, next byte, payload []byte) error {
	if len(payload) > maxInner {
		return errLarge
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return net.ErrClosed
	}
	if b.n == len(b.in) {
		b.mu.Unlock()
		return errNoRoom
	}
	p := &b.in[b.n]
	p.to, p.op, p.next = to, op, next
	p.put(payload)
	b.n++
	first := b.n == 1
	b.mu.Unlock()
	if first {
		b.filled.Signal()
	}
	return nil
}

// take waits for packets.
func (b *outbox) take() ([]parcel, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.n == 0 && !b.closed {
		b.filled.Wait()
	}
	if b.closed {
		return nil, net.ErrClosed
	}
	n := b.n
	b.in, b.out, b.n = b.out, b.in, 0
	return b.out[:n], nil
}

// run sends packets until the outbox is closed.
func (b *outbox) run() {
	local := b.port.Local()
	for {
		parcels, err := b.take()
		if err != nil {
			return
		}
		h := ayiya.Header{Epoch: ayiya.Epoch(b.now())}
		pkts := b.pkts[:0]
		for i := range parcels {
			p := &parcels[i]
			at := p.to.member.at()
			h.Op, h.Next, h.Identity = p.op, p.next, p.to.server
			o := outer(local, at.at, at.from)
			pkts = append(pkts, transport.Packet{Head: seal(p.b, &o, &h, &p.to.key, &b.signer)})
			p.to = nil
		}
		b.send(pkts)
	}
}

// send sends packets. One that cannot be sent does not keep the others from being sent.
func (b *outbox) send(pkts []transport.Packet) {
	for len(pkts) > 0 {
		n, err := b.tx.Send(pkts)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n++
		}
		pkts = pkts[min(n, len(pkts)):]
	}
}

// close ends run, and drops the packets that wait.
func (b *outbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.filled.Broadcast()
}
