// Package header gives views of the headers that tunnels are made of: where a
// field lies in the bytes, and the checksums over them. A view is checked once,
// when it is parsed; after that its getters read without checking.
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

// Version is the IP version that a packet's first nibble says; 0 of no bytes.
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

// ParseReceived is Parse for a packet as a raw socket delivers it. The kernel verifies
// the checksum of an IPv4 header, and after that writes into record route and timestamp
// options (RFC 791 section 3.1) without a new one: of a header with options the checksum
// says nothing any more, and it is not looked at.
func ParseReceived(b []byte, version int) ([]byte, drop.Reason) {
	if version == 4 && len(b) > 0 && b[0]&0x0f > IPv4Len/4 {
		return CutIPv4(b)
	}
	return Parse(b, version)
}
