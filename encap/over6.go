package encap

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over6 is a layer whose delivery header is IPv6 (RFC 2473), with or without a
// destination options header that holds the tunnel encapsulation limit.
type over6 struct {
	tmpl     [header.IPv6Len]byte // first word and payload length are 0
	limit    uint64               // the destination options header; 0: none
	resolver resolve.Fixed
	carries  int // inner IP version
	field    fields
	label    FlowLabel
}

func newOver6(pair resolve.Fixed, carries int, o Options) *over6 {
	l := &over6{
		resolver: pair,
		carries:  carries,
		field:    newFields(carries, o.HopLimit, o),
		label:    o.FlowLabel,
	}
	l.tmpl[6] = protocolOf(carries)
	src, dst := pair.Local.As16(), pair.Remote.As16()
	copy(l.tmpl[8:], src[:])
	copy(l.tmpl[24:], dst[:])
	if o.EncapLimit != NoEncapLimit {
		h := header.EncapLimit(protocolOf(carries), byte(o.EncapLimit))
		l.limit = binary.BigEndian.Uint64(h[:])
		l.tmpl[6] = header.DestOptions
	}
	return l
}

func (l *over6) Encapsulate(b []byte, off int) (int, drop.Reason) {
	inner := b[off:]
	tc, hop := l.field.of(inner)
	word := 6<<28 | uint32(tc)<<20 | l.label.of(inner, l.carries)
	if l.limit != 0 {
		off -= header.EncapLimitLen
		binary.BigEndian.PutUint64(b[off:], l.limit)
	}
	payload := len(b) - off
	if payload > 65535 {
		return 0, drop.TooBig
	}
	h := (*[header.IPv6Len]byte)(b[off-header.IPv6Len : off])
	*h = l.tmpl
	binary.BigEndian.PutUint32(h[:], word)
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[7] = hop
	return off - header.IPv6Len, drop.None
}

func (l *over6) Decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	ip := header.IPv6(pkt)
	off := header.IPv6Len
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
	return strip(ip[off:], l.carries, ip.TrafficClass())
}

// decapsulateExtended is Decapsulate for packets with extension headers
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
