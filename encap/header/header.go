// Package header provides views of the packet headers that tunnels use: the offsets of
// fields, and the checksums over them. A view is checked once, when it is parsed; after
// that its getters read without checks.
package header

import "sixfour/encap/drop"

// Protocol and next-header numbers.
const (
	HopByHop     = 0
	ICMP         = 1
	ProtoIPv4    = 4 // IPv4 in IP
	TCP          = 6
	UDP          = 17
	ProtoIPv6    = 41 // IPv6 in IP
	Routing      = 43
	FragmentHdr  = 44
	GRE          = 47
	AuthHeader   = 51
	ICMPv6       = 58
	NoNextHeader = 59
	DestOptions  = 60
	SCTP         = 132
	Mobility     = 135
	HIP          = 139
	Shim6        = 140
)

// The ECN field, the low two bits of TOS and traffic class (RFC 3168 section 5).
const (
	ECNMask = 3
	NotECT  = 0
	ECT1    = 1
	ECT0    = 2
	CE      = 3
)

// Version returns the IP version in a packet's first nibble, or 0 for an empty packet.
func Version(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(b[0] >> 4)
}

// Parse checks that b begins with a whole packet of the IP version and returns
// it without what follows it.
func Parse(b []byte, version int) ([]byte, drop.Reason) {
	if version == 4 {
		return ParseIPv4(b)
	}
	return ParseIPv6(b)
}

// ParseReceived is Parse for a packet from a raw socket. The kernel verifies the
// checksum of an IPv4 header, and then writes into record route and timestamp options
// (RFC 791 section 3.1) without updating the checksum. So the checksum of a header with
// options is not checked again.
func ParseReceived(b []byte, version int) ([]byte, drop.Reason) {
	if version == 4 && len(b) > 0 && b[0]&0x0f > IPv4Len/4 {
		return CutIPv4(b)
	}
	return Parse(b, version)
}
