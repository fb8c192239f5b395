// Package transport receives and sends outer packets in batches.
package transport

import "net/netip"

// BatchSize is the number of packets that callers should offer at a time.
const BatchSize = 128

// MaxPacket is the largest IPv4 packet, and the largest IPv6 packet that the kernel
// merges (GRO) unless it is configured to make jumbograms. Receive buffers of this size
// do not truncate merged packets, which are far larger than the MTU.
const MaxPacket = 65535

// Receiver is the receiving half of a transport.
type Receiver interface {
	// Receive waits for packets and puts each into a buffer of bufs, from its first byte
	// on, and its length into sizes at the same index. Each packet begins with its IP
	// header. It returns the number of packets, at least one. A packet that was larger
	// than its buffer has size 0. Receive does not retain the buffers. Only one goroutine
	// at a time may call it. After Close the error is net.ErrClosed; after other errors
	// it may be called again.
	Receive(bufs [][]byte, sizes []int) (int, error)

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

// Sender is the sending half of a transport. It sends whole packets to the destinations
// in their headers.
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

// Options are the options that all sockets of a transport have in common.
type Options struct {
	Mark uint32 // SO_MARK, for policy routing; 0: none
	ICMP []int  // for a receiver of ICMP or ICMPv6: the types to receive; nil: all

	// Device is the index of the only interface through which packets are sent, such as
	// for a link-local address; 0: the interface of the route.
	Device int

	// For a receiver at an IPv4 multicast address: that group, and an address of ours on
	// the interface where it joins the group. No packets from other interfaces are
	// received.
	Join, JoinAt netip.Addr

	Segments *Segments // for a receiver of tunnel packets: finds segment sizes; nil: they stay unknown
}
