package wireguard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"golang.zx2c4.com/wireguard/device"

	"sixfour/encap/header"
	"sixfour/transport"
)

// sender is a sender of a port.
type sender struct {
	port   *Port
	closed atomic.Bool

	malformed, elsewhere, unconnected, large error
}

// largest is the largest inner packet that the buffers of the device have room for, with
// its padding.
const largest = most - Overhead - device.PaddingMultiple

// Sender implements transport.Port. The mark and the device must be those of the port. Send
// returns an error that wraps
//
//   - ENOTCONN if the peer with the inner destination has no session, or is at another
//     address and port than the packet's destination,
//   - EINVAL if the packet does not begin with the headers of a UDP packet from the port, or
//     if no peer has the inner destination,
//   - EMSGSIZE if the packet is larger than any datagram,
//   - ENOBUFS if the device does not take packets as fast.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) {
	local := p.Local()
	if o.Mark != p.options.Mark || o.Device != p.options.Device {
		return nil, fmt.Errorf("send from %v with mark %d and device %d: its socket has mark %d and device %d", local, o.Mark, o.Device, p.options.Mark, p.options.Device)
	}
	if p.tunnel.out.closed() {
		return nil, net.ErrClosed
	}
	return &sender{
		port:        p,
		malformed:   fmt.Errorf("send from %v: the bytes do not begin with the headers of a UDP packet from this port: %w", local, unix.EINVAL),
		elsewhere:   fmt.Errorf("send from %v: the inner destination is behind no peer: %w", local, unix.EINVAL),
		unconnected: fmt.Errorf("send from %v: there is no WireGuard session with the destination: %w", local, unix.ENOTCONN),
		large:       fmt.Errorf("send from %v: the packet is larger than a datagram: %w", local, unix.EMSGSIZE),
	}, nil
}

// Send implements transport.Sender.
func (s *sender) Send(pkts []transport.Packet) (int, error) {
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	t := s.port.peers.Load()
	return s.port.tunnel.out.put(len(pkts), true, func(i int, to *slot) error {
		return s.fill(t, to, &pkts[i])
	})
}

// SendOne implements transport.Sender.
func (s *sender) SendOne(pkt []byte) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	t := s.port.peers.Load()
	_, err := s.port.tunnel.out.put(1, false, func(_ int, to *slot) error {
		return s.fill(t, to, &transport.Packet{Head: pkt})
	})
	return err
}

// Close implements transport.Sender.
func (s *sender) Close() error {
	s.closed.Store(true)
	return nil
}

// fill writes the inner packet of a packet.
func (s *sender) fill(t *table, to *slot, pkt *transport.Packet) error {
	outer, ok := s.outer(pkt.Head)
	if !ok {
		return s.malformed
	}
	front := header.HeadersLen(outer.From.Addr())
	n := pkt.Len() - front
	if n > largest {
		return s.large
	}
	b := to.size(n)
	copy(b[copy(b, pkt.Head[front:]):], pkt.Body)
	to.tos, to.ttl = outer.TOS, outer.TTL
	inner := dest(b)
	p := t.find(inner)
	if p == nil || !inner.IsValid() {
		return s.elsewhere
	}
	if a := p.at.Load(); a == nil || s.port.tunnel.withZone(outer.At) != a.now && s.port.tunnel.withZone(outer.At) != a.before {
		return s.unconnected
	}
	return nil
}

// outer reads the headers of a UDP packet from the port.
func (s *sender) outer(head []byte) (o header.Outer, ok bool) {
	local := s.port.Local()
	n := header.HeadersLen(local.Addr())
	if len(head) < n {
		return o, false
	}
	if local.Addr().Is4() {
		ip := header.IPv4(head)
		ok = head[0] == 0x45 && ip.Protocol() == header.UDP && ip.Fragment()&(header.MF|header.OffsetMask) == 0
	} else {
		ok = header.Version(head) == 6 && head[6] == header.UDP
	}
	if !ok || binary.BigEndian.Uint16(head[n-header.UDPLen:]) != local.Port() {
		return o, false
	}
	o = header.OuterOf(head)
	_, to := header.Ports(head[n-header.UDPLen:])
	o.At = netip.AddrPortFrom(o.At.Addr(), to)
	return o, true
}
