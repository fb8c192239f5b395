package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over4 takes off an IPv4 delivery header (RFC 4213, RFC 2003).
type over4 struct {
	resolver resolve.Fixed
	carries  int // inner IP version
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
	return strip(ip.Payload(), l.carries, ip.TOS())
}

// strip checks the packet inside a delivery header, and brings the congestion
// mark of the delivery header into it.
func strip(payload []byte, version int, outerTOS byte) ([]byte, bool, drop.Reason) {
	inner, r := header.Parse(payload, version)
	if outer := outerTOS & header.ECNMask; r == drop.None && outer != header.NotECT {
		r = decapsulateECN(inner, version, outer)
	}
	return inner, true, r
}
