// Package seal has the header of SEAL (draft-templin-intarea-seal-68), and the two pieces in which
// packets pass a tunnel that does not carry them whole.
//
// The header has the form of an IPv6 fragment header (RFC 8200 section 4.5) with bit S set, which
// is reserved there and ignored by receivers. The protocol number before it is 44, in IPv4, too:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+---------------+-------------------------+-+-+-+
//	|  Next Header  |   Reserved    |         Offset          |R|S|M|
//	+---------------+---------------+-------------------------+-+-+-+
//	|                         Identification                        |
//	+---------------------------------------------------------------+
//
// The offset counts units of 8 bytes; M is 0 in the last piece.
//
// A piece has the IP header of the packet, so that every tunnel that carries the packet carries its
// pieces, and filters see their addresses. Pieces of IPv6 packets are fragments that any host
// reassembles, if the end of the tunnel does not.
package seal

import (
	"encoding/binary"

	"sixfour/encap/header"
)

// HeaderLen is the length of a header in bytes.
const HeaderLen = 8

// Header is a SEAL header.
type Header struct {
	Next   byte // the protocol of what was cut
	Offset int  // in bytes, a multiple of 8
	More   bool // this is not the last piece
	ID     uint32
}

// Flags in the fourth byte.
const (
	flagS    = 2
	flagMore = 1
)

// Put writes the header to b, which must have HeaderLen bytes.
func (h Header) Put(b []byte) {
	word := uint16(h.Offset) | flagS
	if h.More {
		word |= flagMore
	}
	b[0], b[1] = h.Next, 0
	binary.BigEndian.PutUint16(b[2:], word)
	binary.BigEndian.PutUint32(b[4:], h.ID)
}

// PutID writes the identification of a header.
func PutID(b []byte, id uint32) { binary.BigEndian.PutUint32(b[4:], id) }

// Parse reads a header. Ok is false if b is too short, or if bit S is not set.
func Parse(b []byte) (h Header, ok bool) {
	if len(b) < HeaderLen || b[3]&flagS == 0 {
		return h, false
	}
	word := binary.BigEndian.Uint16(b[2:])
	return Header{Next: b[0], Offset: int(word &^ 7), More: word&flagMore != 0, ID: binary.BigEndian.Uint32(b[4:])}, true
}

// IsPiece reports whether a packet, as header.Parse returns it, is a piece.
func IsPiece(pkt []byte) bool {
	if header.Version(pkt) == 6 {
		return header.IPv6(pkt).NextHeader() == header.FragmentHdr && isPiece(pkt[header.IPv6Len:])
	}
	ip := header.IPv4(pkt)
	return ip.Protocol() == header.FragmentHdr && isPiece(ip.Payload())
}

func isPiece(b []byte) bool { return len(b) >= HeaderLen && b[3]&flagS != 0 }

// headOf returns the length of a packet's IP header, without extension headers.
func headOf(pkt []byte) int {
	if header.Version(pkt) == 6 {
		return header.IPv6Len
	}
	return header.IPv4(pkt).HeaderLen()
}

// Payload returns how many bytes of a packet of size bytes are after its IP header.
func Payload(pkt []byte, size int) int { return size - headOf(pkt) }

// First returns how many bytes after the IP header of a packet of size bytes go into the first of
// two pieces, of which none is larger than most bytes. Ok is false if two pieces cannot carry the
// packet. Pkt needs only the IP header.
func First(pkt []byte, size, most int) (n int, ok bool) {
	head := headOf(pkt)
	n = (most - head - HeaderLen) &^ 7 // offsets count units of 8 bytes
	rest := size - head - n
	return n, n > 0 && rest > 0 && head+HeaderLen+rest <= most
}

// PutHead writes the IP header and the SEAL header of a piece to b, and returns their length. Pkt
// needs only the IP header. Part is the length of what follows, in bytes; of h, all but Next must
// be set.
func PutHead(b, pkt []byte, h Header, part int) int {
	head := headOf(pkt)
	copy(b, pkt[:head])
	size := head + HeaderLen + part
	if header.Version(pkt) == 6 {
		h.Next = b[6]
		b[6] = header.FragmentHdr
		binary.BigEndian.PutUint16(b[4:], uint16(size-header.IPv6Len))
	} else {
		h.Next = b[9]
		b[9] = header.FragmentHdr
		binary.BigEndian.PutUint16(b[2:], uint16(size))
		header.IPv4(b[:head]).SetChecksum()
	}
	h.Put(b[head:])
	return head + HeaderLen
}
