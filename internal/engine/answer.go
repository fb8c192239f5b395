package engine

import (
	"encoding/binary"
	"math/rand/v2"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// take is the door for packets to our end of the layer under the inner packets:
// answers to probes, ICMPv6 errors about packets of the layer, and, where the
// interface does not carry the address, everything else. It reports whether the
// packet is done with.
func (in *inbound) take(s *sink, e *end, path *path, inner []byte) bool {
	ours := e.peer.answer(header.IPv6(inner))
	if !ours {
		err, ok := icmp.Parse(inner)
		ours = ok && e.peer.hear(source(inner), err)
	}
	if ours {
		in.show(s.t, inner, noteOurs)
		e.peer.took(1, len(inner))
		return true
	}
	if e.host {
		in.answer(s, e, inner)
	} else if isLargeRequest(header.IPv6(inner), path) {
		e.peer.asked6.Add(1)
	}
	return e.host
}

// isLargeRequest reports whether a packet to our end is an echo request whose answer,
// which comes from the interface, will be one of those that not every path carries.
func isLargeRequest(ip header.IPv6, path *path) bool {
	return len(ip)+path.stack.Overhead(6) > everyPath && ip.NextHeader() == header.ICMPv6 && ip.Payload()[0] == icmp.EchoRequest6
}

// answer is the door for packets to the IPv6 layer's own address when the
// interface does not carry it: the daemon is the host then, and answers echo
// requests, so that the layer can be tested (seed: ping fc00::2 before ping
// 10.0.0.2).
func (in *inbound) answer(s *sink, e *end, inner []byte) {
	size := len(inner)
	if ip := header.IPv6(inner); ip.NextHeader() == header.ICMPv6 && len(ip.Payload()) >= echoHeaderLen && ip.Payload()[0] == echoReply6 {
		// The answer to an echo request of another program, such as sixfourctl doctor, which
		// has its own copy. A host passes such a message on, and it is no error if nobody
		// waits for it (RFC 4443 section 4.2).
		in.show(s.t, inner, noteOurs)
		e.peer.in.carried(1, size)
		return
	}
	if !echoReply(in.reply[encap.Headroom:], inner) {
		in.lose(s, e.peer, inner, drop.UnknownProtocol, nil)
		return
	}
	p := e.peer.path.Load()
	if p == nil {
		in.lose(s, e.peer, inner, drop.NoRoute, nil)
		return
	}
	// A reply is as large as its request, and the way back may be narrower.
	whole := in.reply[encap.Headroom : encap.Headroom+size]
	for piece := range fragment.IPv6(whole, int(p.stack.Limit(6)), rand.Uint32(), in.scratch, encap.Headroom) {
		pkt, r := p.stack.Encapsulate(in.scratch[:encap.Headroom+len(piece)], encap.Headroom)
		if r != drop.None {
			in.lose(s, e.peer, inner, r, nil)
			return
		}
		if err := p.send(pkt, in.pieces); err != nil {
			in.lose(s, e.peer, inner, sendReason(err), err)
			return
		}
		in.noteSent(pkt)
	}
	in.showAnswer(s.t, inner, whole)
	e.peer.took(1, size)
	e.peer.answered.Add(1)
}

// keepaliveBack reports whether a packet is a router's keepalive that the peer has sent
// back: one that another program here has asked with, such as sixfourctl doctor. The
// peer's own keepalives come in a tunnel packet.
func keepaliveBack(pkt []byte) bool {
	outer, r := header.Parse(pkt, header.Version(pkt))
	if r != drop.None {
		return false
	}
	var payload []byte
	if header.Version(outer) == 4 && header.IPv4(outer).Protocol() == header.GRE {
		payload = header.IPv4(outer).Payload()
	} else if header.Version(outer) == 6 && header.IPv6(outer).NextHeader() == header.GRE {
		payload = header.IPv6(outer).Payload()
	}
	h, r := header.ParseGRE(payload)
	return r == drop.None && h.Protocol == header.GREKeepalive && len(payload) >= h.Len+echoHeaderLen && payload[h.Len] == echoReply4
}

// ICMPv6 echo (RFC 4443 section 4).
const (
	echoReply4     = 0 // as which a keepalive of sixfour begins
	echoRequest6   = 128
	echoReply6     = 129
	echoHeaderLen  = 8
	answerHopLimit = 64
)

// echoReply writes the reply to an ICMPv6 echo request into reply, which must
// have room for as many bytes, and reports whether req is one: whole, without
// extension headers, from a unicast address, with a good checksum.
func echoReply(reply, req []byte) bool {
	ip := header.IPv6(req)
	msg := ip.Payload()
	if ip.NextHeader() != header.ICMPv6 || len(msg) < echoHeaderLen || msg[0] != echoRequest6 || msg[1] != 0 ||
		ip.Source()[0] == 0xff || header.Sum(msg, header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)) != 0xffff {
		return false
	}
	r := header.IPv6(reply[:len(req)])
	copy(r, req)
	r[7] = answerHopLimit
	copy(r.Source(), ip.Dest())
	copy(r.Dest(), ip.Source())
	m := r.Payload()
	m[0] = echoReply6
	before, after := binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(m)
	binary.BigEndian.PutUint16(m[2:], header.Update(binary.BigEndian.Uint16(msg[2:]), before, after))
	return true
}
