package header

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/drop"
)

// IPv6 is a view of an IPv6 packet (RFC 8200 section 3):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+---------------+---------------------------------------+
//	|   6   | Traffic Class |              Flow Label               |
//	+-------+---------------+-------+---------------+---------------+
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	+-------------------------------+---------------+---------------+
//	|                    Source Address (16 bytes)                  |
//	+---------------------------------------------------------------+
//	|                 Destination Address (16 bytes)                |
//	+---------------------------------------------------------------+
//
// Its methods do not check lengths: use a view from ParseIPv6, or make sure that there
// are IPv6Len bytes.
type IPv6 []byte

// IPv6Len is the length of an IPv6 header without extension headers.
const IPv6Len = 40

// ParseIPv6 checks that b begins with a whole IPv6 packet and returns it without what
// follows it (mechanisms 1.1). Jumbograms (RFC 2675) are refused: their payload length
// is 0, which leaves no room for the hop-by-hop header that they need. The view shares
// b's memory.
func ParseIPv6(b []byte) (IPv6, drop.Reason) {
	if len(b) < IPv6Len {
		return nil, shortReason(b, 6)
	}
	ip := IPv6(b)
	n := IPv6Len + ip.PayloadLen()
	switch {
	case b[0]>>4 != 6:
		return nil, drop.WrongVersion
	case n > len(b):
		return nil, drop.Truncated
	case n == IPv6Len && ip.NextHeader() != NoNextHeader:
		return nil, drop.LyingLength
	}
	return ip[:n], drop.None
}

func (ip IPv6) TrafficClass() byte { return ip[0]<<4 | ip[1]>>4 }
func (ip IPv6) FlowLabel() uint32  { return binary.BigEndian.Uint32(ip) & FlowLabelMask }
func (ip IPv6) PayloadLen() int    { return int(binary.BigEndian.Uint16(ip[4:])) }
func (ip IPv6) NextHeader() byte   { return ip[6] }
func (ip IPv6) HopLimit() byte     { return ip[7] }
func (ip IPv6) Source() []byte     { return ip[8:24] }
func (ip IPv6) Dest() []byte       { return ip[24:40] }
func (ip IPv6) Payload() []byte    { return ip[IPv6Len:] }
func (ip IPv6) Src() netip.Addr    { return netip.AddrFrom16([16]byte(ip[8:24])) }
func (ip IPv6) Dst() netip.Addr    { return netip.AddrFrom16([16]byte(ip[24:40])) }

// FlowLabelMask covers the 20 bits of a flow label.
const FlowLabelMask = 0xfffff

// SetECN writes the two ECN bits: the low two of the traffic class, which lie
// in the high nibble of the second byte.
func (ip IPv6) SetECN(ecn byte) { ip[1] = ip[1]&^(ECNMask<<4) | ecn<<4 }
