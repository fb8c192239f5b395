package datapath

import (
	"encoding/binary"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// reportProblem sends an ICMPv6 Parameter Problem to the far end of a layer if a packet to
// our end has a bad extension header that must be reported. For an outermost IPv6 header
// the kernel does this.
func (in *Inbound) reportProblem(s *sink, e *End, pkt []byte) {
	code, at, tell := header.FindProblem(header.IPv6(pkt))
	p := e.Path.Wire.Load()
	if !tell || p == nil || !icmp.MayAnswer(pkt, code == header.UnknownOption) {
		return
	}
	layer, ok := p.Stack.EndOf(pkt)
	if !ok || !s.t.Reply.Allow(pkt) {
		return
	}
	buf := layerError(in.reply[:encap.Headroom], header.IPv6(pkt), icmp.Parameter6, code, uint32(at))
	if p.sendError(layer, &Own{Buf: buf, Scratch: in.pieces, At: in.moment.At, answers: request{in, pkt, noteAnswered}}) {
		s.t.Reply.Sent.Add(6, icmp.Parameter6, code)
	}
}

// sendError sends an error message, which is in o.Buf, to the far end of a layer, and
// reports whether it was sent.
func (w *Wire) sendError(layer int, o *Own) bool {
	o.Encapsulate = func(buf []byte, off int) ([]byte, drop.Reason) {
		return w.Stack.EncapsulateOutside(layer, buf, off)
	}
	o.Inner, o.Note = o.Buf[encap.Headroom:], noteAnswer
	if w.Emit(o) != nil {
		w.Path.Tunnel.Reply.Failed.Add(1)
		return false
	}
	return true
}

// layerError appends to b an ICMPv6 error about a packet, sent from the packet's
// destination to its source.
func layerError(b []byte, about header.IPv6, typ, code byte, arg uint32) []byte {
	start := len(b)
	b = append(b, make([]byte, header.IPv6Len)...)
	b = icmp.Append(b, typ, code, arg, about, nil)
	ip := header.IPv6(b[start:])
	ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, icmp.ReplyHopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip.Payload())))
	copy(ip.Source(), about.Dest())
	copy(ip.Dest(), about.Source())
	m := ip.Payload()
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)))
	return b
}
