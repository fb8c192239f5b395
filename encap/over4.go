package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over4 takes off an IPv4 delivery header (RFC 4213, RFC 2003).
type over4 struct {
	resolver resolve.Fixed
	carries  int  // inner IP version
	static   bool // what we send never has DF set
	record   *Record
}

func (l *over4) decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	ip := header.IPv4(pkt)
	if r := l.resolver.Accepts4(ip); r != drop.None {
		return nil, false, r
	}
	switch {
	case ip.Protocol() != protocolOf(l.carries):
		return nil, false, drop.UnknownProtocol
	case ip.IsFragment(): // a raw socket reassembles; so nobody else may send us one
		return nil, false, drop.Fragment
	}
	return strip(ip.Payload(), l.carries, ip.TOS(), l.record)
}

// strip checks the packet inside a delivery header, and brings the congestion
// mark of the delivery header into it.
func strip(payload []byte, version int, outerTOS byte, rec *Record) ([]byte, bool, drop.Reason) {
	inner, r := header.Parse(payload, version)
	if outer := outerTOS & header.ECNMask; r == drop.None && outer != header.NotECT {
		r = decapsulateECN(inner, version, outer, rec)
	}
	return inner, true, r
}

// unquote holds a quoted header against what we send (RFC 5927 section 4): the
// addresses and the protocol, and the identification, which is 0 if DF is set.
func (l *over4) unquote(pkt []byte, size int) (inner []byte, innerSize int, taken, ok bool) {
	if len(pkt) < header.IPv4Len {
		return nil, 0, false, false
	}
	ip := header.IPv4(pkt)
	var idOK bool
	switch ip.Fragment() {
	case 0:
		idOK = l.record.recentID4(ip.ID())
	case header.DF: // also over a path that has become narrow: it may be a probe
		idOK = ip.ID() == 0 && !l.static
	case header.MF: // the first fragment: its length is not that of the inner packet
		if idOK = l.record.recentID4(ip.ID()); idOK && pkt[0] == 0x45 && ip.Protocol() == protocolOf(l.carries) && l.resolver.Sends4(ip) {
			return nil, 0, true, true
		}
	}
	if pkt[0] != 0x45 || ip.Protocol() != protocolOf(l.carries) || !l.resolver.Sends4(ip) || !idOK {
		return nil, 0, false, false
	}
	return pkt[header.IPv4Len:], size - header.IPv4Len, true, true
}
