// Package transport receives and sends outer packets in batches.
package transport

import (
	"net/netip"

	"sixfour/encap/header"
)

// BatchSize is the number of packets that callers should offer at a time.
const BatchSize = 128

// MaxPacket is the largest IPv4 packet, and the largest IPv6 packet that the kernel
// merges (GRO) unless it is configured to make jumbograms. Receive buffers of this size
// do not truncate merged packets, which are far larger than the MTU.
const MaxPacket = 65535

// Port is a socket of ours, in both directions: the answer to a packet that was sent
// through a port arrives at it, also from behind a NAT.
//
// A port may be one of several shards with the same address, each with a receiving
// goroutine of its own. It may have several senders, each with a sending goroutine of
// its own.
type Port interface {
	Receiver

	// Sender opens a sender through the port, in the network namespace of the calling
	// thread. It may be called concurrently with all other methods. Close the senders
	// before the port; afterwards they return net.ErrClosed.
	Sender(o Options) (Sender, error)

	// KernelHeaders returns how many bytes of outer headers a received packet is without,
	// because the kernel removes them: 0 for raw sockets, and for UDP 28 or 48 without
	// Options.Headers. A sender always takes whole packets.
	KernelHeaders() int

	// Streams reports whether the port carries packets in byte streams, which have no
	// path MTU and drop the oldest packets rather than wait.
	Streams() bool
}

// Meta describes a received packet.
type Meta struct {
	// Outer is filled by ports for which KernelHeaders is not 0. With other ports a
	// packet begins with its outer header, and Outer stays empty: whoever needs an
	// address reads it there.
	Outer header.Outer

	// Size is the length of the packet in its buffer; 0: it was larger than the buffer,
	// or its metadata is not complete.
	Size int

	// Each is not 0 if the buffer has several datagrams with the same outer headers, one
	// after the other (UDP_GRO in udp(7)): it is how many bytes of payload each of them has,
	// except for the last, which may have less. If the packet begins with its headers, they
	// are those of the first datagram, and the only ones.
	Each int

	// Segment is how many bytes of payload each segment of the packet has, except for the
	// last segment, which may have less, if the packet is an aggregate of one inner flow
	// (see Segments). Otherwise it is Single, Small or Unknown.
	Segment int
}

// Receiver is the receiving half of a Port.
type Receiver interface {
	// Receive waits for packets and puts each into a buffer of bufs, from its first byte
	// on, and its description into meta at the same index. A packet begins with its outer
	// IP header if the port's KernelHeaders is 0, and otherwise after its outer headers.
	// Receive returns the number of packets, at least one. It does not retain the
	// buffers. Only one goroutine at a time may call it. After Close the error is
	// net.ErrClosed; after other errors it may be called again.
	Receive(bufs [][]byte, meta []Meta) (int, error)

	// Lost returns how many packets the kernel had no room for since the receiver was
	// opened, modulo 1<<32. While the queue of a shard is full, the packets of other
	// shards may be among them. Ok is false if the kernel does not report it. Only the
	// goroutine that calls Receive may call it.
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

// Sender is a sending half of a Port. It sends whole packets to the destinations in
// their headers.
type Sender interface {
	// Send sends packets in their order and returns how many were handed over.
	// If that is less than all of them, the error is about pkts[n]: the caller
	// deals with that packet and goes on with pkts[n+1:]. The buffers are the
	// caller's again at once. It waits where the kernel has no room for as long as
	// its queues are full. One goroutine at a time may call it.
	Send(pkts []Packet) (n int, err error)
	// SendOne sends a single packet that belongs to no batch. It may be called
	// concurrently with all other methods. It does not block: the error is ENOBUFS if the
	// kernel has no room.
	SendOne(pkt []byte) error

	// Close may be called at any time and ends a Send that waits.
	Close() error
}

// Shard is one receiver's part of the packets to an address. All packets of a flow
// belong to the same part: it depends on the addresses and ports of the innermost flow,
// if they are at their usual offsets. Packets without them belong to the first part.
type Shard struct {
	Index int // from 0
	Count int // 0 or 1: there is one receiver, which gets all packets
}

// Options are the options of sockets.
type Options struct {
	Mark uint32 // SO_MARK, for policy routing; 0: none
	ICMP []int  // for a receiver of ICMP or ICMPv6: the types to receive; nil: all

	// Device is the index of the only interface through which packets are sent, such as
	// for a link-local address; 0: the interface of the route.
	Device int

	// For a receiver at an IPv4 multicast address: that group, and the index of the
	// interface on which it joins the group. No packets from other interfaces are
	// received.
	Join   netip.Addr
	JoinOn int

	// For a UDP port over IPv4: whether DF is clear in the packets, so that routers may
	// fragment them, and whether they have no checksum (RFC 768).
	Fragment, NoChecksum bool

	// For a UDP port: whether received packets begin with their outer headers, as those of
	// raw ports do. The port writes them again from what the kernel says of each packet:
	// there are no options or extension headers, and identification, flow label and UDP
	// checksum, which the kernel has verified, are 0.
	Headers bool

	Segments *Segments // for a receiver of tunnel packets: finds segment sizes; nil: they stay unknown
}
