package teredo

import (
	"encoding/binary"

	"sixfour/encap/header"
)

const (
	noNextHeader = 59
	hopLimit     = 255
	// testHopLimit is the hop limit of connectivity tests.
	testHopLimit = 128

	echoRequest  = 128
	echoReply    = 129
	solicitation = 133
	advertised   = 134
)

// appendHeader appends an IPv6 header.
func appendHeader(b []byte, src, dst header.Word6, next, limit byte, size int) []byte {
	b = append(b, 0x60, 0, 0, 0, byte(size>>8), byte(size), next, limit)
	n := len(b)
	b = append(b, make([]byte, 32)...)
	src.Put(b[n:])
	dst.Put(b[n+16:])
	return b
}

// appendICMP appends a packet with an ICMPv6 message, whose checksum it writes.
func appendICMP(b []byte, src, dst header.Word6, limit byte, message []byte) []byte {
	n := len(b)
	b = append(appendHeader(b, src, dst, header.ICMPv6, limit, len(message)), message...)
	ip, body := b[n:], b[n+header.IPv6Len:]
	binary.BigEndian.PutUint16(body[2:], ^header.Sum(body, header.PseudoSum(ip[8:24], ip[24:40], len(body), header.ICMPv6)))
	return b
}

// intact reports whether a packet is an ICMPv6 message of a type, of at least n bytes, and with
// a correct checksum.
func intact(ip header.IPv6, kind byte, n int) bool {
	b := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && len(b) >= n && b[0] == kind && b[1] == 0 &&
		header.Sum(b, header.PseudoSum(ip.Source(), ip.Dest(), len(b), header.ICMPv6)) == 0xffff
}

// AppendBubble appends a bubble: a packet that is only an IPv6 header. Its hop limit has no
// meaning; it is 0, as that of the program that most nodes run.
func AppendBubble(b []byte, src, dst header.Word6) []byte {
	return appendHeader(b, src, dst, noNextHeader, 0, 0)
}

// IsBubble reports whether a packet is a bubble.
func IsBubble(ip header.IPv6) bool { return ip[6] == noNextHeader && ip[4]|ip[5] == 0 }

// allRouters is ff02::2.
var allRouters = header.Word6{Hi: 0xff02 << 48, Lo: 2}

// allNodes is ff02::1.
var allNodes = header.Word6{Hi: 0xff02 << 48, Lo: 1}

// AppendDiscoveryBubble appends the bubble by which a client tells other clients on its link
// its address. It is sent to DiscoveryGroup, at Port (RFC 4380 section 5.2.8).
func AppendDiscoveryBubble(b []byte, src header.Word6) []byte { return AppendBubble(b, src, allNodes) }

// IsDiscoveryBubble reports whether a packet is such a bubble.
func IsDiscoveryBubble(ip header.IPv6) bool {
	return IsBubble(ip) && header.ReadWord6(ip.Dest()) == allNodes && Is(header.ReadWord6(ip.Source()))
}

// SolicitationSource is the link-local source of router solicitations, whose cone bit is 0: it
// says that the client does not know its NAT.
var SolicitationSource = linkLocal(0x0000ffffffffffff)

// ConeSource is the link-local source of router solicitations whose cone bit is 1: the server
// answers from its other address.
var ConeSource = linkLocal(0x8000ffffffffffff)

// AppendSolicitation appends a router solicitation from one of these two sources.
func AppendSolicitation(b []byte, source header.Word6) []byte {
	return appendICMP(b, source, allRouters, hopLimit, []byte{solicitation, 7: 0})
}

// Solicitation reports whether a packet is a router solicitation, and whether its source has
// the cone bit: then the advertisement comes from another address of the server.
func Solicitation(ip header.IPv6) (cone, ok bool) {
	src := header.ReadWord6(ip.Source())
	return src.Lo>>63 != 0, header.IsLinkLocal(src) && header.ReadWord6(ip.Dest()) == allRouters && ip.HopLimit() == hopLimit && intact(ip, solicitation, 8)
}

const (
	optPrefix = 3
	optMTU    = 5
	// retransmit is the retransmission timer in advertisements, in milliseconds.
	retransmit = 2000
)

// AppendAdvertisement appends the router advertisement of a server, which is at a mapping, to
// the source of a solicitation.
func AppendAdvertisement(b []byte, at header.Mapping, to header.Word6) []byte {
	m := []byte{advertised, 15: 0}
	binary.BigEndian.PutUint32(m[12:], retransmit)
	m = append(m, optPrefix, 4, 64, 0x40) // for addresses, not on-link
	m = append(m, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint64(m, Prefix.Value.Hi|uint64(at.Addr))
	m = append(m, make([]byte, 8)...)
	m = binary.BigEndian.AppendUint32(append(m, optMTU, 1, 0, 0), MTU)
	src := linkLocal(0x8000<<48 | uint64(^at.Port)<<32 | uint64(^at.Addr))
	return appendICMP(b, src, to, hopLimit, m)
}

// Advertisement returns the server in the prefix of a router advertisement. Ok is false if the
// packet is not a router advertisement with exactly one prefix, which is a Teredo server's.
func Advertisement(ip header.IPv6) (server uint32, ok bool) {
	if ip.HopLimit() != hopLimit || !header.IsLinkLocal(header.ReadWord6(ip.Source())) || !intact(ip, advertised, 16) {
		return 0, false
	}
	found := 0
	for b := ip.Payload()[16:]; len(b) > 0; {
		if len(b) < 8 || b[1] == 0 || len(b) < 8*int(b[1]) {
			return 0, false
		}
		o := b[:8*int(b[1])]
		b = b[len(o):]
		if o[0] != optPrefix {
			continue
		}
		if len(o) != 32 || o[2] != 64 || o[3]&0x40 == 0 || binary.BigEndian.Uint32(o[4:]) == 0 {
			return 0, false
		}
		p := header.ReadWord6(o[16:])
		if !Is(p) || p.Lo != 0 {
			return 0, false
		}
		server = ServerOf(p)
		found++
	}
	return server, found == 1
}

// AppendTest appends a connectivity test (RFC 4380 section 5.2.9): an echo request that has a
// nonce in its data.
func AppendTest(b []byte, src, dst header.Word6, nonce [16]byte) []byte {
	return appendICMP(b, src, dst, testHopLimit, append([]byte{echoRequest, 4: nonce[0], 5: nonce[1], 7: 1}, nonce[:]...))
}

// IsEchoReply reports whether a packet may be the answer to a connectivity test.
func IsEchoReply(ip header.IPv6) bool {
	b := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && len(b) >= 8 && b[0] == echoReply
}

// TestNonce returns the nonce in the answer to a connectivity test.
func TestNonce(ip header.IPv6) (nonce [16]byte, ok bool) {
	if !intact(ip, echoReply, 8+len(nonce)) || len(ip.Payload()) != 8+len(nonce) {
		return nonce, false
	}
	return [16]byte(ip.Payload()[8:]), true
}
