package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"sixfour/encap/header"
	"sixfour/transport"
)

// bind is the socket of the device. It sends and receives through a UDPPort.
type bind struct {
	port    *transport.UDPPort
	senders chan *bindSender // those that are not in use
	arrived func(messageType uint32, from netip.AddrPort)

	// Used by receive only.
	bufs  [][]byte
	meta  []transport.Meta
	next  int            // the first buffer that still has datagrams
	used  int            // how many buffers have been received
	known [256]*endpoint // the endpoints of packets, to allocate none for each packet

	opened atomic.Bool
}

// bindSenders is how many goroutines may send at the same time. The device has one for each
// peer, which can be many.
const bindSenders = 2

// arrivals is how many datagrams are received at a time.
const arrivals = 32

// hopLimit is the TTL or hop limit of messages that carry no packet of ours.
const hopLimit = 64

// newBind opens the socket, in the network namespace of the calling thread.
func newBind(local netip.AddrPort, o transport.Options, arrived func(uint32, netip.AddrPort)) (*bind, error) {
	port, err := transport.ListenUDP(local, transport.Shard{}, o)
	if err != nil {
		return nil, err
	}
	// Receive expects one datagram in a buffer, so the kernel is not to merge any.
	_ = port.Use(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) })
	b := &bind{
		port: port, senders: make(chan *bindSender, bindSenders), arrived: arrived,
		bufs: make([][]byte, arrivals), meta: make([]transport.Meta, arrivals),
	}
	for i := range b.bufs {
		b.bufs[i] = make([]byte, transport.MaxPacket)
	}
	for range bindSenders {
		tx, err := port.Sender(o)
		if err != nil {
			return nil, errors.Join(err, port.Close())
		}
		b.senders <- &bindSender{Sender: tx, pkts: make([]transport.Packet, batchSize), heads: make([]byte, batchSize*headLen)}
	}
	return b, nil
}

// BatchSize implements conn.Bind.
func (b *bind) BatchSize() int { return batchSize }

// Open implements conn.Bind. The socket is open already.
func (b *bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	if !b.opened.CompareAndSwap(false, true) {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	return []conn.ReceiveFunc{b.receive}, b.port.Local().Port(), nil
}

// Close implements conn.Bind. The device also calls it before Open.
func (b *bind) Close() error {
	if !b.opened.Load() {
		return nil
	}
	return b.port.Close()
}

// SetMark implements conn.Bind. The mark is that of the options of the port.
func (b *bind) SetMark(uint32) error { return nil }

// receive implements conn.ReceiveFunc. It allocates an endpoint for the first packet
// from an address.
func (b *bind) receive(packets [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
	if b.next == b.used {
		if b.next, b.used = 0, 0; len(packets) > 0 {
			if b.used, err = b.port.Receive(b.bufs, b.meta); err != nil {
				b.used = 0
				return 0, err
			}
		}
	}
	var last *endpoint
	for n < len(packets) && b.next < b.used {
		m := &b.meta[b.next]
		datagram := b.bufs[b.next][:m.Size]
		b.next++
		if len(datagram) < device.MinMessageSize || len(datagram) > most {
			continue
		}
		sizes[n] = copy(packets[n], datagram)
		if mark, ok := noteOf(packets[n]); ok {
			mark.set(&m.Outer)
		}
		kind := binary.LittleEndian.Uint32(datagram)
		if kind != device.MessageTransportType || last == nil || !last.is(&m.Outer) {
			last = b.endpoint(&m.Outer)
			b.arrived(kind, last.to)
		}
		eps[n] = last
		n++
	}
	return n, nil
}

// endpoint returns the endpoint for a packet: an existing one, if its source address may
// still be used.
func (b *bind) endpoint(o *header.Outer) *endpoint {
	a := o.From.Addr().As16()
	h := binary.BigEndian.Uint64(a[:8]) ^ binary.BigEndian.Uint64(a[8:]) ^ uint64(o.From.Port())
	slot := &b.known[h*0x9e3779b97f4a7c15>>56]
	if e := *slot; e != nil && e.is(o) {
		return e
	}
	*slot = &endpoint{to: o.From, from: o.At.Addr()}
	return *slot
}

// Send implements conn.Bind. A packet that cannot be sent does not keep the others from
// being sent; the error is that of the last such packet.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	s := <-b.senders
	defer func() { b.senders <- s }()
	return s.send(bufs, e, b.port.Local())
}

// ParseEndpoint implements conn.Bind.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	to, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{to: to}, nil
}

// endpoint is the address of a peer and the local address for packets to it. It is immutable
// but for the flag that the local address is not to be used any more.
type endpoint struct {
	to      netip.AddrPort
	from    netip.Addr // the zero value: that of the port, or of the route
	cleared atomic.Bool
}

// is reports whether the endpoint is that of a received packet.
func (e *endpoint) is(o *header.Outer) bool {
	return e.to == o.From && e.from == o.At.Addr() && !e.cleared.Load()
}

// ClearSrc implements conn.Endpoint.
func (e *endpoint) ClearSrc() { e.cleared.Store(true) }

// DstToString implements conn.Endpoint.
func (e *endpoint) DstToString() string { return e.to.String() }

// DstToBytes implements conn.Endpoint.
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.to.MarshalBinary() // never fails
	return b
}

// DstIP implements conn.Endpoint.
func (e *endpoint) DstIP() netip.Addr { return e.to.Addr() }

// SrcIP implements conn.Endpoint.
func (e *endpoint) SrcIP() netip.Addr { return e.source() }

// SrcToString implements conn.Endpoint.
func (e *endpoint) SrcToString() string { return e.source().String() }

func (e *endpoint) source() netip.Addr {
	if e.cleared.Load() {
		return netip.Addr{}
	}
	return e.from
}

// headLen is the room for the headers of a packet.
const headLen = header.IPv6Len + header.UDPLen

// bindSender sends a batch. It is used by one goroutine at a time.
type bindSender struct {
	transport.Sender
	pkts  []transport.Packet
	heads []byte
}

func (s *bindSender) send(bufs [][]byte, e *endpoint, local netip.AddrPort) (last error) {
	o := header.Outer{From: local, At: e.to, TTL: hopLimit}
	if from := e.source(); local.Addr().IsUnspecified() && from.IsValid() {
		o.From = netip.AddrPortFrom(from, local.Port())
	}
	if o.From.Addr().Is4() != o.At.Addr().Is4() {
		return fmt.Errorf("send from %v to %v: not the same IP version", local, e.to)
	}
	n := header.HeadersLen(o.From.Addr())
	pkts := s.pkts[:0]
	for i, b := range bufs {
		o.TOS, o.TTL = 0, hopLimit
		if mark, ok := noteOf(b); ok && len(b) > device.MessageKeepaliveSize { // keepalives are in unused buffers
			o.TOS, o.TTL = mark.tos(), mark.ttl()
		}
		head := s.heads[i*headLen:][:n]
		header.PutHeaders(head, &o)
		if o.From.Addr().Is4() {
			binary.BigEndian.PutUint16(head[6:], header.DF)
		}
		head[n-1] = 1 // the packet is to have a checksum, which the kernel computes
		pkts = append(pkts, transport.Packet{Head: head, Body: b})
	}
	for len(pkts) > 0 {
		sent, err := s.Send(pkts)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			last = err
			sent++
		}
		pkts = pkts[min(sent, len(pkts)):]
	}
	return last
}
