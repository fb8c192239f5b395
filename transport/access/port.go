package access

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/queue"
)

// LocalPort is the port, of UDP, of a broker's own end in the headers of packets.
const LocalPort = 1

// Port is the port at which packets of all clients arrive, as a transport.SessionPort has it:
// packets begin with the headers of a UDP packet, whose source is the handle of the client
// (resolve.ClientTable), and whose destination is resolve.ClientLocal. It has no sockets: the
// servers of the protocols have them.
type Port struct {
	queue.Arriving
	clients *Clients
}

// Listen opens the port, of which there can be one at a time.
func (c *Clients) Listen() (transport.Port, error) {
	p := &Port{clients: c, Arriving: queue.Arriving{In: queue.NewInbox()}}
	if !c.port.CompareAndSwap(nil, p) {
		return nil, fmt.Errorf("the port of the broker's clients is open already: %w", unix.EADDRINUSE)
	}
	return p, nil
}

const headers = header.IPv4Len + header.UDPLen

// SetPeers implements transport.SessionPort. There are no peers: clients are attached.
func (p *Port) SetPeers([]transport.SessionPeer) error { return nil }

// Close ends Receive. The clients stay attached.
func (p *Port) Close() error {
	p.clients.port.CompareAndSwap(p, nil)
	p.In.Close()
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
