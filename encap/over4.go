package encap

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// multicast4 is the value of the top 4 bits of an IPv4 multicast address (224.0.0.0/4).
const multicast4 = 0xe

// over4 removes an IPv4 delivery header (RFC 4213, RFC 2003, RFC 2784).
type over4 struct {
	content
	pair     resolve.Fixed
	resolver resolve.Resolver // nil: the two endpoints are fixed
	several  bool             // packets arrive at several addresses of ours, from which the caller has chosen this layer
	beside   byte             // another protocol, whose packets have form 1; 0: there is none
	static   bool             // with a static MTU, our outer packets have DF only if the inner packet has it
}

func (l *over4) decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	if pkt[0]>>4 != 4 {
		return nil, false, drop.None
	}
	ip := header.IPv4(pkt)
	r := l.pair.Accepts4(ip)
	if l.resolver != nil && (r == drop.ForeignSource || ip.Dest()[0]>>4 == multicast4 || l.several && r == drop.ForeignDestination) {
		r = drop.None // the resolver decides when it sees the inner packet
	}
	if r != drop.None {
		return nil, false, r
	}
	switch {
	case ip.Protocol() == l.beside && l.beside != 0:
		return l.decapsulateBeside(ip)
	case ip.Protocol() != l.protocol:
		return nil, false, drop.UnknownProtocol
	case ip.IsFragment(): // a raw socket reassembles, so a fragment here does not come from one
		return nil, false, drop.Fragment
	}
	if l.passes(pkt, ip.HeaderLen()) {
		return nil, false, drop.UnknownProtocol
	}
	inner, r := l.open(pkt, ip.HeaderLen(), ip.TOS())
	if l.resolver != nil && r == drop.None {
		from, at := resolve.Endpoint4(binary.BigEndian.Uint32(ip.Source())), resolve.Endpoint4(binary.BigEndian.Uint32(ip.Dest()))
		if l.port != 0 {
			from.Port, at.Port = header.Ports(ip.Payload())
		}
		r = l.resolver.From(from, at, inner)
	}
	return inner, true, r
}

// decapsulateBeside is decapsulate for a packet of the other protocol.
func (l *over4) decapsulateBeside(ip header.IPv4) ([]byte, bool, drop.Reason) {
	if ip.IsFragment() {
		return nil, false, drop.Fragment
	}
	bare := content{bare: 6, record: l.record}
	inner, r := bare.open(ip, ip.HeaderLen(), ip.TOS())
	if r == drop.None {
		from, at := resolve.EndpointOf(netip.AddrPortFrom(ip.Src(), 0)), resolve.EndpointOf(netip.AddrPortFrom(ip.Dst(), 0))
		from.Form = 1
		r = l.resolver.From(from, at, inner)
	}
	return inner, true, r
}

func (l *over4) openDatagram(payload []byte, o header.Outer) ([]byte, drop.Reason) {
	if r := l.pair.Accepts(o); r != drop.None && (l.resolver == nil || r != drop.ForeignSource && !o.At.Addr().IsMulticast() && !(l.several && r == drop.ForeignDestination)) {
		return nil, r
	}
	inner, r := l.content.openDatagram(payload, o)
	if l.resolver != nil && r == drop.None {
		r = l.resolver.From(resolve.EndpointOf(o.From), resolve.EndpointOf(o.At), inner)
	}
	return inner, r
}

// unquote checks a quoted header against what this layer sends (RFC 5927 section 4): the
// addresses, the protocol, and the identification (see Record.atomicID4 if DF is set).
func (l *over4) unquote(pkt []byte, size int) (q unquoted, ok bool) {
	if header.Version(pkt) != 4 || len(pkt) < header.IPv4Len {
		return q, true
	}
	ip := header.IPv4(pkt)
	beside := l.beside != 0 && ip.Protocol() == l.beside
	if pkt[0] != 0x45 || ip.Protocol() != l.protocol && !beside || !l.sends(ip) {
		return q, true
	}
	switch frag := ip.Fragment(); {
	case l.session: // the connection's socket has chosen the identification
		ok = ip.FirstBytes()
	case frag == 0:
		ok = l.record.recentID4(ip.ID())
	case frag == header.DF: // also on a path whose MTU has become smaller: the packet may be a probe
		ok = l.record.atomicID4(ip.ID()) && (!l.static || l.bare != 6)
	case frag == header.MF: // the first fragment: its length is not that of the inner packet
		return unquoted{taken: true}, l.record.recentID4(ip.ID())
	}
	if !ok {
		return q, false
	}
	q.taken = true
	if beside {
		q.inner, q.size, q.version = pkt[header.IPv4Len:], size-header.IPv4Len, 6
		return q, leadsTo(l.resolver, q.inner, ip.Dst(), 1)
	}
	q.inner, q.size, q.version, ok = l.codec.Unquote(pkt[header.IPv4Len:], size-header.IPv4Len)
	return q, ok && leadsTo(l.resolver, q.inner, ip.Dst(), 0)
}

// leadsTo reports whether an inner packet that an ICMP error quotes may have been sent to an
// outer address in a form: with a resolver, these must be the ones that we would use. Of a
// packet without a whole IP header, nothing is known.
func leadsTo(r resolve.Resolver, quote []byte, dst netip.Addr, form uint8) bool {
	if r == nil || len(quote) < header.IPv4Len || header.Version(quote) == 6 && len(quote) < header.IPv6Len {
		return true
	}
	if _, dual := r.(resolve.DualResolver); header.Version(quote) != 6 && !dual {
		return true
	}
	to, why := r.To(slices.Clone(quote)) // the resolver may write to it
	return why == drop.None && to.Addr() == dst && to.Form == form
}

// sends reports whether a header has the outer addresses of the packets that we send.
func (l *over4) sends(ip header.IPv4) bool {
	if l.resolver != nil {
		return ip.Src() == l.pair.Local
	}
	return l.pair.Sends4(ip)
}
