package tsp

import "encoding/binary"

// HeaderLen is the length of the header of signalling messages over UDP (RFC 5572 section
// 5.3). Over TCP there is no header.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  0xf  |                     sequence number                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                           timestamp                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const HeaderLen = 8

// Header is the header of a message over UDP. The client chooses both numbers; the server
// repeats them in its answer. A message that is sent again has the same sequence number.
type Header struct{ Sequence, Timestamp uint32 }

// FirstSequence is the sequence number of a client's first message, and LastSequence the
// largest one. Servers on little-endian machines test the nibble in the last byte instead of
// the first one, so it is in both.
const (
	FirstSequence = 0xf00000f0
	LastSequence  = 0xf00000ff
)

// Parse divides a datagram into header and text. Ok is false if the datagram is not
// signalling: it is too short, or it does not have the nibble 0xf in its first byte or in the
// fourth one, where clients on little-endian machines put it. Packets inside the tunnel begin
// with the nibble 6, or 4.
func Parse(datagram []byte) (h Header, text []byte, ok bool) {
	if len(datagram) < HeaderLen || IsPacket(datagram) {
		return h, nil, false
	}
	if datagram[0]>>4 != 0xf && datagram[3]>>4 != 0xf {
		return h, nil, false
	}
	return Header{binary.BigEndian.Uint32(datagram), binary.BigEndian.Uint32(datagram[4:])}, datagram[HeaderLen:], true
}

// IsPacket reports whether a datagram is an IP packet inside the tunnel.
func IsPacket(datagram []byte) bool {
	return len(datagram) > 0 && (datagram[0]>>4 == 6 || datagram[0]>>4 == 4)
}

// Append appends the header to b.
func (h Header) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, h.Sequence), h.Timestamp)
}
