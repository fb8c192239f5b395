package engine

import (
	"encoding/binary"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// refuseOption tells the far end of a layer that a packet to ours has an option that
// nobody here knows, if the option asks for that (RFC 8200 section 4.2): ICMPv6
// Parameter Problem, code 2. The kernel tells it of options in an outermost IPv6 header.
func (in *inbound) refuseOption(s *sink, e *end, pkt []byte) {
	at, tell := header.UnknownOption(header.IPv6(pkt))
	p := e.peer.path.Load()
	if !tell || p == nil || !icmp.MayAnswer(pkt, true) {
		return
	}
	layer, ok := p.stack.EndOf(pkt)
	if !ok || !s.t.reply.may(&s.t.reply.own, pkt) {
		return
	}
	whole := parameterProblem(in.reply[encap.Headroom:encap.Headroom], header.IPv6(pkt), at)
	out, r := p.stack.EncapsulateBeside(layer, in.reply[:encap.Headroom+len(whole)], encap.Headroom)
	if r != drop.None || p.send(out, in.pieces) != nil {
		s.t.reply.failed.Add(1)
		return
	}
	in.noteSent(out)
	in.showAnswer(s.t, pkt, whole)
	s.t.reply.sent.add(6, icmp.Parameter6, icmp.UnknownOption6)
}

// parameterProblem appends to b the error about an option of a packet, from the
// packet's destination to its source.
func parameterProblem(b []byte, about header.IPv6, at int) []byte {
	b = append(b, make([]byte, header.IPv6Len)...)
	b = icmp.Append(b, icmp.Parameter6, icmp.UnknownOption6, uint32(at), about, nil)
	ip := header.IPv6(b)
	ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, answerHopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip.Payload())))
	copy(ip.Source(), about.Dest())
	copy(ip.Dest(), about.Source())
	m := ip.Payload()
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)))
	return b
}
