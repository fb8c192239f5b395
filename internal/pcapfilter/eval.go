package pcapfilter

import (
	"bytes"
	"encoding/binary"

	"sixfour/encap/header"
)

// eval is the evaluation of a filter for a packet.
type eval struct {
	pkt               []byte
	inbound, outbound bool
	path              int
	outOfRange        bool // a load was beyond the end of the packet: the filter does not match
}

// condition is a part of a filter.
type condition func(*eval) bool

// value is a number of a filter.
type value func(*eval) uint32

func (e *eval) load(off uint64, size int) uint32 {
	if off+uint64(size) > uint64(len(e.pkt)) {
		e.outOfRange = true
		return 0
	}
	b := e.pkt[off:]
	switch size {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.BigEndian.Uint16(b))
	}
	return binary.BigEndian.Uint32(b)
}

func (e *eval) byte(off uint64) byte { return byte(e.load(off, 1)) }

func isIPv4(e *eval) bool { return e.byte(0)>>4 == 4 }
func isIPv6(e *eval) bool { return e.byte(0)>>4 == 6 }

// laterFragment reports whether an IPv4 packet is a fragment other than the first.
func laterFragment(e *eval) bool { return e.load(6, 2)&header.OffsetMask != 0 }

// upper returns the offset of the upper layer of an IPv4 packet.
func (e *eval) upper() uint64 { return uint64(e.byte(0)&0x0f) * 4 }

// and, or and not combine conditions. After a load beyond the packet's end none of them
// matches.
func and(a, b condition) condition {
	return func(e *eval) bool { return a(e) && !e.outOfRange && b(e) }
}

func or(a, b condition) condition {
	return func(e *eval) bool { return a(e) || !e.outOfRange && b(e) }
}

func not(a condition) condition {
	return func(e *eval) bool { return !a(e) }
}

// all combines the conditions that are not nil by and.
func all(conditions ...condition) condition {
	var c condition
	for _, next := range conditions {
		switch {
		case next == nil:
		case c == nil:
			c = next
		default:
			c = and(c, next)
		}
	}
	return c
}

// protocol4 matches IPv4 packets of a protocol, protocol6 IPv6 packets. Like libpcap,
// they also match fragments if no other header is between.
func protocol4(n byte) condition {
	return func(e *eval) bool { return isIPv4(e) && e.byte(9) == n }
}

func protocol6(n byte) condition {
	return func(e *eval) bool {
		if !isIPv6(e) {
			return false
		}
		next := e.byte(6)
		return next == n || next == header.FragmentHdr && e.byte(header.IPv6Len) == n
	}
}

// side selects source or destination.
type side int

const (
	either side = iota
	source
	destination
	both
)

// combine combines the results for the source and for the destination.
func (w side) combine(e *eval, src, dst func(*eval) bool) bool {
	switch w {
	case source:
		return src(e)
	case destination:
		return dst(e)
	case both:
		return src(e) && dst(e)
	}
	return src(e) || !e.outOfRange && dst(e)
}

// address4 matches packets from or to IPv4 addresses, address6 those of IPv6.
func address4(w side, addr, mask uint32) condition {
	at := func(off uint64) func(*eval) bool {
		return func(e *eval) bool { return e.load(off, 4)&mask == addr }
	}
	src, dst := at(12), at(16)
	return func(e *eval) bool { return isIPv4(e) && w.combine(e, src, dst) }
}

func address6(w side, addr [16]byte, bits int) condition {
	var mask [16]byte
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	at := func(off int) func(*eval) bool {
		return func(e *eval) bool {
			if len(e.pkt) < off+16 {
				e.outOfRange = true
				return false
			}
			var have [16]byte
			for i := range have {
				have[i] = e.pkt[off+i] & mask[i]
			}
			return bytes.Equal(have[:], addr[:])
		}
	}
	src, dst := at(8), at(24)
	return func(e *eval) bool { return isIPv6(e) && w.combine(e, src, dst) }
}

// ports matches packets of protocols with ports, one of them in a range.
func ports(w side, protocols []byte, low, high uint32) condition {
	within := func(e *eval, off uint64) bool {
		p := e.load(off, 2)
		return low <= p && p <= high
	}
	src4, dst4 := func(e *eval) bool { return within(e, e.upper()) }, func(e *eval) bool { return within(e, e.upper()+2) }
	src6, dst6 := func(e *eval) bool { return within(e, header.IPv6Len) }, func(e *eval) bool { return within(e, header.IPv6Len+2) }
	return func(e *eval) bool {
		switch {
		case isIPv4(e):
			return bytes.IndexByte(protocols, e.byte(9)) >= 0 && !laterFragment(e) && w.combine(e, src4, dst4)
		case isIPv6(e):
			return bytes.IndexByte(protocols, e.byte(6)) >= 0 && w.combine(e, src6, dst6)
		}
		return false
	}
}

// field is a header whose bytes can be loaded: which packets have it, and its offset.
type field struct {
	present condition
	start   func(*eval) uint64
}

// fields are these headers. Like libpcap, upper-layer headers are found only in IPv4
// packets, except for ICMPv6.
var fields = map[string]field{
	"ip":  {isIPv4, func(*eval) uint64 { return 0 }},
	"ip6": {isIPv6, func(*eval) uint64 { return 0 }},
	"icmp6": {func(e *eval) bool { return isIPv6(e) && e.byte(6) == header.ICMPv6 },
		func(*eval) uint64 { return header.IPv6Len }},
	"tcp": upper4(header.TCP), "udp": upper4(header.UDP), "icmp": upper4(header.ICMP), "sctp": upper4(header.SCTP),
	"igmp": upper4(2), "gre": upper4(header.GRE), "esp": upper4(50), "ah": upper4(51), "pim": upper4(103),
}

func upper4(n byte) field {
	return field{and(protocol4(n), not(laterFragment)), (*eval).upper}
}
