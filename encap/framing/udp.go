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
// its checksum, unless it is to have none (0).
func finishUDP(pkt []byte, at int, tail []byte, checksum bool) {
	b, n := pkt[at:], setUDPLength(pkt, at, tail)
	if !checksum {
		return
	}
	header.SetUDPChecksum(b, ^header.SumPieces(b, tail, pseudoSum(pkt, n)))
}

// finishUnsummed is finishUDP for Unsummer.
func finishUnsummed(pkt []byte, at int, tail []byte, checksum bool) {
	setUDPLength(pkt, at, tail)
	if checksum {
		binary.BigEndian.PutUint16(pkt[at+6:], 0xffff)
	}
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
// section 5), and the source port if it must be the peer's.
func openUDP(pkt []byte, at int, p Ports) (payload []byte, r drop.Reason) {
	b := pkt[at:]
	if len(b) < header.UDPLen {
		return nil, drop.Truncated
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case p.Exact && binary.BigEndian.Uint16(b) != p.Remote:
		return nil, drop.ForeignSource
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
// Ok is false if the ports are not those of our packets. A remote port of 0 stands for any.
// Flow says that putFlowPort has written the source port.
func unquoteUDP(b []byte, size int, p Ports, flow bool) (payload []byte, payloadSize int, ok bool) {
	switch {
	case len(b) >= 2 && flow && binary.BigEndian.Uint16(b) < leastFlowPort,
		len(b) >= 2 && !flow && binary.BigEndian.Uint16(b) != p.Local,
		len(b) >= 4 && p.Remote != 0 && binary.BigEndian.Uint16(b[2:]) != p.Remote:
		return nil, 0, false
	case len(b) <= header.UDPLen:
		return nil, 0, true
	}
	return b[header.UDPLen:], size - header.UDPLen, true
}

// leastFlowPort is the first of the dynamic ports (RFC 6335 section 6), which are the source
// ports of flows (RFC 8086 section 3.2.1, RFC 7510).
const leastFlowPort = 49152

// putFlowPort writes a source port that is the same for all packets of a flow. It is one of
// 16,384, so that routers which choose among paths by the ports spread the flows.
func putFlowPort(udp, inner []byte) {
	binary.BigEndian.PutUint16(udp, leastFlowPort|uint16(FlowHash(inner, header.Version(inner))>>50))
}

// carriesVersion reports whether packets with a version in their first four bits are carried
// by a framing for an IP version, or for either if that is 0.
func carriesVersion(of, version int) bool {
	return (version == 4 || version == 6) && (of == 0 || of == version)
}
