package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// fields is how a delivery header's TOS or traffic class and its TTL or hop
// limit follow from the inner packet's.
type fields struct {
	keep, set byte // TOS = inner & keep | set
	ttl       byte // 0: the inner one
	carries   int
}

func newFields(carries, ttl int, o Options) fields {
	f := fields{keep: 0xff, ttl: byte(ttl), carries: carries}
	if o.DSCP != InheritDSCP {
		f.keep, f.set = header.ECNMask, byte(o.DSCP)<<2
	}
	if o.ECNCompat { // RFC 6040 4.3; otherwise normal mode (4.1): the ECN field is copied
		f.keep &^= header.ECNMask
	}
	return f
}

// of is the TOS and TTL for a delivery header in front of inner.
func (f *fields) of(inner []byte) (tos, ttl byte) {
	if f.carries == 4 {
		tos, ttl = header.IPv4(inner).TOS(), header.IPv4(inner).TTL()
	} else {
		tos, ttl = header.IPv6(inner).TrafficClass(), header.IPv6(inner).HopLimit()
	}
	if f.ttl != InheritTTL {
		ttl = f.ttl
	}
	return tos&f.keep | f.set, ttl
}

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
func decapsulateECN(inner []byte, version int, outer byte) drop.Reason {
	if outer == header.NotECT { // leaves every inner field as it is
		return drop.None
	}
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
