package encap

import (
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// loopCheck recognizes packets of a layer, as opposed to all other packets from its local to
// its remote address. A layer's packet that is to be encapsulated again is in a loop
// (RFC 2003 section 3.2, RFC 2473 section 4.1.2). Other traffic between these addresses
// is not: if the outer packets have a firewall mark or a namespace of their own, the
// rest may be routed through the tunnel to the peer's outer address.
type loopCheck struct {
	pair     *resolve.Fixed
	protocol byte
	anywhere bool          // the remote address is found for each packet
	ported   framing.Codec // if the framing has ports, it tells its packets from others; nil: it has none
}

// newLoopCheck returns the check for the layer that receives c between the addresses of
// pair.
func newLoopCheck(pair *resolve.Fixed, c *content, anywhere bool) loopCheck {
	o := loopCheck{pair: pair, protocol: c.protocol, anywhere: anywhere}
	if c.port != 0 {
		o.ported = c.codec
	}
	return o
}

// sends reports whether what follows a delivery header is the layer's. What does not begin
// with the framing's header, a later fragment, counts as the layer's.
func (o *loopCheck) sends(payload []byte, first bool) bool {
	if o.ported == nil || !first {
		return true
	}
	_, _, _, ok := o.ported.Unquote(payload, len(payload))
	return ok
}

func (o *loopCheck) is4(ip header.IPv4) bool {
	return ip.Protocol() == o.protocol && o.between4(ip) // most packets have another protocol: this is inlined
}

// between4 is is4 for a packet with the layer's protocol.
func (o *loopCheck) between4(ip header.IPv4) bool {
	return (o.anywhere && o.pair.From4(ip) || o.pair.Sends4(ip)) && (o.ported == nil || o.sends(ip.Payload(), ip.FirstBytes()))
}

// sends6 reports whether a packet has the layer's addresses.
func (o *loopCheck) sends6(ip header.IPv6) bool {
	return o.pair.Sends6(ip) || o.anywhere && o.pair.From6(ip)
}

// is6 also recognizes packets with headers that the layer, or fragmentation, puts before what
// the layer carries: an encapsulation limit and a fragment header. In a later fragment of a
// packet that begins with options, what they lead to is not visible: it counts as the layer's.
func (o *loopCheck) is6(ip header.IPv6) bool {
	switch ip.NextHeader() {
	case o.protocol:
		return o.sends6(ip) && (o.ported == nil || o.sends(ip.Payload(), true))
	case header.DestOptions, header.FragmentHdr:
		if !o.sends6(ip) {
			return false
		}
		up, ok := header.FindUpper(ip)
		return ok && (up.Protocol == o.protocol && o.sends(ip[min(up.Offset, len(ip)):], !up.Later) || up.Later && up.Protocol == header.DestOptions)
	}
	return false
}
