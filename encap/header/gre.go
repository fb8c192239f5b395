package header

import (
	"encoding/binary"

	"sixfour/encap/drop"
)

// GRE headers (RFC 2784 section 2, RFC 2890 section 2):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-----------------+-----+-------------------------------+
//	|C| |K|S|    Reserved0    | Ver |         Protocol Type         |
//	+-+-+-+-+-----------------+-----+-------------------------------+
//	|      Checksum (if C)          |       Reserved1 (if C)        |
//	+-------------------------------+-------------------------------+
//	|                           Key (if K)                          |
//	+---------------------------------------------------------------+
//	|                    Sequence Number (if S)                     |
//	+---------------------------------------------------------------+

// GRELen is the length of a GRE header without optional fields, GREMaxLen that
// of one with all.
const (
	GRELen    = 4
	GREMaxLen = 16
)

// GREKeyLen is the length of a key, and of each of the other optional fields.
const GREKeyLen = 4

// Flags of a GRE header.
const (
	GREChecksum = 0x8000
	GREKey      = 0x2000
	GRESequence = 0x1000

	// greRefused are the bits that a receiver must refuse unless it implements RFC 1701
	// (RFC 2784 section 2.3: 1, 4 and 5), and the version field. PPTP uses version 1.
	greRefused = 0x4000 | 0x0800 | 0x0400 | 0x0007
)

// Protocol types in GRE headers, which are EtherTypes. Answers to the keepalives of
// routers have 0.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
	GREKeepalive  = 0
)

// EtherType returns the protocol type of an IP version.
func EtherType(version int) uint16 {
	if version == 4 {
		return EtherTypeIPv4
	}
	return EtherTypeIPv6
}

// GREHeader holds the fields of a GRE header.
type GREHeader struct {
	Flags    uint16
	Protocol uint16 // type of what follows
	Key      uint32 // if Flags has GREKey
	Sequence uint32 // if Flags has GRESequence
	Len      int    // of the header, in bytes
}

// Version returns the IP version of what follows, or 0 if that is no IP packet.
func (h *GREHeader) Version() int {
	switch h.Protocol {
	case EtherTypeIPv4:
		return 4
	case EtherTypeIPv6:
		return 6
	}
	return 0
}

// ParseGRE reads the header at the beginning of b. If the header has a checksum, which
// covers all of b, ParseGRE verifies it.
func ParseGRE(b []byte) (GREHeader, drop.Reason) {
	h, ok := PeekGRE(b)
	switch {
	case len(b) < GRELen:
		return h, drop.Truncated
	case h.Flags&greRefused != 0:
		return h, drop.BadGRE
	case !ok:
		return h, drop.Truncated
	case h.Flags&GREChecksum != 0 && Sum(b, 0) != 0xffff:
		return h, drop.BadChecksum
	}
	return h, drop.None
}

// PeekGRE reads a header that may be cut off, as in the quote of an ICMP error. Ok is
// false if it is.
func PeekGRE(b []byte) (h GREHeader, ok bool) {
	if len(b) < GRELen {
		return h, false
	}
	h.Flags, h.Protocol = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	h.Len = GRELen
	for _, field := range [...]struct {
		flag uint16
		into *uint32
	}{{GREChecksum, nil}, {GREKey, &h.Key}, {GRESequence, &h.Sequence}} {
		if h.Flags&field.flag == 0 {
			continue
		}
		if len(b) < h.Len+4 {
			return h, false
		}
		if field.into != nil {
			*field.into = binary.BigEndian.Uint32(b[h.Len:])
		}
		h.Len += 4
	}
	return h, true
}
