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
	record   *Record
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
	return strip(ip.Payload(), l.carries, ip.TrafficClass(), l.record)
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
	case up.Fragment && (up.Protocol == protocolOf(l.carries) || up.Protocol == header.DestOptions):
		// With the latter the encapsulation limit is in what was fragmented.
		if from != drop.None {
			return nil, false, from
		}
		return nil, false, drop.Fragment
	case up.Protocol != protocolOf(l.carries):
		return nil, false, drop.None
	case from != drop.None:
		return nil, false, from
	}
	return strip(ip[up.Offset:], l.carries, ip.TrafficClass(), l.record)
}

// unquote holds a quoted header against what we send: the addresses, and what
// follows, which is the inner packet, perhaps behind an encapsulation limit or
// in fragments.
func (l *over6) unquote(pkt []byte, size int) (inner []byte, innerSize int, taken, ok bool) {
	if len(pkt) < header.IPv6Len {
		return nil, 0, false, true // cut off: whose it is remains unknown
	}
	ip := header.IPv6(pkt)
	if !l.resolver.Sends6(ip) {
		return nil, 0, false, true
	}
	next, off := ip.NextHeader(), header.IPv6Len
	if next == header.FragmentHdr { // its length is not that of the inner packet
		ours := len(pkt) <= off || pkt[off] == protocolOf(l.carries) || pkt[off] == header.DestOptions
		return nil, 0, ours, true
	}
	if next == header.DestOptions {
		if off += header.EncapLimitLen; len(pkt) < off {
			return nil, 0, true, true
		}
		next = pkt[header.IPv6Len]
	}
	if next != protocolOf(l.carries) {
		return nil, 0, false, true // between the ends of the layer, but not in it
	}
	return pkt[off:], size - off, true, true
}
