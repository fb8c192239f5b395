package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Flags in ecnTable above the two ECN bits.
const (
	refuse = 0x80 // the packet must be dropped
	odd    = 0x40 // no correct path produces this combination: count it
)

// ecnTable is RFC 6040 figure 4: the ECN field of the packet that leaves a tunnel, by
// the ECN field of the inner header (row) and of the outer header (column).
var ecnTable = [4][4]byte{
	//             Not-ECT        ECT(1)               ECT(0)               CE
	header.NotECT: {header.NotECT, header.NotECT | odd, header.NotECT | odd, refuse},
	header.ECT1:   {header.ECT1, header.ECT1, header.ECT1 | odd, header.CE},
	header.ECT0:   {header.ECT0, header.ECT1, header.ECT0, header.CE},
	header.CE:     {header.CE, header.CE | odd, header.CE, header.CE},
}

// decapsulateECN applies the outer ECN field to an inner packet. If the outer field is
// Not-ECT, no inner field changes, and no call is needed.
func decapsulateECN(inner []byte, version int, outer byte, rec *Record) drop.Reason {
	var before byte
	if version == 4 {
		before = header.IPv4(inner).TOS() & header.ECNMask
	} else {
		before = header.IPv6(inner).TrafficClass() & header.ECNMask
	}
	after := ecnTable[before][outer]
	if after == before {
		return drop.None
	}
	switch {
	case after == refuse:
		return drop.Congestion
	case after&odd != 0:
		rec.oddECN.Add(1)
		after &^= odd
	}
	if version == 4 {
		header.IPv4(inner).SetECN(after)
	} else {
		header.IPv6(inner).SetECN(after)
	}
	return drop.None
}
