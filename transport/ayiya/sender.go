package ayiya

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// sender is a sender of a client's port.
type sender struct {
	port   *Port
	tx     transport.Sender
	closed atomic.Bool

	signer ayiya.Signer // of Send
	bufs   [][]byte
	pkts   []transport.Packet

	one       sync.Mutex // guards oneSigner and oneBuf
	oneSigner ayiya.Signer
	oneBuf    []byte

	malformed, unconnected error
}

// Sender implements transport.Port. The mark and the device must be those of the port. Send
// returns an error that wraps
//
//   - ENOTCONN if no server that is connected has the packet's destination and port,
//   - EINVAL if the packet does not begin with the headers of a UDP packet from the port, or
//     does not continue with an IP packet,
//   - EMSGSIZE if the packet is larger than the device's MTU or any datagram.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) {
	tx, err := p.udp.Sender(transport.Options{Mark: o.Mark, Device: o.Device})
	if err != nil {
		return nil, err
	}
	local := p.Local()
	return &sender{
		port: p, tx: tx, bufs: make([][]byte, transport.BatchSize), pkts: make([]transport.Packet, transport.BatchSize),
		malformed:   fmt.Errorf("send from %v: the bytes do not begin with the headers of a UDP packet from this port, and an IP packet: %w", local, unix.EINVAL),
		unconnected: fmt.Errorf("send from %v: the destination is no AYIYA server that is connected: %w", local, unix.ENOTCONN),
	}, nil
}

// Send implements transport.Sender.
func (s *sender) Send(pkts []transport.Packet) (sent int, err error) {
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	now := time.Now()
	for sent < len(pkts) {
		n, bad := 0, error(nil)
		for _, pkt := range pkts[sent:min(len(pkts), sent+len(s.pkts))] {
			if s.pkts[n].Head, bad = s.seal(&pkt, &s.bufs[n], &s.signer, now); bad != nil {
				break
			}
			n++
		}
		done, err := s.tx.Send(s.pkts[:n])
		if sent += done; err != nil {
			return sent, err
		}
		if bad != nil {
			return sent, bad
		}
	}
	return sent, nil
}

// SendOne implements transport.Sender.
func (s *sender) SendOne(pkt []byte) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.one.Lock()
	defer s.one.Unlock()
	b, err := s.seal(&transport.Packet{Head: pkt}, &s.oneBuf, &s.oneSigner, time.Now())
	if err != nil {
		return err
	}
	return s.tx.SendOne(b)
}

// Close implements transport.Sender.
func (s *sender) Close() error {
	s.closed.Store(true)
	return s.tx.Close()
}

// seal returns the packet on the wire, in a buffer that it may replace by a larger one.
func (s *sender) seal(pkt *transport.Packet, buf *[]byte, signer *ayiya.Signer, now time.Time) ([]byte, error) {
	o, front, ok := s.outer(pkt.Head)
	if !ok {
		return nil, s.malformed
	}
	n := pkt.Len() - front
	if n > maxInner {
		return nil, errLarge
	}
	to := (*s.port.peers.Load())[o.At]
	if to == nil || !to.up.Load() {
		return nil, s.unconnected
	}
	if cap(*buf) < room+n {
		*buf = make([]byte, room+n, max(room+n, usualLen))
	}
	b := (*buf)[:room+n]
	copy(b[room+copy(b[room:], pkt.Head[front:]):], pkt.Body)
	next := nextHeader(b[room:])
	if next == 0 {
		return nil, s.malformed
	}
	to.sent.Store(int64(now.Sub(epoch)))
	h := ayiya.Header{Op: ayiya.Forward, Next: next, Epoch: ayiya.Epoch(now), Identity: to.client}
	return seal(b, &o, &h, &to.key, signer), nil
}

// outer returns the headers of a UDP packet from the port, and their length. The source is
// that of the port.
func (s *sender) outer(head []byte) (o header.Outer, front int, ok bool) {
	local := s.port.Local()
	front = header.HeadersLen(local.Addr())
	if len(head) < front || local.Addr().Is4() != (header.Version(head) == 4) || head[0]&15 != 5 && local.Addr().Is4() {
		return o, 0, false
	}
	o, _, ok = header.OpenUDP(head)
	if !ok || o.From.Port() != local.Port() {
		return o, 0, false
	}
	if zone := local.Addr().Zone(); zone != "" && o.At.Addr().IsLinkLocalUnicast() {
		o.At = netip.AddrPortFrom(o.At.Addr().WithZone(zone), o.At.Port())
	}
	o.From = local // the kernel chooses the address, if that is unspecified
	return o, front, true
}
