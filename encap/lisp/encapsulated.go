package lisp

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/header"
)

// Encapsulated returns the IP packet in an encapsulated control message.
func Encapsulated(b []byte) ([]byte, error) {
	switch t, err := MessageType(b); {
	case err != nil:
		return nil, err
	case t != TypeEncapsulated:
		return nil, ErrType
	case b[0]&8 != 0: // S: authentication data of LISP-SEC comes first
		return nil, ErrType
	}
	return b[4:], nil
}

// AppendEncapsulation appends the header of an encapsulated control message; an IP packet follows.
func AppendEncapsulation(b []byte) []byte {
	return append(b, uint8(TypeEncapsulated)<<4, 0, 0, 0)
}

// Inside returns the control message in the IP packet of an encapsulated control message, and
// the addresses and ports of that packet. It has no extension headers, and its UDP checksum is
// right and not 0 (RFC 9301 section 5.8).
func Inside(packet []byte) (from, to netip.AddrPort, message []byte, err error) {
	var n int
	switch {
	case len(packet) >= header.IPv4Len && packet[0]>>4 == 4:
		ip := header.IPv4(packet)
		if n = ip.TotalLen(); ip.HeaderLen() < header.IPv4Len || n < ip.HeaderLen() || ip.IsFragment() {
			return from, to, nil, ErrInside
		}
	case len(packet) >= header.IPv6Len && packet[0]>>4 == 6:
		n = header.IPv6Len + header.IPv6(packet).PayloadLen()
	default:
		return from, to, nil, ErrInside
	}
	if n > len(packet) {
		return from, to, nil, ErrShort
	}
	packet = packet[:n]
	o, message, ok := header.OpenUDP(packet)
	if !ok || o.At.Port() != ControlPort {
		return from, to, nil, ErrInside
	}
	udp := packet[n-len(message)-header.UDPLen:]
	if int(binary.BigEndian.Uint16(udp[4:])) != len(udp) || udp[6]|udp[7] == 0 || header.Sum(udp, pseudo(o.From.Addr(), o.At.Addr(), len(udp))) != 0xffff {
		return from, to, nil, ErrInside
	}
	return o.From, o.At, message, nil
}

// AppendInside appends an encapsulated control message to b: the header, and an IP packet with
// a control message from and to addresses and ports, which are of one family.
func AppendInside(b []byte, from, to netip.AddrPort, message []byte) []byte {
	b = AppendEncapsulation(b)
	start := len(b)
	b = append(b, make([]byte, header.HeadersLen(from.Addr()))...)
	b = append(b, message...)
	packet := b[start:]
	header.PutHeaders(packet, &header.Outer{From: from, At: to, TTL: 64})
	udp := packet[len(packet)-len(message)-header.UDPLen:]
	header.SetUDPChecksum(udp, ^header.Sum(udp, pseudo(from.Addr(), to.Addr(), len(udp))))
	return b
}

// pseudo returns the sum of the pseudo-header of a UDP datagram.
func pseudo(from, to netip.Addr, n int) uint32 {
	return header.PseudoSum(from.AsSlice(), to.AsSlice(), n, header.UDP)
}
