package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// FOU is the framing of foo over UDP: the packet, or a GRE header and the packet, follows a
// UDP header, as the Linux kernel sends it (ip-fou(8)). With GRE it is also GRE-in-UDP (RFC
// 8086). Packets from any port are received, unless Exact is set; what is sent goes to Remote,
// whatever port the peer sends from.
type FOU struct {
	Local, Remote uint16  // ports at which we and the peer receive
	Version       int     // IP version of the packets; 0: either
	Inside        Framing // a GRE; nil: the packets follow the UDP header, as with an ipproto of 4 or 41
	NoChecksum    bool    // the checksum is 0: over IPv6 only where RFC 6936 section 4 permits it
	Flow          bool    // the source port is not Local, but is made from the inner flow
	Exact         bool    // packets come from Remote only
}

// Properties returns the properties of the headers.
func (f FOU) Properties() Properties { return f.properties(header.UDPLen) }

// properties returns the properties of n bytes of headers, and of those inside.
func (f *FOU) properties(n int) Properties {
	var p Properties
	if f.Inside != nil {
		p = f.Inside.Properties()
	}
	p.Overhead, p.OverheadBack, p.Longest = p.Overhead+n, p.OverheadBack+n, p.Longest+n
	p.Protocol, p.Carries4, p.Carries6 = header.UDP, f.Version != 6, f.Version != 4
	p.Identity |= uint64(f.Local) << 33 // GRE has 33 bits of its own
	p.Ports, p.Finished, p.Optional = f.ports(), true, true
	return p
}

func (f *FOU) ports() Ports { return Ports{Local: f.Local, Remote: f.Remote, Exact: f.Exact} }

// Matches reports whether a UDP header has the ports of our peer's packets, and whether what
// follows it was sent to the framing inside.
func (f FOU) Matches(b []byte) bool {
	return f.ports().matches(b) && (f.Inside == nil || f.Inside.Matches(b[min(len(b), header.UDPLen):]))
}

// Codec returns the codec for the headers.
func (f FOU) Codec(s *State) Codec { return &fouCodec{newUDPCodec(f, header.UDPLen, s)} }

// udpCodec has what codecs of framings in UDP have in common.
type udpCodec struct {
	FOU
	inside Codec // nil: the packet follows our headers
	finish bool  // inside has fields that differ from packet to packet
	size   int   // length of our headers
	packet int   // offset of the packet: the length of all headers
}

// newUDPCodec returns a codec with n bytes of headers before those of the framing inside.
func newUDPCodec(f FOU, n int, s *State) udpCodec {
	c := udpCodec{FOU: f, size: n, packet: n}
	if f.Inside != nil {
		p := f.Inside.Properties()
		c.inside, c.finish, c.packet = f.Inside.Codec(s), p.Finished, n+p.Overhead
	}
	return c
}

// appendInside appends the headers of the framing inside.
func (c *udpCodec) appendInside(b []byte, version int) []byte {
	if c.inside == nil {
		return b
	}
	return c.inside.Append(b, version)
}

// Finish writes the length, the checksum and, if they differ from packet to packet, the
// source port and the fields of the framing inside.
func (c *udpCodec) Finish(pkt []byte, at int, tail []byte) {
	c.finishFields(pkt, at, tail)
	finishUDP(pkt, at, tail, !c.NoChecksum)
}

// FinishUnsummed is Finish, but leaves the checksum to what sends the packet.
func (c *udpCodec) FinishUnsummed(pkt []byte, at int, tail []byte) {
	c.finishFields(pkt, at, tail)
	finishUnsummed(pkt, at, tail, !c.NoChecksum)
}

// finishFields writes the fields that no checksum of ours covers yet.
func (c *udpCodec) finishFields(pkt []byte, at int, tail []byte) {
	if c.finish {
		c.inside.Finish(pkt, at+c.size, tail)
	}
	if c.Flow {
		putFlowPort(pkt[at:], pkt[at+c.packet:])
	}
}

// isFrom reports whether a packet with outer headers may be the peer's.
func (c *udpCodec) isFrom(o header.Outer) bool { return !c.Exact || o.From.Port() == c.Remote }

// openInside removes the headers of the framing inside, and checks the IP version.
func (c *udpCodec) openInside(b []byte) (inner []byte, version int, r drop.Reason) {
	if c.inside == nil {
		inner, version = b, header.Version(b)
	} else if inner, version, r = c.inside.Open(b, 0); r != drop.None {
		return nil, 0, r
	}
	if !carriesVersion(c.Version, version) {
		return nil, 0, drop.UnknownProtocol
	}
	return inner, version, drop.None
}

// unquoteInside removes the headers of the framing inside from a quoted packet.
func (c *udpCodec) unquoteInside(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	if c.inside != nil {
		inner, innerSize, version, ok = c.inside.Unquote(b, size)
		return inner, innerSize, version, ok && (version == 0 || carriesVersion(c.Version, version))
	}
	if len(b) == 0 {
		return nil, 0, 0, true
	}
	version = header.Version(b)
	return b, size, version, carriesVersion(c.Version, version)
}

type fouCodec struct{ udpCodec }

// Append appends the headers without the UDP header's length and checksum.
func (c *fouCodec) Append(b []byte, version int) []byte {
	return c.appendInside(appendUDP(b, c.ports()), version)
}

// Open removes the headers, and verifies the UDP checksum.
func (c *fouCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at, c.ports())
	if r != drop.None {
		return nil, 0, r
	}
	return c.openInside(b)
}

// OpenDatagram removes the headers that follow the UDP header.
func (c *fouCodec) OpenDatagram(b []byte, o header.Outer) (inner []byte, version int, r drop.Reason) {
	if !c.isFrom(o) {
		return nil, 0, drop.ForeignSource
	}
	return c.openInside(b)
}

// Unquote removes the headers. The ports must be ours.
func (c *fouCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	payload, payloadSize, ok := unquoteUDP(b, size, c.ports(), c.Flow)
	if !ok {
		return nil, 0, 0, false
	}
	return c.unquoteInside(payload, payloadSize)
}
