package encap

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// FOU is the framing of foo over UDP: the packet follows a UDP header, as the Linux kernel
// sends it (ip-fou(8)). Packets from any port are received; what is sent goes to Remote,
// whatever port the peer sends from.
type FOU struct {
	Local, Remote uint16 // ports at which we and the peer receive
	Version       int    // IP version of the packets, as in the kernel's ipproto; 0: either
	NoChecksum    bool   // the checksum over IPv4 is 0; over IPv6 there always is one
}

// Properties returns the properties of the UDP header.
func (f FOU) Properties() Properties {
	return Properties{
		Protocol: header.UDP, Overhead: header.UDPLen, OverheadBack: header.UDPLen, Longest: header.UDPLen,
		Carries4: f.Version != 6, Carries6: f.Version != 4,
		Identity: uint64(f.Local), Ports: Ports{f.Local, f.Remote}, Finished: true, Optional: true,
	}
}

// Matches reports whether a UDP header has our port as destination.
func (f FOU) Matches(b []byte) bool {
	_, to := header.Ports(b)
	return to == f.Local
}

// carries reports whether packets with a version in their first four bits are carried.
func (f FOU) carries(version int) bool {
	return (version == 4 || version == 6) && (f.Version == 0 || f.Version == version)
}

// Codec returns the codec for the ports.
func (f FOU) Codec(*Record) Codec { return &fouCodec{f} }

type fouCodec struct{ FOU }

// Append appends the header without length and checksum.
func (c *fouCodec) Append(b []byte, _ int) []byte {
	b = binary.BigEndian.AppendUint16(b, c.Local)
	b = binary.BigEndian.AppendUint16(b, c.Remote)
	return append(b, 0, 0, 0, 0)
}

// Finish writes the length and the checksum.
func (c *fouCodec) Finish(pkt []byte, at int, tail []byte) {
	b := pkt[at:]
	n := len(b) + len(tail)
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	if c.NoChecksum && header.Version(pkt) == 4 {
		return
	}
	header.SetUDPChecksum(b, ^header.Fold(pseudoSum(pkt, n)+uint32(sumOf(b, tail))))
}

// pseudoSum returns the sum of the UDP pseudo header of a packet that begins with its IP
// header.
func pseudoSum(pkt []byte, n int) uint32 {
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		return header.PseudoSum(ip.Source(), ip.Dest(), n, header.UDP)
	}
	ip := header.IPv6(pkt)
	return header.PseudoSum(ip.Source(), ip.Dest(), n, header.UDP)
}

// Open removes the UDP header, and verifies its checksum unless it is 0, which the kernel
// accepts over IPv6, too (RFC 6935 section 5).
func (c *fouCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b := pkt[at:]
	if len(b) < header.UDPLen {
		return nil, 0, drop.Truncated
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case n < header.UDPLen:
		return nil, 0, drop.LyingLength
	case n > len(b):
		return nil, 0, drop.Truncated
	case binary.BigEndian.Uint16(b[6:]) != 0 && header.Sum(b[:n], pseudoSum(pkt, n)) != 0xffff:
		return nil, 0, drop.BadChecksum
	}
	return c.OpenDatagram(b[header.UDPLen:n], header.Outer{})
}

// OpenDatagram returns b and the IP version in its first four bits.
func (c *fouCodec) OpenDatagram(b []byte, _ header.Outer) (inner []byte, version int, r drop.Reason) {
	if version = header.Version(b); !c.carries(version) {
		return nil, 0, drop.UnknownProtocol
	}
	return b, version, drop.None
}

// Unquote removes the UDP header, whose ports must be ours.
func (c *fouCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	switch {
	case len(b) >= 2 && binary.BigEndian.Uint16(b) != c.Local,
		len(b) >= 4 && binary.BigEndian.Uint16(b[2:]) != c.Remote:
		return nil, 0, 0, false
	case len(b) <= header.UDPLen:
		return nil, 0, 0, true
	}
	version = header.Version(b[header.UDPLen:])
	return b[header.UDPLen:], size - header.UDPLen, version, c.carries(version)
}
