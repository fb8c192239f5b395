package header

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"sixfour/encap/drop"
)

// IPv4 is a view of an IPv4 packet (RFC 791 section 3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+-------------------------------+
//	|   4   |  IHL  |   DSCP    |ECN|          Total Length         |
//	+-------+-------+---------------+-----+-------------------------+
//	|         Identification        |flags|     Fragment Offset     |
//	+---------------+---------------+-----+-------------------------+
//	|  Time to Live |    Protocol   |        Header Checksum        |
//	+---------------+---------------+-------------------------------+
//	|                         Source Address                        |
//	+---------------------------------------------------------------+
//	|                      Destination Address                      |
//	+---------------------------------------------------------------+
//
// Its methods do not check lengths: use a view from ParseIPv4, or make sure that there
// are IPv4Len bytes.
type IPv4 []byte

// IPv4Len is the length of an IPv4 header without options.
const IPv4Len = 20

// Flags and mask of the 16-bit field that holds flags and fragment offset.
const (
	DF         = 0x4000
	MF         = 0x2000
	OffsetMask = 0x1fff // in units of 8 bytes
)

// ParseIPv4 checks that b begins with a whole IPv4 packet, its header checksum
// included, and returns it without what follows it (mechanisms 1.1). The view
// shares b's memory.
func ParseIPv4(b []byte) (IPv4, drop.Reason) {
	ip, r := CutIPv4(b)
	if r == drop.None && ip.headerSum() != 0xffff {
		return nil, drop.BadChecksum
	}
	return ip, r
}

// CutIPv4 is ParseIPv4 without the checksum: use it for packets that the kernel of this
// host has just made.
func CutIPv4(b []byte) (IPv4, drop.Reason) {
	if len(b) < IPv4Len {
		return nil, shortReason(b, 4)
	}
	ip := IPv4(b)
	hl, total := ip.HeaderLen(), ip.TotalLen()
	switch {
	case b[0]>>4 != 4:
		return nil, drop.WrongVersion
	case hl < IPv4Len, total < hl:
		return nil, drop.LyingLength
	case total > len(b):
		return nil, drop.Truncated
	}
	return ip[:total], drop.None
}

// shortReason returns the reason for a packet that is too short for its header.
func shortReason(b []byte, version int) drop.Reason {
	if len(b) > 0 && Version(b) != version {
		return drop.WrongVersion
	}
	return drop.Truncated
}

// headerSum returns the sum over the header, which nearly always has 20 bytes.
func (ip IPv4) headerSum() uint16 {
	if ip[0] != 0x45 {
		return Sum(ip[:ip.HeaderLen()], 0)
	}
	h := (*[IPv4Len]byte)(ip)
	sum, carry := bits.Add64(binary.BigEndian.Uint64(h[0:]), binary.BigEndian.Uint64(h[8:]), 0)
	sum, carry = bits.Add64(sum, uint64(binary.BigEndian.Uint32(h[16:])), carry)
	return fold64(sum + carry) // no carry is left: that would need a third large term
}

func (ip IPv4) HeaderLen() int    { return int(ip[0]&0x0f) * 4 }
func (ip IPv4) TOS() byte         { return ip[1] }
func (ip IPv4) TotalLen() int     { return int(binary.BigEndian.Uint16(ip[2:])) }
func (ip IPv4) ID() uint16        { return binary.BigEndian.Uint16(ip[4:]) }
func (ip IPv4) Fragment() uint16  { return binary.BigEndian.Uint16(ip[6:]) } // flags and offset
func (ip IPv4) TTL() byte         { return ip[8] }
func (ip IPv4) Protocol() byte    { return ip[9] }
func (ip IPv4) Checksum() uint16  { return binary.BigEndian.Uint16(ip[10:]) }
func (ip IPv4) Source() []byte    { return ip[12:16] }
func (ip IPv4) Dest() []byte      { return ip[16:20] }
func (ip IPv4) Payload() []byte   { return ip[ip.HeaderLen():] }
func (ip IPv4) Src() netip.Addr   { return netip.AddrFrom4([4]byte(ip[12:16])) }
func (ip IPv4) Dst() netip.Addr   { return netip.AddrFrom4([4]byte(ip[16:20])) }
func (ip IPv4) IsFragment() bool  { return ip.Fragment()&(MF|OffsetMask) != 0 }
func (ip IPv4) FirstBytes() bool  { return ip.Fragment()&OffsetMask == 0 } // not a later fragment
func (ip IPv4) MayFragment() bool { return ip.Fragment()&DF == 0 }

// SetECN writes the two ECN bits and updates the header checksum (RFC 1624).
func (ip IPv4) SetECN(ecn byte) {
	before := binary.BigEndian.Uint16(ip[0:])
	ip[1] = ip[1]&^ECNMask | ecn
	binary.BigEndian.PutUint16(ip[10:], Update(ip.Checksum(), before, binary.BigEndian.Uint16(ip[0:])))
}

// SetTTL writes the TTL and updates the header checksum (RFC 1624).
func (ip IPv4) SetTTL(ttl byte) {
	before := binary.BigEndian.Uint16(ip[8:])
	ip[8] = ttl
	binary.BigEndian.PutUint16(ip[10:], Update(ip.Checksum(), before, binary.BigEndian.Uint16(ip[8:])))
}

// SetChecksum computes the header checksum over the header as it stands.
func (ip IPv4) SetChecksum() {
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^Sum(ip[:ip.HeaderLen()], 0))
}
