package framing

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// GUE is the framing of Generic UDP Encapsulation, as the Linux kernel speaks it (ip-fou(8),
// draft-ietf-intarea-gue): a UDP header, and a header that says what follows. Variant 0 is
// sent:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---+-+---------+---------------+-------------------------------+
//	| 0 |C|  Hlen   |   Protocol    |             Flags             |
//	+---+-+---------+---------------+-------------------------------+
//
// Hlen is the length of what follows for the flags, in words of 32 bits. The flag 1 says that
// private flags follow, and 1<<31 in these that the checksum of the packet inside has to be
// completed. In variant 1 there is no header: an IP packet follows the UDP header. Both
// are received.
//
// The fields are those of FOU.
type GUE FOU

const gueLen = 4 // without optional fields

// The parts of a GUE header's first byte, and flags.
const (
	gueVariant  = 0xc0
	gueControl  = 0x20
	gueHlen     = 0x1f
	guePrivate  = 1       // private flags follow
	gueChecksum = 1 << 31 // private: the offsets for the inner checksum follow
)

// Properties returns the properties of the headers.
func (f GUE) Properties() Properties { return (*FOU)(&f).properties(header.UDPLen + gueLen) }

// Matches reports whether a UDP header has the ports of our peer's packets, and whether what
// follows the GUE header was sent to the framing inside.
func (f GUE) Matches(b []byte) bool {
	switch {
	case !(*FOU)(&f).ports().matches(b):
		return false
	case f.Inside == nil || len(b) < header.UDPLen+gueLen:
		return true
	}
	at := header.UDPLen + gueLen + 4*int(b[header.UDPLen]&gueHlen)
	return f.Inside.Matches(b[min(len(b), at):])
}

// Codec returns the codec for the headers.
func (f GUE) Codec(s *State) Codec {
	return &gueCodec{newUDPCodec(FOU(f), header.UDPLen+gueLen, s)}
}

type gueCodec struct{ udpCodec }

// carries returns the protocol number of packets of an IP version, or of the framing inside.
func (c *gueCodec) carries(version int) byte {
	switch {
	case c.inside != nil:
		return header.GRE
	case version == 4:
		return header.ProtoIPv4
	}
	return header.ProtoIPv6
}

// Append appends the headers without the UDP header's length and checksum.
func (c *gueCodec) Append(b []byte, version int) []byte {
	b = appendUDP(b, c.ports())
	return c.appendInside(append(b, 0, c.carries(version), 0, 0), version)
}

// Open removes the headers, and verifies the UDP checksum.
func (c *gueCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at, c.ports())
	if r != drop.None {
		return nil, 0, r
	}
	return c.openPayload(b)
}

// OpenDatagram removes the headers that follow the UDP header.
func (c *gueCodec) OpenDatagram(b []byte, o header.Outer) (inner []byte, version int, r drop.Reason) {
	if !c.isFrom(o) {
		return nil, 0, drop.ForeignSource
	}
	return c.openPayload(b)
}

// openPayload removes the headers that follow the UDP header. It completes the checksum of
// the packet inside if the GUE header says so.
func (c *gueCodec) openPayload(b []byte) (inner []byte, version int, r drop.Reason) {
	if len(b) < gueLen {
		return nil, 0, drop.Truncated
	}
	switch b[0] & gueVariant {
	case 0:
	case 1 << 6: // the first bits of IPv4 and of IPv6
		if c.inside != nil {
			return nil, 0, drop.UnknownProtocol
		}
		return c.openInside(b)
	default:
		return nil, 0, drop.BadGUE
	}
	optional := 4 * int(b[0]&gueHlen)
	if len(b) < gueLen+optional {
		return nil, 0, drop.Truncated
	}
	protocol, payload := b[1], b[gueLen+optional:]
	if r := finishChecksum(binary.BigEndian.Uint16(b[2:]), b[gueLen:][:optional], payload); r != drop.None {
		return nil, 0, r
	}
	if b[0]&gueControl != 0 {
		return nil, 0, drop.BadGUE
	}
	if c.inside != nil && protocol != header.GRE {
		return nil, 0, drop.UnknownProtocol
	}
	inner, version, r = c.openInside(payload)
	if r == drop.None && protocol != c.carries(version) {
		return nil, 0, drop.UnknownProtocol
	}
	return inner, version, r
}

// finishChecksum completes the checksum in a packet if the optional fields of its GUE header
// say so (remote checksum offload): its sender has put there only the sum of the pseudo
// header. The sum is over the packet from one offset on, and is written at the other one. Like
// the kernel, it refuses flags that have no meaning, and skips words after those that
// the flags stand for.
func finishChecksum(flags uint16, optional, pkt []byte) drop.Reason {
	const fieldLen = 4 // of private flags, and of two offsets
	switch {
	case flags == 0:
		return drop.None
	case flags != guePrivate || len(optional) < fieldLen:
		return drop.BadGUE
	}
	switch binary.BigEndian.Uint32(optional) {
	case 0:
		return drop.None
	case gueChecksum:
	default:
		return drop.BadGUE
	}
	if len(optional) < 2*fieldLen {
		return drop.BadGUE
	}
	start, at := int(binary.BigEndian.Uint16(optional[4:])), int(binary.BigEndian.Uint16(optional[6:]))
	if start > len(pkt) || at+2 > len(pkt) {
		return drop.Truncated
	}
	sum := ^header.Sum(pkt[start:], 0)
	if sum == 0 { // UDP has no such checksum; for all others 0xffff is the same
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(pkt[at:], sum)
	return drop.None
}

// Unquote removes the headers. The ports must be ours, and the GUE header one that we write.
func (c *gueCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	payload, payloadSize, ok := unquoteUDP(b, size, c.ports(), c.Flow)
	if !ok {
		return nil, 0, 0, false
	}
	for i, v := range payload[:min(len(payload), gueLen)] {
		if i != 1 && v != 0 || i == 1 && v != c.carries(4) && v != c.carries(6) {
			return nil, 0, 0, false
		}
	}
	if len(payload) < 2 {
		return nil, 0, 0, true
	}
	said := 0
	if c.inside == nil {
		said = 4
		if payload[1] == header.ProtoIPv6 {
			said = 6
		}
		if !carriesVersion(c.Version, said) {
			return nil, 0, 0, false
		}
	}
	if len(payload) <= gueLen {
		return nil, 0, said, true
	}
	inner, innerSize, version, ok = c.unquoteInside(payload[gueLen:], payloadSize-gueLen)
	return inner, innerSize, version, ok && (said == 0 || said == version)
}
