package encap

import (
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// arriving checks and removes the delivery header of one layer.
type arriving interface {
	// decapsulate checks pkt, which header.Parse has accepted, and returns the packet
	// inside it, which header.Parse has accepted too. The inner packet shares pkt's
	// memory, and its ECN field may be changed. If pkt is not for this layer, taken is
	// false, and pkt may still be the inner packet of another layer; behind GRE it may be
	// of the other IP version. If pkt is a fragment of a packet for this layer, the
	// reason is drop.Fragment.
	decapsulate(pkt []byte) (inner []byte, taken bool, r drop.Reason)

	// openDatagram is decapsulate for a packet whose delivery header was removed.
	openDatagram(payload []byte, o header.Outer) (inner []byte, r drop.Reason)

	// unquote is decapsulate for a packet that we sent and that an ICMP error quotes.
	// Size is the packet's length; pkt holds only the beginning of it. Ok is false if
	// this layer does not send such a packet.
	unquote(pkt []byte, size int) (q unquoted, ok bool)
}

// Decapsulate checks and removes every header of an outer packet and returns the inner
// packet, which shares its memory. The inner packet is for the interface or, if it is
// addressed to this host's end of a layer, for the code that answers for that end.
//
// With some reasons it also returns a packet. With drop.Fragment, the packet is a
// fragment of the IPv6 packet of a layer, for reassembly; pass the reassembled packet to
// DecapsulateReassembled; or one of two pieces of SEAL, for DecapsulateJoined. With drop.OwnSource or drop.Spoof, it is the inner packet, for
// Keepalive. With drop.UnknownProtocol, it is a control message of the framing, for the
// resolve.Agent. With drop.BadExtension or drop.SourceRouting, it is the IPv6 packet of a
// layer, whose sender may have to get an ICMPv6 error (header.FindProblem).
func (s *Stack) Decapsulate(outer []byte) ([]byte, drop.Reason) {
	pkt, r := header.ParseReceived(outer, s.outer)
	if r != drop.None {
		return nil, r
	}
	return s.strip(pkt, len(s.layers))
}

// Outer returns what the outermost headers of a packet say, which Decapsulate has accepted.
func (s *Stack) Outer(outer []byte) header.Outer {
	o := header.OuterOf(outer)
	if s.layers[len(s.layers)-1].Kind.Properties().Ports == (framing.Ports{}) {
		return o
	}
	udp := outer[min(len(outer), header.IPv6Len):]
	if s.outer == 4 {
		udp = header.IPv4(outer).Payload()
	}
	from, at := header.Ports(udp)
	o.From, o.At = netip.AddrPortFrom(o.From.Addr(), from), netip.AddrPortFrom(o.At.Addr(), at)
	return o
}

// Open is Decapsulate for a packet whose outermost delivery header the kernel has removed,
// and its UDP header if the outermost framing has one. O is what they said.
func (s *Stack) Open(o header.Outer, payload []byte) ([]byte, drop.Reason) {
	last := len(s.in) - 1
	inner, r := s.in[last].openDatagram(payload, o)
	if r != drop.None {
		if r != drop.UnknownProtocol {
			inner = nil
		}
		return inner, r
	}
	return s.strip(inner, last)
}

// DecapsulateReassembled is Decapsulate for a packet that was reassembled from
// fragments.
func (s *Stack) DecapsulateReassembled(whole []byte) ([]byte, drop.Reason) {
	pkt, r := header.Parse(whole, 6)
	if r != drop.None {
		return nil, r
	}
	for i, l := range slices.Backward(s.in) {
		if l, ok := l.(*over6); ok && l.accepts(header.IPv6(pkt)) == drop.None {
			return s.strip(pkt, i+1)
		}
	}
	return nil, drop.UnknownProtocol
}

// Check checks an inner packet whose parts Decapsulate has returned.
func (s *Stack) Check(inner []byte) drop.Reason { return s.sources.Check(inner) }

// strip removes the headers of the n innermost layers.
func (s *Stack) strip(pkt []byte, n int) ([]byte, drop.Reason) {
	for i := n - 1; i >= 0; i-- {
		inner, taken, r := s.in[i].decapsulate(pkt)
		if taken && r == drop.None {
			pkt = inner
			continue
		}
		if !taken && i < len(s.in)-1 && s.passes(i, pkt, r) {
			break
		}
		switch {
		case taken && r == drop.UnknownProtocol:
			return inner, r
		case taken && r == drop.Fragment && i == len(s.in)-1 && s.Sealed():
			return pkt, r
		case (r == drop.Fragment || r == drop.BadExtension || r == drop.SourceRouting) && header.Version(pkt) == 6:
			return pkt, r
		case r == drop.None:
			r = drop.UnknownProtocol
		}
		return nil, r
	}
	if r := s.sources.Check(pkt); r != drop.None {
		if r == drop.OwnSource || r == drop.Spoof {
			return pkt, r
		}
		return nil, r
	}
	return pkt, drop.None
}

// passes reports whether a packet that a layer did not take, with the given reason, is
// an inner packet: one that enters the stack outside the layer, or one for our end.
func (s *Stack) passes(layer int, pkt []byte, r drop.Reason) bool {
	switch r {
	case drop.None, drop.ForeignDestination, drop.UnknownProtocol:
		return s.enters(layer+1, pkt) || s.isEnd(layer, pkt)
	}
	return false
}

// enters reports whether packets of an IP version enter the stack at a layer.
func (s *Stack) enters(layer int, pkt []byte) bool {
	if header.Version(pkt) == 4 {
		return layer == s.at4
	}
	return layer == s.at6
}

// isEnd reports whether a packet is for this host's end of a layer: an answer to its
// probes, or an ICMPv6 error. The layer did not take the packet, and the packet does not
// enter the tunnel outside the layer either.
func (s *Stack) isEnd(layer int, pkt []byte) bool {
	return header.Version(pkt) == 6 && header.IPv6(pkt).Dst() == s.layers[layer].Local
}
