package encap

import (
	"encoding/binary"
	"iter"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/seal"
)

func isSEAL(k Kind) bool {
	_, ok := k.framing.(framing.SEAL)
	return ok
}

// Sealed reports whether the outermost layer has the framing SEAL. Its packets may be in two
// pieces.
func (s *Stack) Sealed() bool { return isSEAL(s.layers[len(s.layers)-1].Kind) }

// sealedPart returns how many bytes after the SEAL header the first of two pieces has, in which a
// packet of size bytes is sent: the piece is as large as every path, or this one, carries. Ok is
// false if two pieces cannot carry the packet.
func (t *template) sealedPart(size int) (first int, ok bool) {
	most := min(int(MinTunnelMTU6), t.limit+t.size) - header.IPv4Len - seal.HeaderLen
	size += t.size - header.IPv4Len - seal.HeaderLen // of layers inside
	first = most &^ 7
	return first, first > 0 && first < size && size-first <= most
}

// sealedPieces is EncapsulatePieces for a stack that is Sealed.
func (s *Stack) sealedPieces(t *template, b []byte, off int, scratch []byte, limit byte) iter.Seq2[[]byte, drop.Reason] {
	n, ok := t.sealedPart(len(b) - off)
	if !ok {
		return refused(drop.TooBig)
	}
	all, _ := t.upTo(len(t.parts) - 1)
	start, r := all.encapsulate(b, off, nil, fieldsOf(b[off:]), limit)
	if r != drop.None {
		return refused(r)
	}
	const headers = header.IPv4Len + seal.HeaderLen
	whole := b[start:]
	h, _ := seal.Parse(whole[header.IPv4Len:])
	return func(yield func([]byte, drop.Reason) bool) {
		for i, part := range [2][]byte{whole[headers : headers+n], whole[headers+n:]} {
			h.Offset, h.More = i*n, i == 0
			p := append(append(scratch[:0], whole[:headers]...), part...)
			binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
			binary.BigEndian.PutUint16(p[4:], s.record.nextID4())
			binary.BigEndian.PutUint16(p[6:], 0) // no DF: every path carries it
			header.IPv4(p[:header.IPv4Len]).SetChecksum()
			h.Put(p[header.IPv4Len:])
			if !yield(p, drop.None) {
				return
			}
		}
	}
}

// DecapsulateJoined is Decapsulate for a packet of a stack that is Sealed, which was joined from
// two pieces (seal.Joiner): its delivery header has the protocol of what the SEAL header was in front
// of.
func (s *Stack) DecapsulateJoined(whole []byte) ([]byte, drop.Reason) {
	last := len(s.in) - 1
	l, ok := s.in[last].(*over4)
	ip := header.IPv4(whole)
	if !ok || l.pair.Accepts4(ip) != drop.None {
		return nil, drop.UnknownProtocol
	}
	version := framing.VersionOf(ip.Protocol())
	if version == 0 {
		return nil, drop.UnknownProtocol
	}
	bare := content{bare: version, record: l.record}
	inner, r := bare.open(whole, ip.HeaderLen(), ip.TOS())
	if r != drop.None {
		return nil, r
	}
	return s.strip(slices.Clip(inner), last)
}
