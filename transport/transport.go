// Package transport carries outer packets: a batch of packets in, a batch of
// packets out.
package transport

import "net/netip"

// BatchSize is the number of packets that callers should offer at a time.
const BatchSize = 128

// MaxPacket is the largest packet that IPv4 knows, and the largest of IPv6 that a
// network card that aggregates (GRO) makes of smaller ones, if nobody tells it to
// make jumbograms. Receive buffers of this size do not truncate those, which are
// far above the MTU.
const MaxPacket = 65535

// Receiver is the inward half of a transport.
type Receiver interface {
	// Receive waits for packets and puts each into a buffer of bufs, from its
	// first byte on, and its length into sizes at the same index. Each packet
	// begins with its IP header. It returns how many there are, at least one. A
	// packet that was larger than its buffer has size 0. The buffers are the
	// caller's again at once. One goroutine at a time may call it. After Close the
	// error is net.ErrClosed; after other errors it may be called again.
	Receive(bufs [][]byte, sizes []int) (int, error)

	// Lost is how many packets the kernel had no room for since the receiver was
	// opened, modulo 1<<32. While the queue of a shard is full, the packets of other
	// shards may be among them. Not ok means that the kernel does not say. Whoever
	// calls Receive may call it.
	Lost() (n uint32, ok bool)

	// Close may be called at any time and ends a Receive that waits.
	Close() error
}

// Packet is an outer packet in two pieces, so that a segment's payload can stay
// where it is: what begins it, with all of its IP header, and what follows, which
// may be empty.
type Packet struct{ Head, Body []byte }

// Len is the packet's length in bytes.
func (p *Packet) Len() int { return len(p.Head) + len(p.Body) }

// Sender is the outward half of a transport: of whole packets, towards the
// destinations that stand in them.
type Sender interface {
	// Send sends packets in their order and returns how many were handed over.
	// If that is less than all of them, the error is about pkts[n]: the caller
	// deals with that packet and goes on with pkts[n+1:]. The buffers are the
	// caller's again at once. It waits where the kernel has no room for as long as
	// its queues are full. One goroutine at a time may call it.
	Send(pkts []Packet) (n int, err error)
	// SendOne sends a single packet that belongs to no batch. Any goroutine may
	// call it, at any time. It does not wait: the error is ENOBUFS where the kernel
	// has no room.
	SendOne(pkt []byte) error

	// Close may be called at any time and ends a Send that waits.
	Close() error
}

// Options are what all sockets of a transport have in common.
type Options struct {
	Mark uint32 // SO_MARK, for policy routing; 0: none
	ICMP []int  // of a receiver for ICMP or ICMPv6: the types that it wants; nil: all

	// Device is the interface by which alone packets leave, such as to a link-local
	// address; 0: that of the route.
	Device int

	// Of a receiver at an IPv4 multicast address: that group, and an address of
	// ours on the interface where it joins it. Nothing comes from other interfaces.
	Join, JoinAt netip.Addr

	Segments *Segments // of a receiver of tunnel packets: what is known of them; nil: nothing
}
