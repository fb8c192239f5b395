// Package sixa44 reads and writes what 6a44 nodes send inside UDP beside IPv6 packets: bubbles
// (RFC 6751), and knows their addresses.
package sixa44

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/header"
)

// Port is the UDP port of relays and clients.
const Port = 1027

// MTU is that of the link.
const MTU = 1280

// Anycast is the address at which each provider has its relays.
var Anycast = netip.MustParseAddr("192.88.99.2")

// Lengths of the prefixes of addresses: the provider's, a site's and a client's.
const (
	ProviderBits = 48
	SiteBits     = 80
	ClientBits   = 96
)

// Prefix is the prefix of a client, the first 96 bits of its address:
//
//	0            48              80     96
//	| provider   | site's IPv4   | port |
type Prefix struct {
	Provider uint64 // 48 bits
	At       header.Mapping
}

// Address returns the address of the client with an IPv4 address inside its site.
func (p Prefix) Address(inside uint32) header.Word6 {
	return header.Word6{Hi: p.Provider<<16 | uint64(p.At.Addr>>16), Lo: uint64(p.At.Addr&0xffff)<<48 | uint64(p.At.Port)<<32 | uint64(inside)}
}

// Of returns the parts of an address.
func Of(a header.Word6) (p Prefix, inside uint32) {
	at := header.Mapping{Addr: uint32(a.Hi)<<16 | uint32(a.Lo>>48), Port: uint16(a.Lo >> 32)}
	return Prefix{a.Hi >> 16, at}, uint32(a.Lo)
}

// Bubble is a message between client and relay (RFC 6751 section 6.4): a client sends it
// without a prefix, and the relay returns it with one. One that nobody has asked for has the
// ID 0: it says that the client uses a wrong address.
type Bubble struct {
	Prefix Prefix
	ID     uint64
}

const (
	bubbleLen = 20
	prefixLen = 12
)

// AppendBubble appends a bubble.
func AppendBubble(b []byte, m Bubble) []byte {
	var a [16]byte
	m.Prefix.Address(0).Put(a[:])
	return binary.BigEndian.AppendUint64(append(b, a[:prefixLen]...), m.ID)
}

// ParseBubble reads a bubble. Ok is false if the payload of a datagram is none: those have at
// least 20 bytes, and fewer than an IPv6 packet.
func ParseBubble(b []byte) (m Bubble, ok bool) {
	if len(b) < bubbleLen || len(b) >= header.IPv6Len {
		return m, false
	}
	var a [16]byte
	copy(a[:], b[:prefixLen])
	m.Prefix, _ = Of(header.ReadWord6(a[:]))
	m.ID = binary.BigEndian.Uint64(b[prefixLen:])
	return m, true
}
