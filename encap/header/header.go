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
