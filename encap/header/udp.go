package header

import (
	"encoding/binary"
	"net/netip"
)

// UDPLen is the length of a UDP header in bytes (RFC 768).
const UDPLen = 8

// SetUDPChecksum writes a checksum into a UDP header. Where it is 0, which would mean that
// there is none, it writes its other representation.
func SetUDPChecksum(udp []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// WriteUDPChecksum computes the checksum of a UDP packet without extension headers that
// begins with its headers and continues with body, unless the field is 0: there is none. It
// leaves other packets as they are.
func WriteUDPChecksum(head, body []byte) {
	at, protocol := IPv6Len, head[6]
	if Version(head) == 4 {
		at, protocol = IPv4(head).HeaderLen(), IPv4(head).Protocol()
	}
	if protocol != UDP || len(head) < at+UDPLen || head[at+6]|head[at+7] == 0 {
		return
	}
	udp, n := head[at:], len(head)-at+len(body)
	sum := PseudoSum(head[12:16], head[16:20], n, UDP)
	if Version(head) == 6 {
		sum = PseudoSum(head[8:24], head[24:40], n, UDP)
	}
	udp[6], udp[7] = 0, 0
	SetUDPChecksum(udp, ^SumPieces(udp, body, sum))
}

// Ports returns the source and the destination port at the beginning of a UDP header, or of
// any other that begins with both; 0 if they are cut off.
func Ports(b []byte) (src, dst uint16) {
	if len(b) < 4 {
		return 0, 0
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

// HeadersLen returns the length of a UDP header and an IP header without options or
// extension headers, for packets from or to an address.
func HeadersLen(a netip.Addr) int {
	if a.Is4() {
		return IPv4Len + UDPLen
	}
	return IPv6Len + UDPLen
}

// PutHeaders writes the headers of a UDP packet, which is the whole of b, before its
// payload: with the addresses, ports, TOS and TTL of o. Identification, flags, flow label
// and UDP checksum are 0. B has at least HeadersLen bytes.
func PutHeaders(b []byte, o *Outer) {
	udp := b[HeadersLen(o.From.Addr())-UDPLen:]
	binary.BigEndian.PutUint16(udp, o.From.Port())
	binary.BigEndian.PutUint16(udp[2:], o.At.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	if o.From.Addr().Is4() {
		ip := IPv4(b)
		clear(ip[:IPv4Len])
		ip[0], ip[1], ip[8], ip[9] = 0x45, o.TOS, o.TTL, UDP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(b)))
		from, to := o.From.Addr().As4(), o.At.Addr().As4()
		copy(ip.Source(), from[:])
		copy(ip.Dest(), to[:])
		ip.SetChecksum()
		return
	}
	ip := IPv6(b)
	binary.BigEndian.PutUint32(ip, 6<<28|uint32(o.TOS)<<20)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
	ip[6], ip[7] = UDP, o.TTL
	from, to := o.From.Addr().As16(), o.At.Addr().As16()
	copy(ip.Source(), from[:])
	copy(ip.Dest(), to[:])
}

// OpenUDP returns the headers and the payload of a packet of UDP with a complete IP header and
// without extension headers. Ok is false if it is none, or if the UDP header is cut off.
func OpenUDP(pkt []byte) (o Outer, payload []byte, ok bool) {
	var udp []byte
	var from, at netip.Addr
	if Version(pkt) == 4 {
		ip := IPv4(pkt)
		if ip.Protocol() != UDP || len(pkt) < ip.HeaderLen() {
			return o, nil, false
		}
		udp, from, at = pkt[ip.HeaderLen():], ip.Src(), ip.Dst()
		o.TOS, o.TTL = pkt[1], pkt[8]
	} else {
		ip := IPv6(pkt)
		if ip.NextHeader() != UDP {
			return o, nil, false
		}
		udp, from, at = ip.Payload(), netip.AddrFrom16([16]byte(ip.Source())), netip.AddrFrom16([16]byte(ip.Dest()))
		o.TOS, o.TTL = pkt[0]<<4|pkt[1]>>4, pkt[7]
	}
	if len(udp) < UDPLen {
		return o, nil, false
	}
	src, dst := Ports(udp)
	o.From, o.At = netip.AddrPortFrom(from, src), netip.AddrPortFrom(at, dst)
	return o, udp[UDPLen:], true
}
