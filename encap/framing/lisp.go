package framing

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// The ports at which LISP routers receive data packets (RFC 9300 section 5.3) and control
// messages (RFC 9301 section 5.1).
const (
	LISPPort        = 4341
	LISPControlPort = 4342
)

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
// Control messages arrive at a port of their own, and leave from there.
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
	p.Ports.Control = LISPControlPort
	return p
}

// Halves says that IPv4 packets are fragmented before they enter (RFC 9300 section 5.4.1).
func (LISP) Halves() {}

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
	if _, to := header.Ports(pkt[at:]); to == LISPControlPort {
		return b, 0, drop.UnknownProtocol
	}
	ttl := pkt[7] // hop limit
	if header.Version(pkt) == 4 {
		ttl = header.IPv4(pkt).TTL()
	}
	return c.openLISP(b, ttl)
}

// OpenDatagram removes the LISP header.
func (c *lispCodec) OpenDatagram(b []byte, o header.Outer) (inner []byte, version int, r drop.Reason) {
	if o.At.Port() == LISPControlPort {
		return b, 0, drop.UnknownProtocol
	}
	return c.openLISP(b, o.TTL)
}

// openLISP removes the LISP header. The TTL of the inner packet is lowered to that of the outer
// header, so that packets in a loop do not live for ever (RFC 9300 section 5.3). A packet cannot have both a nonce and a map version (RFC
// 9300 section 5.3).
func (c *lispCodec) openLISP(b []byte, ttl byte) (inner []byte, version int, r drop.Reason) {
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
	inner, version, r = c.openInside(b[lispLen:])
	if r == drop.None {
		lowerTTL(inner, version, ttl)
	}
	return inner, version, r
}

// lowerTTL makes the TTL of a packet at most ttl. The packet may be shorter than its header.
func lowerTTL(pkt []byte, version int, ttl byte) {
	switch {
	case version == 4 && len(pkt) >= header.IPv4Len:
		if ip := header.IPv4(pkt); ip.TTL() > ttl {
			ip.SetTTL(ttl)
		}
	case version == 6 && len(pkt) >= header.IPv6Len && header.IPv6(pkt).HopLimit() > ttl:
		pkt[7] = ttl
	}
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
