package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// refuse stands in ecnTable for the one combination that must be dropped.
const refuse = 0xff

// ecnTable is RFC 6040 figure 4: the ECN field of the packet that leaves a
// tunnel, by the one it arrived with inside (row) and outside (column).
var ecnTable = [4][4]byte{
	//             Not-ECT        ECT(1)         ECT(0)         CE
	header.NotECT: {header.NotECT, header.NotECT, header.NotECT, refuse},
	header.ECT1:   {header.ECT1, header.ECT1, header.ECT1, header.CE},
	header.ECT0:   {header.ECT0, header.ECT1, header.ECT0, header.CE},
	header.CE:     {header.CE, header.CE, header.CE, header.CE},
}

// decapsulateECN brings the outer ECN field into an inner packet.
// Not-ECT outside leaves every inner field as it is, and needs no call.
func decapsulateECN(inner []byte, version int, outer byte) drop.Reason {
	if version == 4 {
		ip := header.IPv4(inner)
		before := ip.TOS() & header.ECNMask
		switch after := ecnTable[before][outer]; after {
		case refuse:
			return drop.Congestion
		case before:
		default:
			ip.SetECN(after)
		}
		return drop.None
	}
	ip := header.IPv6(inner)
	before := ip.TrafficClass() & header.ECNMask
	switch after := ecnTable[before][outer]; after {
	case refuse:
		return drop.Congestion
	case before:
	default:
		ip.SetECN(after)
	}
	return drop.None
}
