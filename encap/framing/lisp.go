package framing

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// LISPPort is the port at which LISP routers receive data packets (RFC 9300 section 5.3).
const LISPPort = 4341

// LISP is the framing of the LISP data plane (RFC 9300 section 5): a UDP header whose source
// port is made from the inner flow, a LISP header, and an IP packet.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-----------------------------------------------+
//	|N|L|E|V|I|R|K|K|            Nonce/Map-Version                  |
//	+-+-+-+-+-+-+-+-+---------------+-------------------------------+
//	|                 Instance ID/Locator-Status-Bits               |
//	+---------------------------------------------------------------+
//
// I says that the upper 24 bits of the second word are an instance identifier. The only flag
// that is sent is I. Received nonces, map versions and locator status bits are ignored, since
// anybody can forge them.
type LISP struct {
	Instance uint32 // 24 bits; 0: no identifier is sent
	Version  int    // IP version of the packets; 0: either
	Checksum bool   // the UDP checksum is not 0
}

const lispLen = 8

// The flags of a LISP header.
const (
	lispNonce    = 1 << 7
	lispVersion  = 1 << 4
	lispInstance = 1 << 3
	lispKey      = 3 // the packet is encrypted (RFC 8061)
)

// Properties returns the properties of the headers.
func (f LISP) Properties() Properties {
	u := f.fou()
	p := u.properties(header.UDPLen + lispLen)
	p.Identity |= uint64(f.Instance)
	return p
}

func (f LISP) fou() FOU {
	return FOU{Local: LISPPort, Remote: LISPPort, Version: f.Version, NoChecksum: !f.Checksum, Flow: true}
}

// Matches reports whether a UDP header has the port of LISP data packets, and whether the LISP
// header has our instance identifier.
func (f LISP) Matches(b []byte) bool {
	if u := f.fou(); !u.Matches(b) {
		return false
	}
	return len(b) < header.UDPLen+lispLen || instanceOf(b[header.UDPLen:]) == f.Instance
}

// instanceOf returns the instance identifier of a LISP header: 0 if it has none (RFC 9300
// section 5.3).
func instanceOf(b []byte) uint32 {
	if b[0]&lispInstance == 0 {
		return 0
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8
}

// Codec returns the codec for the headers.
func (f LISP) Codec(s *State) Codec {
	return &lispCodec{newUDPCodec(f.fou(), header.UDPLen+lispLen, s), f.Instance}
}

type lispCodec struct {
	udpCodec
	instance uint32
}

// Append appends the headers without the UDP header's source port, length and checksum.
func (c *lispCodec) Append(b []byte, _ int) []byte {
	b = appendUDP(b, c.ports())
	var flags byte
	if c.instance != 0 {
		flags = lispInstance
	}
	b = append(b, flags, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, c.instance<<8)
}

// Open removes the headers, and verifies the UDP checksum unless it is 0.
func (c *lispCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at, c.ports())
	if r != drop.None {
		return nil, 0, r
	}
	return c.openLISP(b)
}

// OpenDatagram removes the LISP header.
func (c *lispCodec) OpenDatagram(b []byte, _ header.Outer) (inner []byte, version int, r drop.Reason) {
	return c.openLISP(b)
}

// openLISP removes the LISP header. A packet cannot have both a nonce and a map version (RFC
// 9300 section 5.3).
func (c *lispCodec) openLISP(b []byte) (inner []byte, version int, r drop.Reason) {
	if len(b) < lispLen {
		return nil, 0, drop.Truncated
	}
	flags := b[0]
	switch {
	case flags&lispKey != 0, flags&(lispNonce|lispVersion) == lispNonce|lispVersion:
		return nil, 0, drop.UnknownProtocol
	case instanceOf(b) != c.instance:
		return nil, 0, drop.NoPeer
	}
	return c.openInside(b[lispLen:])
}

// Unquote removes the headers. The LISP header must be one that we write.
func (c *lispCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	payload, payloadSize, ok := unquoteUDP(b, size, c.ports(), true)
	if !ok {
		return nil, 0, 0, false
	}
	var own [lispLen]byte
	if c.instance != 0 {
		own[0] = lispInstance
	}
	binary.BigEndian.PutUint32(own[4:], c.instance<<8)
	n := min(len(payload), lispLen)
	if string(payload[:n]) != string(own[:n]) {
		return nil, 0, 0, false
	}
	return c.unquoteInside(payload[n:], payloadSize-n)
}
