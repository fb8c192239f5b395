package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over6 takes off an IPv6 delivery header (RFC 2473), with the extension
// headers behind it.
type over6 struct {
	resolver resolve.Fixed
	carries  int // inner IP version
}

func (l *over6) decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	ip := header.IPv6(pkt)
	switch ip.NextHeader() {
	case protocolOf(l.carries):
		switch r := l.resolver.Accepts6(ip); r {
		case drop.None:
		case drop.ForeignDestination: // a tunnel of others passes through ours
			return nil, false, drop.None
		default:
			return nil, false, r
		}
	case header.DestOptions, header.HopByHop, header.Routing, header.FragmentHdr:
		return l.decapsulateExtended(ip)
	default: // not a tunnel packet of this layer
		return nil, false, drop.None
	}
	return strip(ip.Payload(), l.carries, ip.TrafficClass())
}

// decapsulateExtended is decapsulate for packets with extension headers
// (RFC 2473 section 3.3): they are walked only in packets to our own end.
func (l *over6) decapsulateExtended(ip header.IPv6) ([]byte, bool, drop.Reason) {
	from := l.resolver.Accepts6(ip)
	if from == drop.ForeignDestination {
		return nil, false, drop.None
	}
	up, r := header.WalkExtensions(ip)
	switch {
	case r != drop.None:
		return nil, false, r
	case up.Protocol != protocolOf(l.carries):
		return nil, false, drop.None
	case from != drop.None:
		return nil, false, from
	case up.Fragment:
		return nil, false, drop.Fragment
	}
	return strip(ip[up.Offset:], l.carries, ip.TrafficClass())
}
