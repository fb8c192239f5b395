package framing

import (
	"math/rand/v2"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/seal"
)

// SEAL is the framing of draft-templin-intarea-seal-68: a header of eight bytes with an
// identification, and in the form of an IPv6 fragment header (see package seal). Packets that a path
// may not carry whole are sent in two pieces, which the stack makes and the receiver joins.
type SEAL struct {
	First uint32 // identification of the first packet, if Given; otherwise it is random
	Given bool
}

// Properties returns the properties of the header.
func (SEAL) Properties() Properties {
	return Properties{
		Protocol: header.FragmentHdr, Overhead: seal.HeaderLen, OverheadBack: seal.HeaderLen, Longest: seal.HeaderLen,
		Carries4: true, Carries6: true, Finished: true,
	}
}

// Matches reports whether the header has bit S.
func (SEAL) Matches(b []byte) bool {
	_, ok := seal.Parse(b)
	return ok || len(b) < seal.HeaderLen
}

// Codec returns the codec for the header.
func (f SEAL) Codec(s *State) Codec {
	if s != nil {
		before := rand.Uint32()
		if f.Given {
			before = f.First - 1
		}
		s.sealed.CompareAndSwap(0, before)
	}
	return &sealCodec{s}
}

type sealCodec struct{ state *State }

// VersionOf returns the IP version of what follows a header with a protocol number; 0: it is no
// IP packet.
func VersionOf(protocol byte) int {
	switch protocol {
	case header.ProtoIPv4:
		return 4
	case header.ProtoIPv6:
		return 6
	}
	return 0
}

// Append appends the header without the identification.
func (c *sealCodec) Append(b []byte, version int) []byte {
	next := byte(header.ProtoIPv6)
	if version == 4 {
		next = header.ProtoIPv4
	}
	h := [seal.HeaderLen]byte{}
	seal.Header{Next: next}.Put(h[:])
	return append(b, h[:]...)
}

// Finish writes the identification.
func (c *sealCodec) Finish(pkt []byte, at int, _ []byte) {
	seal.PutID(pkt[at:], c.state.sealed.Add(1))
}

// Open removes the header of a packet in one piece. With drop.Fragment it is one of two pieces.
func (c *sealCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	h, ok := seal.Parse(pkt[at:])
	switch {
	case !ok:
		return nil, 0, drop.UnknownProtocol
	case h.More || h.Offset != 0:
		return nil, 0, drop.Fragment
	}
	if version = VersionOf(h.Next); version == 0 {
		return nil, 0, drop.UnknownProtocol
	}
	return pkt[at+seal.HeaderLen:], version, drop.None
}

// Unquote removes the header. What it quotes of a second piece is not known.
func (c *sealCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	if len(b) < seal.HeaderLen {
		return nil, 0, 0, true
	}
	h, is := seal.Parse(b)
	if version = VersionOf(h.Next); !is || version == 0 {
		return nil, 0, 0, false
	}
	if h.Offset != 0 {
		return nil, 0, version, true
	}
	return b[seal.HeaderLen:], size - seal.HeaderLen, version, true
}
