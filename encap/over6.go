package encap

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over6 removes an IPv6 delivery header (RFC 2473, RFC 7676), with the extension headers
// after it.
type over6 struct {
	content
	pair     resolve.Fixed
	resolver resolve.Resolver // nil: the two endpoints are fixed
}

// accepts returns drop.None if the addresses of a packet are those of packets for this layer.
// If there is a resolver, it decides on the source when it sees the inner packet.
func (l *over6) accepts(ip header.IPv6) drop.Reason {
	r := l.pair.Accepts6(ip)
	if r == drop.ForeignSource && l.resolver != nil {
		return drop.None
	}
	return r
}

// from asks the resolver about an inner packet. The framing's header is at ip[at:].
func (l *over6) from(ip header.IPv6, at int, inner []byte) drop.Reason {
	from, to := resolve.Endpoint6(header.ReadWord6(ip.Source())), resolve.Endpoint6(header.ReadWord6(ip.Dest()))
	if l.port != 0 {
		from.Port, to.Port = header.Ports(ip[at:])
	}
	return l.resolver.From(from, to, inner)
}

func (l *over6) decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	if pkt[0]>>4 != 6 {
		return nil, false, drop.None
	}
	ip := header.IPv6(pkt)
	switch ip.NextHeader() {
	case l.protocol:
		switch r := l.pair.Accepts6(ip); r {
		case drop.None:
		case drop.ForeignSource:
			if l.resolver == nil {
				return nil, false, r
			}
		case drop.ForeignDestination: // another tunnel passes through ours
			return nil, false, drop.None
		default:
			return nil, false, r
		}
	case header.DestOptions, header.HopByHop, header.Routing, header.FragmentHdr:
		return l.decapsulateExtended(ip)
	default: // not a tunnel packet of this layer
		return nil, false, drop.None
	}
	if l.passes(pkt, header.IPv6Len) {
		return nil, false, drop.None
	}
	inner, r := l.open(pkt, header.IPv6Len, ip.TrafficClass())
	if l.resolver != nil && r == drop.None {
		r = l.from(ip, header.IPv6Len, inner)
	}
	return inner, true, r
}

// decapsulateExtended is decapsulate for packets with extension headers
// (RFC 2473 section 3.3): they are walked only in packets to our own end.
func (l *over6) decapsulateExtended(ip header.IPv6) ([]byte, bool, drop.Reason) {
	from := l.accepts(ip)
	if from == drop.ForeignDestination {
		return nil, false, drop.None
	}
	up, r := header.WalkExtensions(ip)
	switch {
	case r != drop.None:
		return nil, false, r
	case up.Fragment && (up.Protocol == l.protocol || up.Protocol == header.DestOptions):
		// After reassembly, the encapsulation limit is in the payload that was fragmented.
		if from != drop.None {
			return nil, false, from
		}
		return nil, false, drop.Fragment
	case up.Protocol != l.protocol:
		return nil, false, drop.None
	case from != drop.None:
		return nil, false, from
	}
	if l.passes(ip, up.Offset) {
		return nil, false, drop.None
	}
	inner, r := l.open(ip, up.Offset, ip.TrafficClass())
	if l.resolver != nil && r == drop.None {
		r = l.from(ip, up.Offset, inner)
	}
	return inner, true, r
}

func (l *over6) openDatagram(payload []byte, o header.Outer) ([]byte, drop.Reason) {
	if r := l.pair.Accepts(o); r != drop.None && (l.resolver == nil || r != drop.ForeignSource) {
		return nil, r
	}
	inner, r := l.content.openDatagram(payload, o)
	if l.resolver != nil && r == drop.None {
		r = l.resolver.From(resolve.EndpointOf(o.From), resolve.EndpointOf(o.At), inner)
	}
	return inner, r
}

// unquote checks a quoted header against what this layer sends: the addresses, and what
// follows, which is the inner packet, possibly after an encapsulation limit or in
// fragments.
func (l *over6) unquote(pkt []byte, size int) (q unquoted, ok bool) {
	if header.Version(pkt) != 6 || len(pkt) < header.IPv6Len {
		return q, true // of the other version, or cut off: it is not known whether the layer sent it
	}
	ip := header.IPv6(pkt)
	if l.resolver == nil && !l.pair.Sends6(ip) || l.resolver != nil && !l.pair.From6(ip) {
		return q, true
	}
	next, off := ip.NextHeader(), header.IPv6Len
	if next == header.FragmentHdr { // the length of a fragment is not that of the inner packet
		q.taken = len(pkt) <= off || pkt[off] == l.protocol || pkt[off] == header.DestOptions
		return q, true
	}
	if next == header.DestOptions {
		if off += header.EncapLimitLen; len(pkt) < off {
			return unquoted{taken: true}, true
		}
		next = pkt[header.IPv6Len]
	}
	if next != l.protocol {
		return q, true // between the two ends of the layer, but not one of its tunnel packets
	}
	q.taken = true
	q.inner, q.size, q.version, ok = l.codec.Unquote(pkt[off:], size-off)
	return q, ok && leadsTo(l.resolver, q.inner, ip.Dst(), 0)
}
