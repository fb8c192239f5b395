// Package nd reads and writes the messages of IPv6 neighbour discovery (RFC
// 4861): router solicitations and advertisements, by which a host learns its
// prefixes and its default router, and neighbour solicitations and
// advertisements, by which it learns its neighbours' link-layer addresses. On the
// links that tunnels make, a link-layer address is an IPv4 address.
//
// A Learner holds what routers advertise, and a Cache holds the neighbours.
package nd

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sixfour/encap/header"
)

// The messages' ICMPv6 types (RFC 4861 section 4).
const (
	RouterSolicitation    = 133
	RouterAdvertisement   = 134
	NeighborSolicitation  = 135
	NeighborAdvertisement = 136
	Redirect              = 137
)

// HopLimit is the hop limit of every message. A message with a lower one came through a
// router and is refused (RFC 4861 section 3.1).
const HopLimit = 255

// Infinite is the lifetime that never ends (RFC 4861 section 4.6.2).
const Infinite = 0xffffffff * time.Second

// maxPrefixes bounds how many prefixes of one advertisement are kept.
const maxPrefixes = 16

// Types of options (RFC 4861 section 4.6).
const (
	optSource = 1
	optTarget = 2
	optPrefix = 3
	optMTU    = 5
)

// Message is one of the four messages. Fields that a type does not have are zero.
type Message struct {
	Type byte
	// Link is the address in the link-layer address option: that of the source or, in a
	// neighbour advertisement, that of the target. It is nil if there is no option. In a
	// parsed message it shares the packet's memory.
	Link []byte

	// Of neighbour solicitations and advertisements.
	Target                      netip.Addr
	Router, Solicited, Override bool // of advertisements

	// Of router advertisements.
	HopLimit       byte // 0: unspecified
	Managed, Other bool
	Lifetime       time.Duration // lifetime as default router; 0: not a default router
	Reachable      time.Duration // 0: unspecified
	Retrans        time.Duration // 0: unspecified
	MTU            uint32        // 0: unspecified
	Prefixes       []Prefix
}

// Prefix is a prefix information option (RFC 4861 section 4.6.2).
type Prefix struct {
	Prefix           netip.Prefix
	OnLink, Auto     bool
	Valid, Preferred time.Duration
}

// Is reports whether a packet is a message of neighbour discovery, redirects included.
// The packet must have at least the IPv6 header; if the ICMPv6 header is missing, Is
// returns true for any ICMPv6 packet. Extension headers before a message do not hide it:
// Parse then refuses it, as RFC 6980 requires for fragments, and the kernel, which might
// accept it, does not get it.
func Is(ip header.IPv6) bool {
	if header.IsExtension(ip.NextHeader()) {
		up, ok := header.FindUpper(ip)
		return ok && up.Protocol == header.ICMPv6 && !up.Later && isType(ip[up.Offset:])
	}
	return ip.NextHeader() == header.ICMPv6 && isType(ip[header.IPv6Len:])
}

// isType reports whether an ICMPv6 message, which may be empty, can be one of them.
func isType(m []byte) bool {
	return len(m) == 0 || m[0] >= RouterSolicitation && m[0] <= Redirect
}

// fixed are the messages' lengths without options.
var fixed = map[byte]int{RouterSolicitation: 8, RouterAdvertisement: 16, NeighborSolicitation: 24, NeighborAdvertisement: 24}

// Parse reads a message from a packet of header.ParseIPv6. It returns false for any
// other message, and for one that a node must discard (RFC 4861 sections 6.1.1, 6.1.2,
// 7.1.1 and 7.1.2). Unknown options are skipped.
func Parse(ip header.IPv6) (Message, bool) {
	if !Intact(ip) {
		return Message{}, false
	}
	b := ip.Payload()
	m := Message{Type: b[0]}
	n, ok := fixed[m.Type]
	if !ok || len(b) < n {
		return Message{}, false
	}
	m.readFixed(b)
	if !m.readOptions(b[n:]) || !m.valid(ip.Src(), ip.Dst()) {
		return Message{}, false
	}
	return m, true
}

// Intact reports whether a packet of header.ParseIPv6 is an ICMPv6 message of at least 8 bytes
// that has not passed a router, and whose code is 0 and whose checksum is right, as that of
// each message must be.
func Intact(ip header.IPv6) bool {
	b := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && ip.HopLimit() == HopLimit && len(b) >= 8 && b[1] == 0 &&
		header.Sum(b, header.PseudoSum(ip.Source(), ip.Dest(), len(b), header.ICMPv6)) == 0xffff
}

func (m *Message) readFixed(b []byte) {
	switch m.Type {
	case RouterAdvertisement:
		m.HopLimit, m.Managed, m.Other = b[4], b[5]&0x80 != 0, b[5]&0x40 != 0
		m.Lifetime = time.Duration(binary.BigEndian.Uint16(b[6:])) * time.Second
		m.Reachable = time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Millisecond
		m.Retrans = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Millisecond
	case NeighborAdvertisement:
		m.Router, m.Solicited, m.Override = b[4]&0x80 != 0, b[4]&0x40 != 0, b[4]&0x20 != 0
		fallthrough
	case NeighborSolicitation:
		m.Target = netip.AddrFrom16([16]byte(b[8:24]))
	}
}

func (m *Message) readOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || len(b) < int(b[1])*8 {
			return false
		}
		o := b[:int(b[1])*8]
		b = b[len(o):]
		switch {
		case o[0] == m.linkOption():
			m.Link = o[2:]
		case m.Type != RouterAdvertisement: // the others have no further options
		case o[0] == optMTU && len(o) == 8:
			m.MTU = binary.BigEndian.Uint32(o[4:])
		case o[0] == optPrefix && len(o) == 32 && o[2] <= 128 && len(m.Prefixes) < maxPrefixes:
			m.Prefixes = append(m.Prefixes, Prefix{
				Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte(o[16:32])), int(o[2])).Masked(),
				OnLink: o[3]&0x80 != 0, Auto: o[3]&0x40 != 0,
				Valid:     time.Duration(binary.BigEndian.Uint32(o[4:])) * time.Second,
				Preferred: time.Duration(binary.BigEndian.Uint32(o[8:])) * time.Second,
			})
		}
	}
	return true
}

func (m *Message) linkOption() byte {
	if m.Type == NeighborAdvertisement {
		return optTarget
	}
	return optSource
}

// valid checks the rules about the addresses.
func (m *Message) valid(src, dst netip.Addr) bool {
	switch m.Type {
	case RouterSolicitation:
		return !src.IsUnspecified() || m.Link == nil
	case RouterAdvertisement:
		return src.IsLinkLocalUnicast()
	case NeighborSolicitation:
		return !m.Target.IsMulticast() && (!src.IsUnspecified() || m.Link == nil && dst == SolicitedNode(m.Target))
	}
	return !m.Target.IsMulticast() && (!dst.IsMulticast() || !m.Solicited)
}

// SolicitedNode returns the solicited-node multicast address of an address (RFC 4291
// section 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Append appends a packet with a message between two IPv6 addresses. Link must have 6
// bytes, or a multiple of 8 more. The options are in the order link-layer address, MTU,
// prefixes.
func Append(b []byte, src, dst netip.Addr, m *Message) []byte {
	start := len(b)
	s, d := src.As16(), dst.As16()
	b = append(b, 0x60, 0, 0, 0, 0, 0, header.ICMPv6, HopLimit)
	b = append(append(b, s[:]...), d[:]...)
	b = m.appendBody(b)
	ip := b[start:]
	body := ip[header.IPv6Len:]
	binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
	binary.BigEndian.PutUint16(body[2:], ^header.Sum(body, header.PseudoSum(s[:], d[:], len(body), header.ICMPv6)))
	return b
}

func (m *Message) appendBody(b []byte) []byte {
	b = append(b, m.Type, 0, 0, 0)
	switch m.Type {
	case RouterSolicitation:
		b = append(b, 0, 0, 0, 0)
	case RouterAdvertisement:
		b = append(b, m.HopLimit, flag(m.Managed, 0x80)|flag(m.Other, 0x40))
		b = binary.BigEndian.AppendUint16(b, uint16(m.Lifetime/time.Second))
		b = binary.BigEndian.AppendUint32(b, uint32(m.Reachable/time.Millisecond))
		b = binary.BigEndian.AppendUint32(b, uint32(m.Retrans/time.Millisecond))
	default:
		t := m.Target.As16()
		b = append(b, flag(m.Router, 0x80)|flag(m.Solicited, 0x40)|flag(m.Override, 0x20), 0, 0, 0)
		b = append(b, t[:]...)
	}
	if m.Link != nil {
		b = append(append(b, m.linkOption(), byte((len(m.Link)+2)/8)), m.Link...)
	}
	if m.MTU != 0 {
		b = binary.BigEndian.AppendUint32(append(b, optMTU, 1, 0, 0), m.MTU)
	}
	for _, p := range m.Prefixes {
		b = append(b, optPrefix, 4, byte(p.Prefix.Bits()), flag(p.OnLink, 0x80)|flag(p.Auto, 0x40))
		b = binary.BigEndian.AppendUint32(b, uint32(p.Valid/time.Second))
		b = binary.BigEndian.AppendUint32(b, uint32(p.Preferred/time.Second))
		a := p.Prefix.Addr().As16()
		b = append(append(b, 0, 0, 0, 0), a[:]...)
	}
	return b
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}
