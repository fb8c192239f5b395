package framing

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// appendUDP appends a UDP header without length and checksum.
func appendUDP(b []byte, p Ports) []byte {
	b = binary.BigEndian.AppendUint16(b, p.Local)
	b = binary.BigEndian.AppendUint16(b, p.Remote)
	return append(b, 0, 0, 0, 0)
}

// finishUDP writes the length of a UDP packet at pkt[at:], which continues with tail, and
// its checksum. Without a checksum the packet has none over IPv4; over IPv6 it always has
// one (RFC 8200 section 8.1).
func finishUDP(pkt []byte, at int, tail []byte, checksum bool) {
	b, n := pkt[at:], setUDPLength(pkt, at, tail)
	if !checksum && header.Version(pkt) == 4 {
		return
	}
	header.SetUDPChecksum(b, ^header.Fold(pseudoSum(pkt, n)+uint32(sumOf(b, tail))))
}

// setUDPLength writes the length of a UDP packet at pkt[at:], which continues with tail, and
// returns it.
func setUDPLength(pkt []byte, at int, tail []byte) int {
	n := len(pkt) - at + len(tail)
	binary.BigEndian.PutUint16(pkt[at+4:], uint16(n))
	return n
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

// openUDP returns what follows the UDP header at pkt[at:], without bytes after the packet.
// It verifies the checksum unless it is 0, which the kernel accepts over IPv6, too (RFC 6935
// section 5).
func openUDP(pkt []byte, at int) (payload []byte, r drop.Reason) {
	b := pkt[at:]
	if len(b) < header.UDPLen {
		return nil, drop.Truncated
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case n < header.UDPLen:
		return nil, drop.LyingLength
	case n > len(b):
		return nil, drop.Truncated
	case binary.BigEndian.Uint16(b[6:]) != 0 && header.Sum(b[:n], pseudoSum(pkt, n)) != 0xffff:
		return nil, drop.BadChecksum
	}
	return b[header.UDPLen:n], drop.None
}

// unquoteUDP returns what follows a quoted UDP header: nothing, if the quote ends inside it.
// Ok is false if the ports are not those of our packets.
func unquoteUDP(b []byte, size int, p Ports) (payload []byte, payloadSize int, ok bool) {
	switch {
	case len(b) >= 2 && binary.BigEndian.Uint16(b) != p.Local,
		len(b) >= 4 && binary.BigEndian.Uint16(b[2:]) != p.Remote:
		return nil, 0, false
	case len(b) <= header.UDPLen:
		return nil, 0, true
	}
	return b[header.UDPLen:], size - header.UDPLen, true
}

// carriesVersion reports whether packets with a version in their first four bits are carried
// by a framing for an IP version, or for either if that is 0.
func carriesVersion(of, version int) bool {
	return (version == 4 || version == 6) && (of == 0 || of == version)
}
