// Package datagrams goes through the packets of a received batch, of which one buffer may
// have several.
package datagrams

import (
	"encoding/binary"

	"sixfour/encap/header"
	"sixfour/transport"
)

// Cursor goes through the packets of a batch that was received from a port whose packets
// begin with their outer IP header. Where a buffer has several datagrams
// (transport.Meta.Each), only the first one is preceded by headers. The cursor writes the
// headers of another one in front of its payload, over the end of the datagram before, and
// later restores that end: no payload is copied.
//
// The zero value is ready for Start. A Cursor must not be copied.
type Cursor struct {
	// Packet is the present packet, with its headers. Between Restore and PutHeaders the headers
	// of a packet that is not the first one in its buffer are not there.
	Packet []byte
	// Index is the index of the buffer with the present packet.
	Index int
	// Count is the number of packets so far, with the present one.
	Count int

	bufs [][]byte
	meta []transport.Meta

	each   int // payload of each datagram in the present buffer; 0: it has one packet
	size   int // of what is in the present buffer
	outer  int // length of its headers
	at     int // where the payload of the present packet begins, if it is not the first one
	placed bool
	head   [longest]byte // headers of the first packet
	saved  [longest]byte // what Restore puts in their place
}

// longest is the length of the longest headers of a datagram.
const longest = header.IPv6Len + header.UDPLen

// Start starts a batch: the buffers that were received, and their descriptions.
func (c *Cursor) Start(bufs [][]byte, meta []transport.Meta) {
	c.bufs, c.meta = bufs, meta
	c.Packet, c.Index, c.Count = nil, -1, 0
	c.each, c.at, c.placed = 0, 0, false
}

// Next goes to the next packet. It returns false at the end of the batch. A packet that was
// too large for its buffer is empty.
func (c *Cursor) Next() bool {
	c.Restore()
	if c.each > 0 && c.another() {
		c.Count++
		return true
	}
	if c.Index+1 >= len(c.bufs) {
		c.each = 0
		return false
	}
	c.Index++
	c.Count++
	m := &c.meta[c.Index]
	c.Packet, c.each, c.at = c.bufs[c.Index][:m.Size], 0, 0
	if m.Each > 0 {
		c.first(m)
	}
	return true
}

// first begins a buffer with several datagrams.
func (c *Cursor) first(m *transport.Meta) {
	c.outer = longest
	if header.Version(c.Packet) == 4 {
		c.outer = header.IPv4Len + header.UDPLen
	}
	if m.Size <= c.outer+m.Each {
		return
	}
	c.each, c.size = m.Each, m.Size
	copy(c.head[:c.outer], c.Packet)
	c.Packet = c.Packet[:c.outer+m.Each]
}

// another goes to the next packet in the same buffer. It returns false if there is none.
func (c *Cursor) another() bool {
	next := max(c.at, c.outer) + c.each
	if next >= c.size {
		return false
	}
	c.at = next
	c.Packet = c.bufs[c.Index][next-c.outer : min(c.size, next+c.each)]
	c.PutHeaders()
	return true
}

// PutHeaders writes the headers of the present packet in front of its payload again, after
// Restore.
func (c *Cursor) PutHeaders() {
	if c.at == 0 || c.placed {
		return
	}
	pkt, n := c.Packet, c.outer
	copy(c.saved[:n], pkt)
	copy(pkt, c.head[:n])
	c.placed = true
	if len(pkt) == n+c.each {
		return
	}
	binary.BigEndian.PutUint16(pkt[n-header.UDPLen+4:], uint16(len(pkt)-n+header.UDPLen))
	if header.Version(pkt) == 4 {
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		header.IPv4(pkt).SetChecksum()
	} else {
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-header.IPv6Len))
	}
}

// Restore restores the end of the datagram before the present packet. Call it before
// anything reads that datagram. Next calls it, too.
func (c *Cursor) Restore() {
	if c.placed {
		copy(c.Packet[:c.outer], c.saved[:])
		c.placed = false
	}
}
