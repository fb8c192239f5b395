package tsp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/transport"
	"sixfour/transport/access"
)

// headers is the length of the outer headers of a tunnel in UDP.
const headers = header.IPv4Len + header.UDPLen

// outerTTL is the TTL of datagrams.
const outerTTL = 64

// putHead writes the headers of datagrams from one address and port to another, for a
// transport.UDPSender: with DF, and with a checksum, which the kernel computes.
func putHead(b []byte, from, to netip.AddrPort) {
	header.PutHeaders(b[:headers], &header.Outer{From: from, At: to, TTL: outerTTL})
	binary.BigEndian.PutUint16(b[6:], header.DF)
	b[headers-1] = 1
}

// buffer is a datagram with its headers.
type buffer [transport.MaxPacket]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// client is a client of a server whose tunnel runs in UDP: its link, and where it is.
type client struct {
	// What each packet from the client needs is in one line of the processor's cache: with many
	// clients that is what a packet costs.
	peer   access.Client // set before the client is in the table
	heard  atomic.Int64  // when the last packet came, in ns
	told   atomic.Int64  // when the Authority was told last
	broker header.Word6  // our end of the tunnel
	gone   atomic.Bool

	sender   transport.Sender
	table    *table
	head     [headers]byte
	key      tuple
	from, at netip.AddrPort
	account  string
	patience time.Duration // after so long without a packet it is dead
	inner    [2]header.Prefix6
	leaves   sync.Once
}

// Send implements access.Link.
func (c *client) Send(packet []byte) error {
	if len(packet) > transport.MaxPacket-headers {
		return errLarge
	}
	if c.gone.Load() {
		return net.ErrClosed
	}
	b := buffers.Get().(*buffer)
	copy(b[:], c.head[:])
	n := headers + copy(b[headers:], packet)
	err := c.sender.SendOne(b[:n])
	buffers.Put(b)
	return err
}

var errLarge = fmt.Errorf("the packet is larger than a datagram: %w", unix.EMSGSIZE)

// End implements access.Link.
func (c *client) End(*access.Refusal) {
	c.gone.Store(true)
	c.table.remove(c)
}

// leave says that the client has gone, once.
func (c *client) leave(why string) {
	c.leaves.Do(func() {
		if !c.gone.Swap(true) {
			c.peer.Leave(why)
		}
	})
}

// hold makes the client that of a lease.
func (c *client) hold(peer access.Client, now time.Time) {
	lease := peer.Lease()
	c.peer = peer
	c.broker, _ = header.Word6Of(lease.Endpoint.Broker)
	c.inner[0] = header.NewPrefix6(netip.PrefixFrom(lease.Endpoint.Client, 128))
	c.inner[1] = header.NewPrefix6(lease.Prefix)
	c.heard.Store(now.UnixNano())
	c.told.Store(now.UnixNano())
}

// tellEvery is how often the Authority is told that a client is there.
const tellEvery = 5 * time.Second

// receive takes a packet of the client.
func (c *client) receive(packet []byte, now time.Time) {
	if c.gone.Load() {
		return
	}
	c.heard.Store(now.UnixNano())
	if told := c.told.Load(); now.UnixNano()-told > int64(tellEvery) && c.told.CompareAndSwap(told, now.UnixNano()) {
		c.peer.Heard(c.from, c.at)
	}
	if c.answersEcho(packet) {
		return
	}
	_ = c.peer.Receive(packet) // counted there
}

// answersEcho answers the echo requests to our end of the tunnel by which the client sees that
// the tunnel works: in any other way the answer would depend on the host's addresses.
func (c *client) answersEcho(packet []byte) bool {
	if len(packet) < header.IPv6Len+icmp.HeaderLen || packet[0]>>4 != 6 || packet[6] != header.ICMPv6 || packet[header.IPv6Len] != icmp.EchoRequest6 {
		return false
	}
	ip := header.IPv6(packet)
	if header.ReadWord6(ip.Dest()) != c.broker || !header.Within(c.inner[:], header.ReadWord6(ip.Source())) {
		return false
	}
	if header.IPv6Len+ip.PayloadLen() != len(packet) {
		return false
	}
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	if len(packet) > len(b)-headers || !icmp.EchoReply(b[headers:headers+len(packet)], packet) {
		return false
	}
	copy(b[:], c.head[:])
	_ = c.sender.SendOne(b[:headers+len(packet)]) // the client asks again
	return true
}
