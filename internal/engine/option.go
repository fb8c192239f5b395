package engine

import (
	"encoding/binary"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// tellProblem tells the far end of a layer what is wrong with the extension headers of
// a packet to our end, if it is to be told: ICMPv6 Parameter Problem. The kernel tells
// it of an outermost IPv6 header.
func (in *inbound) tellProblem(s *sink, e *end, pkt []byte) {
	code, at, tell := header.FindProblem(header.IPv6(pkt))
	p := e.peer.path.Load()
	if !tell || p == nil || !icmp.MayAnswer(pkt, code == header.UnknownOption) {
		return
	}
	layer, ok := p.stack.EndOf(pkt)
	if !ok || !s.t.reply.may(&s.t.reply.own, pkt) {
		return
	}
	whole := parameterProblem(in.reply[encap.Headroom:encap.Headroom], header.IPv6(pkt), code, at)
	out, r := p.stack.EncapsulateBeside(layer, in.reply[:encap.Headroom+len(whole)], encap.Headroom)
	if r != drop.None || p.send(out, in.pieces) != nil {
		s.t.reply.failed.Add(1)
		return
	}
	in.noteSent(out)
	in.showAnswer(s.t, pkt, whole)
	s.t.reply.sent.add(6, icmp.Parameter6, code)
}

// parameterProblem appends to b the error about the byte at an offset of a packet, from
// the packet's destination to its source.
func parameterProblem(b []byte, about header.IPv6, code byte, at int) []byte {
	b = append(b, make([]byte, header.IPv6Len)...)
	b = icmp.Append(b, icmp.Parameter6, code, uint32(at), about, nil)
	ip := header.IPv6(b)
	ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, answerHopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip.Payload())))
	copy(ip.Source(), about.Dest())
	copy(ip.Dest(), about.Source())
	m := ip.Payload()
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)))
	return b
}
