package icmp

import (
	"encoding/binary"

	"sixfour/encap/header"
)

// How many bytes of a packet an error quotes at most, so that the whole error has at
// most the 576 bytes of RFC 1812 section 4.3.2.3, or the 1280 of RFC 4443 section 2.4 c.
const (
	maxQuote4 = 576 - header.IPv4Len - HeaderLen
	maxQuote6 = 1280 - header.IPv6Len - HeaderLen
)

// MaxLen is the length in bytes of the longest message that Append makes.
const MaxLen = HeaderLen + maxQuote6

// Append appends to b an ICMP error, without an IP header, about the packet that is in
// head and body. The packet's IP version selects ICMP or ICMPv6. The socket, which knows
// the source address, fills in the checksum of ICMPv6.
func Append(b []byte, typ, code byte, arg uint32, head, body []byte) []byte {
	quote := maxQuote4
	if header.Version(head) == 6 {
		quote = maxQuote6
	}
	start := len(b)
	b = append(b, typ, code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, arg)
	b = append(b, head[:min(quote, len(head))]...)
	b = append(b, body[:min(quote-min(quote, len(head)), len(body))]...)
	if header.Version(head) == 4 {
		binary.BigEndian.PutUint16(b[start+2:], ^header.Sum(b[start:], 0))
	}
	return b
}

// AppendTooBig is Append for a packet that is larger than the tunnel's MTU.
func AppendTooBig(b []byte, mtu int, head, body []byte) []byte {
	if header.Version(head) == 4 {
		return Append(b, Unreachable4, FragNeeded, uint32(mtu), head, body)
	}
	return Append(b, TooBig6, 0, uint32(mtu), head, body)
}

// MayAnswer reports whether an error may be sent about an inner packet that enters the
// tunnel. The packet may be cut off. No error is sent if there is no whole IP header,
// about an error, about a fragment other than the first, to a source address that is not
// a single host, or about a multicast packet (RFC 1122 section 3.2.2, RFC 4443 section
// 2.4 e). "Too big" is sent about IPv6 multicast too, so that its path MTU can be found.
func MayAnswer(pkt []byte, tooBig bool) bool {
	switch header.Version(pkt) {
	case 4:
		return len(pkt) >= header.IPv4Len && mayAnswer4(header.IPv4(pkt))
	case 6:
		return len(pkt) >= header.IPv6Len && mayAnswer6(header.IPv6(pkt), tooBig)
	}
	return false
}

func mayAnswer4(ip header.IPv4) bool {
	src, dst := ip.Source(), ip.Dest()
	switch {
	case !ip.FirstBytes(),
		src[0] == 0, src[0] == 127, src[0] >= 224, // 240/4 holds limited broadcast
		dst[0] >= 224:
		return false
	}
	if ip.Protocol() != header.ICMP {
		return true
	}
	if len(ip) <= ip.HeaderLen() {
		return false // its type is not in the packet
	}
	switch ip[ip.HeaderLen()] {
	case Unreachable4, sourceQuench4, redirect4, TimeExceeded4, Parameter4:
		return false
	}
	return true
}

func mayAnswer6(ip header.IPv6, tooBig bool) bool {
	src := ip.Source()
	loopback := [16]byte{15: 1}
	switch {
	case src[0] == 0xff, [16]byte(src) == [16]byte{}, [16]byte(src) == loopback,
		ip.Dest()[0] == 0xff && !tooBig:
		return false
	}
	up, ok := header.FindUpper(ip)
	switch {
	case !ok, up.Later: // its type is not in the packet
		return false
	case up.Protocol != header.ICMPv6:
		return true
	}
	return len(ip) > up.Offset && ip[up.Offset] >= information6 && ip[up.Offset] != redirect6
}

// ReplyHopLimit is the hop limit of messages that answer a packet.
const ReplyHopLimit = 64

// EchoReply writes the reply to an ICMPv6 echo request into reply, which must have room for
// len(req) bytes. It reports whether req is a request that may be answered: complete, without
// extension headers, from a unicast address, and with a valid checksum.
func EchoReply(reply, req []byte) bool {
	ip := header.IPv6(req)
	msg := ip.Payload()
	if ip.NextHeader() != header.ICMPv6 || len(msg) < HeaderLen || msg[0] != EchoRequest6 || msg[1] != 0 ||
		ip.Source()[0] == 0xff || header.Sum(msg, header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)) != 0xffff {
		return false
	}
	r := header.IPv6(reply[:len(req)])
	copy(r, req)
	r[7] = ReplyHopLimit
	copy(r.Source(), ip.Dest())
	copy(r.Dest(), ip.Source())
	m := r.Payload()
	m[0] = EchoReply6
	before, after := binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(m)
	binary.BigEndian.PutUint16(m[2:], header.Update(binary.BigEndian.Uint16(msg[2:]), before, after))
	return true
}
