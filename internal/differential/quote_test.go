package differential

import (
	"bytes"
	"encoding/binary"
)

// sent describes the outer packets that a router can have seen.
type sent struct {
	longest int // bytes of IPv4, or of IPv6 where that is outermost
}

// fullSize is the size of the largest outer packet before the path MTU was reduced.
const fullSize = 1500

// correct makes what a recorded ICMP error says of our own outer packet true.
//
// The recordings' errors were made up: they quote a packet of 100 bytes with the
// identification 0x1077, also where they say that it was too big for 1400. A
// kernel believes them; sixfourd compares a quote with what it can have sent,
// because anybody may send such errors (RFC 5927 section 4). So the
// identification of a packet with DF becomes 0 (RFC 6864 section 4.1), and a
// packet that was too big becomes as long as the longest that can have been sent
// after what routers said before.
// Only headers are changed, not how much is quoted: 28 bytes (RFC 792) or more. What
// cannot be true stays false: errors about packets that were never ours, to
// 203.0.113.99, and that a packet must be fragmented at a time when none of ours
// has DF.
func (s *sent) correct(frame []byte) []byte {
	frame = bytes.Clone(frame)
	ip := frame[ethernetLen:]
	if ip[0]>>4 == 6 {
		if ip[6] == protoICMPv6 && ip[40] < 128 {
			s.correct6(ip, 0)
		}
		return frame
	}
	hl := int(ip[0]&15) * 4
	switch inside := ip[hl:]; {
	case ip[9] == protoICMP && isError4(inside):
		s.correct4(inside)
	case ip[9] == protoIPv6 && len(inside) > 48 && inside[6] == protoICMPv6 && inside[40] < 128:
		s.correct6(inside, 20)
	}
	return frame
}

func isError4(icmp []byte) bool {
	return len(icmp) >= 28 && (icmp[0] == 3 || icmp[0] == 4 || icmp[0] == 11 || icmp[0] == 12)
}

// correct4 corrects an ICMP message about an outer packet.
func (s *sent) correct4(icmp []byte) {
	q := icmp[8:]
	if !bytes.Equal(q[12:20], []byte{203, 0, 113, 1, 203, 0, 113, 2}) {
		return
	}
	if q[6]&0x40 != 0 { // DF
		q[4], q[5] = 0, 0
	}
	total, mtu := int(binary.BigEndian.Uint16(q[2:])), int(binary.BigEndian.Uint16(icmp[6:]))
	tooBig := icmp[0] == 3 && icmp[1] == 4
	if tooBig && (total <= mtu || mtu == 0) { // 0: from a router older than RFC 1191
		lengthen(q, s.longest-total)
		if mtu > 0 {
			s.longest = min(s.longest, mtu)
		}
	}
	setSum(q[:20], 10, 0)
	setSum(icmp, 2, 0)
}

// correct6 corrects an IPv6 packet that is an ICMPv6 message about an outer packet, or
// about the IPv6 layer of one, which has this many bytes of outer headers.
func (s *sent) correct6(ip []byte, outside int) {
	icmp := ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))]
	q := icmp[8:]
	if len(q) < 40 || !isOurs6(q) {
		return
	}
	total, mtu := 40+int(binary.BigEndian.Uint16(q[4:])), int(binary.BigEndian.Uint32(icmp[4:]))
	if tooBig := icmp[0] == 2; tooBig && total <= mtu {
		lengthen(q, s.longest-outside-total)
		s.longest = min(s.longest, max(mtu, 1280)+outside)
	}
	setSum(icmp, 2, sum(uint32(protoICMPv6)+uint32(len(icmp)), ip[8:40]))
}

// isOurs6 reports whether a quoted IPv6 header is of a packet to our peer.
func isOurs6(q []byte) bool {
	src, dst := q[8:24], q[24:40]
	return src[15] == 1 && dst[15] == 2 && bytes.Equal(src[:15], dst[:15])
}

// lengthen adds to the length fields of a packet, for as many headers as are there,
// including those of inner packets.
func lengthen(b []byte, by int) {
	add := func(field []byte) { binary.BigEndian.PutUint16(field, binary.BigEndian.Uint16(field)+uint16(by)) }
	proto := byte(protoIPv4)
	if b[0]>>4 == 6 {
		proto = protoIPv6
	}
	for {
		switch {
		case proto == protoIPv6 && len(b) >= 6:
			add(b[4:])
			if len(b) < 40 {
				return
			}
			proto, b = b[6], b[40:]
		case proto == protoDestOpts && len(b) >= 8:
			proto, b = b[0], b[8+8*int(b[1]):]
		case proto == protoIPv4 && len(b) >= 4:
			add(b[2:])
			if len(b) < 20 {
				return
			}
			setSum(b[:20], 10, 0)
			proto, b = b[9], b[20:]
		case proto == protoGRE && len(b) >= 4:
			proto, b = protoIPv4, b[4:]
		case proto == protoUDP && len(b) >= 8:
			add(b[4:])
			return
		default:
			return
		}
	}
}

// setSum puts the checksum of b, with that of a pseudo-header, into b at an
// offset.
func setSum(b []byte, at int, pseudo uint32) {
	b[at], b[at+1] = 0, 0
	binary.BigEndian.PutUint16(b[at:], ^uint16(sum(pseudo, b)))
}
