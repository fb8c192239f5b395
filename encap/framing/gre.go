package framing

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// GRE is the framing with a GRE header (RFC 2784, RFC 2890, RFC 7676). The value says which
// optional fields the header has. Both ends must agree on them.
type GRE struct {
	Keyed    bool
	Key      uint32
	Checksum bool
	Sequence bool

	// Apart: received packets do not have Key, but a key of their own, or none.
	Apart   bool
	InKeyed bool
	InKey   uint32
}

// Inward returns the key that received packets must have. If keyed is false, they must
// have none.
func (g GRE) Inward() (keyed bool, key uint32) {
	if g.Apart {
		return g.InKeyed, g.InKey
	}
	return g.Keyed, g.Key
}

// Properties returns the properties of the header with its optional fields.
func (g GRE) Properties() Properties {
	n := header.GRELen
	if g.Keyed {
		n += header.GREKeyLen
	}
	if g.Checksum {
		n += header.GREKeyLen
	}
	if g.Sequence {
		n += header.GREKeyLen
	}
	p := Properties{
		Protocol: header.GRE, Overhead: n, OverheadBack: n, Longest: header.GREMaxLen, Carries4: true, Carries6: true,
		Finished: g.Checksum || g.Sequence, Ordered: g.Sequence, Summed: g.Checksum, Optional: true,
	}
	keyed, key := g.Inward()
	if keyed {
		p.Identity = 1<<32 | uint64(key)
	}
	switch {
	case keyed && !g.Keyed:
		p.OverheadBack += header.GREKeyLen
	case g.Keyed && !keyed:
		p.OverheadBack -= header.GREKeyLen
	}
	return p
}

// Matches reports whether the header has the key that received packets must have.
func (g GRE) Matches(b []byte) bool {
	h, _ := header.PeekGRE(b)
	keyed, key := g.Inward()
	return h.Flags&header.GREKey != 0 == keyed && h.Key == key
}

// AppendKeepalive appends the header of the answer to a router's keepalive, which has
// protocol type 0 (mechanisms 8), and the key of received packets.
func (g GRE) AppendKeepalive(b []byte) []byte {
	keyed, key := g.Inward()
	if !keyed {
		return append(b, 0, 0, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, header.GREKey)
	b = binary.BigEndian.AppendUint16(b, header.GREKeepalive)
	return binary.BigEndian.AppendUint32(b, key)
}

// OpenKeepalive returns what follows a header with protocol type 0. It may have any key: the
// router wrote it.
func (g GRE) OpenKeepalive(b []byte) (payload []byte, ok bool) {
	h, r := header.ParseGRE(b)
	if r != drop.None || h.Protocol != header.GREKeepalive {
		return nil, false
	}
	return b[h.Len:], true
}

// Codec returns the codec for the optional fields.
func (g GRE) Codec(s *State) Codec {
	c := &greCodec{GRE: g, state: s}
	if g.Checksum {
		c.flags |= header.GREChecksum
	}
	if g.Keyed {
		c.flags |= header.GREKey
	}
	if g.Sequence {
		c.flags |= header.GRESequence
	}
	c.inKeyed, c.inKey = g.Inward()
	c.sequenceAt = g.Properties().Overhead - header.GREKeyLen
	return c
}

// greCodec reads and writes GRE headers.
type greCodec struct {
	GRE
	flags      uint16 // of our headers
	inKeyed    bool   // of received headers
	inKey      uint32
	sequenceAt int // offset of the sequence number in our headers
	state      *State
}

// Append appends the header. Its checksum and its sequence number are 0.
func (c *greCodec) Append(b []byte, version int) []byte {
	b = binary.BigEndian.AppendUint16(b, c.flags)
	b = binary.BigEndian.AppendUint16(b, header.EtherType(version))
	if c.Checksum {
		b = append(b, 0, 0, 0, 0)
	}
	if c.Keyed {
		b = binary.BigEndian.AppendUint32(b, c.Key)
	}
	if c.Sequence {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// Finish writes the sequence number, and the checksum, which covers the header and
// everything inside it.
func (c *greCodec) Finish(pkt []byte, at int, tail []byte) {
	b := pkt[at:]
	if c.Sequence {
		binary.BigEndian.PutUint32(b[c.sequenceAt:], c.state.nextSequence())
	}
	if c.Checksum {
		binary.BigEndian.PutUint16(b[header.GRELen:], ^header.SumPieces(b, tail, 0))
	}
}

// Open removes the header, which must have the same optional fields as ours (RFC 2890
// section 2); the kernel requires the same. A sequence number that is not configured is
// ignored.
func (c *greCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b := pkt[at:]
	h, r := header.ParseGRE(b)
	switch {
	case r != drop.None:
		return nil, 0, r
	case h.Flags&header.GREKey != 0 != c.inKeyed || h.Key != c.inKey:
		return nil, 0, drop.Key
	case h.Flags&header.GREChecksum != 0 != c.Checksum:
		return nil, 0, drop.BadChecksum
	case c.Sequence && (h.Flags&header.GRESequence == 0 || !c.state.inSequence(h.Sequence)):
		return nil, 0, drop.Sequence
	}
	if version = h.Version(); version == 0 {
		return nil, 0, drop.UnknownProtocol
	}
	return b[h.Len:], version, drop.None
}

// Unquote removes the header. Its optional fields and its key must be ours.
func (c *greCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	if len(b) < header.GRELen {
		return nil, 0, 0, true
	}
	h, whole := header.PeekGRE(b)
	if h.Flags != c.flags || whole && h.Key != c.Key {
		return nil, 0, 0, false
	}
	if version = h.Version(); version == 0 {
		return nil, 0, 0, false
	}
	if !whole {
		return nil, 0, version, true
	}
	return b[h.Len:], size - h.Len, version, true
}
