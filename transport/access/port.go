package access

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/transport"
)

// LocalPort is the port, of UDP, of a broker's own end in the headers of packets.
const LocalPort = 1

// Port is the port at which packets of all clients arrive, as a transport.SessionPort has it:
// packets begin with the headers of a UDP packet, whose source is the handle of the client
// (resolve.ClientTable), and whose destination is resolve.ClientLocal. It has no sockets: the
// servers of the protocols have them.
type Port struct {
	clients *Clients
	in      inbox
	taken   [transport.BatchSize]*packet // by the goroutine that receives
}

// Listen opens the port, of which there can be one at a time.
func (c *Clients) Listen() (transport.Port, error) {
	p := &Port{clients: c}
	p.in.filled.L = &p.in.mu
	if !c.port.CompareAndSwap(nil, p) {
		return nil, fmt.Errorf("the port of the broker's clients is open already: %w", unix.EADDRINUSE)
	}
	return p, nil
}

// Receive implements transport.Receiver.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	n, err := p.in.take(p.taken[:min(len(p.taken), len(bufs), len(meta))])
	if err != nil {
		return 0, err
	}
	outer := header.Outer{At: netip.AddrPortFrom(resolve.ClientLocal, LocalPort), TTL: 64}
	for i, pkt := range p.taken[:n] {
		var from [4]byte
		binary.BigEndian.PutUint32(from[:], pkt.handle)
		outer.From = netip.AddrPortFrom(netip.AddrFrom4(from), LocalPort)
		meta[i] = transport.Meta{Segment: transport.Single}
		if size := headers + len(pkt.b); size <= len(bufs[i]) && size <= transport.MaxPacket {
			header.PutHeaders(bufs[i][:size], &outer)
			copy(bufs[i][headers:], pkt.b)
			meta[i].Size = size
		}
		pkt.free()
		p.taken[i] = nil
	}
	return n, nil
}

const headers = header.IPv4Len + header.UDPLen

// Lost returns how many packets of clients were dropped because Receive was not called soon
// enough.
func (p *Port) Lost() (n uint32, ok bool) {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	return p.in.lost, true
}

// KernelHeaders returns 0.
func (p *Port) KernelHeaders() int { return 0 }

// Streams returns true.
func (p *Port) Streams() bool { return true }

// SetPeers implements transport.SessionPort. There are no peers: clients are attached.
func (p *Port) SetPeers([]transport.SessionPeer) error { return nil }

// Close ends Receive. The clients stay attached.
func (p *Port) Close() error {
	p.clients.port.CompareAndSwap(p, nil)
	p.in.close()
	return nil
}

// sender is a sender of a port.
type sender struct {
	port    *Port
	closed  atomic.Bool
	scratch []byte // of the goroutine in Send
}

// Sender implements transport.Port. A packet for a client that has left is refused with
// EHOSTUNREACH, and one for which its link has no room with ENOBUFS.
func (p *Port) Sender(transport.Options) (transport.Sender, error) { return &sender{port: p}, nil }

// Send implements transport.Sender.
func (s *sender) Send(pkts []transport.Packet) (int, error) {
	for i := range pkts {
		whole := pkts[i].Head
		if len(pkts[i].Body) > 0 {
			s.scratch = append(append(s.scratch[:0], pkts[i].Head...), pkts[i].Body...)
			whole = s.scratch
		}
		if err := s.SendOne(whole); err != nil {
			return i, err
		}
	}
	return len(pkts), nil
}

var (
	errNotHandle = fmt.Errorf("the packet is for no client: %w", unix.EINVAL)
	errHasLeft   = fmt.Errorf("the client has left: %w", unix.EHOSTUNREACH)
	errNoRoom    = fmt.Errorf("the client's link has no room: %w", unix.ENOBUFS)
)

// SendOne implements transport.Sender.
func (s *sender) SendOne(pkt []byte) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	if len(pkt) < headers || pkt[0] != 0x45 {
		return errNotHandle
	}
	a := s.port.clients.find(binary.BigEndian.Uint32(header.IPv4(pkt).Dest()))
	if a == nil {
		return errHasLeft
	}
	if err := a.send(pkt[headers:]); err != nil {
		if errors.Is(err, net.ErrClosed) { // the link's, not the sender's
			return errHasLeft
		}
		if errors.Is(err, unix.EAGAIN) {
			return errNoRoom
		}
		return err
	}
	return nil
}

// Close implements transport.Sender.
func (s *sender) Close() error {
	s.closed.Store(true)
	return nil
}

// packet is a packet that waits for Receive. Its memory is used again.
type packet struct {
	b, mem []byte
	handle uint32
}

var packets = sync.Pool{New: func() any { return &packet{mem: make([]byte, 2048)} }}

func (p *packet) free() {
	p.b = nil
	packets.Put(p)
}

// maxInbox is how many packets may wait for Receive.
const maxInbox = 4096

// inbox has the packets that wait for Receive.
type inbox struct {
	mu     sync.Mutex
	filled sync.Cond // with mu
	ring   [maxInbox]*packet
	head   int
	n      int
	lost   uint32
	closed bool
}

// put takes a copy of a packet. It returns false if there is no room.
func (in *inbox) put(handle uint32, b []byte) bool {
	p := packets.Get().(*packet)
	if p.handle = handle; len(b) <= len(p.mem) {
		p.b = p.mem[:len(b)]
	} else { // large ones are rare, and do not stay
		p.b = make([]byte, len(b))
	}
	copy(p.b, b)
	in.mu.Lock()
	ok := in.n < maxInbox && !in.closed
	if ok {
		in.ring[(in.head+in.n)%maxInbox] = p
		in.n++
	} else {
		in.lost++
	}
	wake := ok && in.n == 1
	in.mu.Unlock()
	if wake {
		in.filled.Signal()
	}
	if !ok {
		p.free()
	}
	return ok
}

// take waits for packets, and moves them into a list.
func (in *inbox) take(into []*packet) (n int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.n == 0 && !in.closed {
		in.filled.Wait()
	}
	if in.closed {
		return 0, net.ErrClosed
	}
	n = min(in.n, len(into))
	for i := range n {
		at := (in.head + i) % maxInbox
		into[i], in.ring[at] = in.ring[at], nil
	}
	in.head, in.n = (in.head+n)%maxInbox, in.n-n
	return n, nil
}

// close ends take, and drops what waits.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	for ; in.n > 0; in.n-- {
		in.ring[in.head].free()
		in.ring[in.head] = nil
		in.head = (in.head + 1) % maxInbox
	}
	in.filled.Broadcast()
}
