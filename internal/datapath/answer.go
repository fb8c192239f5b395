package datapath

import (
	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// answersBetween reports whether an inner packet answers a probe between two inner
// addresses. If so, it has been handled.
func (in *Inbound) answersBetween(s *sink, e *End, wire *Wire, inner []byte) bool {
	if !e.Path.Peer.answersBetween(wire.Between, inner) {
		return false
	}
	in.show(s.t, inner, noteProbed)
	e.Path.Received(1, len(inner))
	return true
}

// take is the slow path for inner packets addressed to our end of the layer: answers to
// probes, ICMPv6 errors about packets of the layer, and, if the interface does not have the
// address, all other packets. Of those for the interface it drops what the peer may not
// send. It reports whether the packet was handled.
func (in *Inbound) take(s *sink, e *End, wire *Wire, inner []byte) bool {
	ours := e.Path.Peer.answer(header.IPv6(inner))
	if !ours {
		err, ok := icmp.Parse(inner)
		ours = ok && e.Path.handleICMP(header.Source(inner), err)
	}
	switch {
	case ours:
		in.show(s.t, inner, noteOurs)
		e.Path.Received(1, len(inner))
		return true
	case e.host, e.probesPath(inner):
		in.answer(s, e, inner)
		return true
	}
	if isLargeRequest(header.IPv6(inner), wire) {
		e.Path.Requests.Large.Add(1)
	}
	if !e.sends(inner) { // without this peer's end as source it is an ordinary packet
		in.lose(s, e.Path, inner, drop.Spoof, nil)
		return true
	}
	return false
}

// probesPath reports whether a packet to our end is an echo request that may probe one of
// several paths. The daemon answers it on this path even if the interface has the address:
// otherwise the answer would take the path that packets use, so that a path could not be
// probed while that one has failed, and its round-trip time could not be measured. Nor could
// its path MTU: large packets would seem to be lost if small ones are answered otherwise.
func (e *End) probesPath(inner []byte) bool {
	if e.Path.Peer.paths.Load() == nil || !e.sends(inner) {
		return false
	}
	ip := header.IPv6(inner)
	m := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && len(m) >= icmp.HeaderLen && m[0] == icmp.EchoRequest6
}

// isLargeRequest reports whether a packet to our end is an echo request with an answer too
// large for every path to carry. The interface sends that answer.
func isLargeRequest(ip header.IPv6, wire *Wire) bool {
	return len(ip)+wire.Stack.Overhead(6) > everyPath && ip.NextHeader() == header.ICMPv6 && ip.Payload()[0] == icmp.EchoRequest6
}

// answer handles packets to the IPv6 layer's own address if the interface does not have it:
// the daemon is then the host, and answers echo requests so that the layer can be tested
// (seed: ping fc00::2 before ping 10.0.0.2).
func (in *Inbound) answer(s *sink, e *End, inner []byte) {
	size := len(inner)
	if ip := header.IPv6(inner); ip.NextHeader() == header.ICMPv6 && len(ip.Payload()) >= icmp.HeaderLen && ip.Payload()[0] == icmp.EchoReply6 {
		// The answer to an echo request of another program, such as sixfourctl doctor, which
		// has its own copy. A host passes such a message on, and it is no error if no program
		// waits for it (RFC 4443 section 4.2).
		in.show(s.t, inner, noteOurs)
		e.Path.Received(1, size)
		return
	}
	if !icmp.EchoReply(in.reply[encap.Headroom:], inner) {
		in.lose(s, e.Path, inner, drop.UnknownProtocol, nil)
		return
	}
	p := e.Path.Wire.Load()
	if p == nil {
		in.lose(s, e.Path, inner, drop.NoRoute, nil)
		return
	}
	// A reply is as large as its request, but the path back may have a smaller MTU.
	o := Own{
		Buf: in.reply[:encap.Headroom+size], Stack: p.Stack, Pieces: in.scratch, Scratch: in.pieces,
		Inner: in.reply[encap.Headroom : encap.Headroom+size], Note: noteAnswer, At: in.moment.At, answers: request{in, inner, noteAnswered},
	}
	if n := p.Emit(&o); n != nil {
		in.lose(s, e.Path, inner, n.Reason, n.Err)
		return
	}
	e.Path.Received(1, size)
	e.Path.Requests.Answered.Add(1)
}

// sendBack returns a router's keepalive to it.
func (in *Inbound) sendBack(s *sink, e *End, inner []byte, back encap.Return) {
	wire := e.Path.Wire.Load()
	if wire == nil {
		in.lose(s, e.Path, inner, drop.NoRoute, nil)
		return
	}
	n := copy(in.reply[encap.Headroom:], inner)
	o := Own{
		Buf: in.reply[:encap.Headroom+n], Scratch: in.pieces,
		Note: noteAnswer, At: in.moment.At, answers: request{in, inner, noteKeepalive},
	}
	if back == encap.ReturnInside {
		o.Stack = wire.Stack
	}
	if n := wire.Emit(&o); n != nil {
		in.lose(s, e.Path, inner, n.Reason, n.Err)
		return
	}
	e.Path.Received(1, len(inner))
	e.Path.Requests.Answered.Add(1)
}

// control passes a packet to the agent of the tunnel's mechanism, if the agent wants it. It
// reports whether the packet needs no further handling.
func (in *Inbound) control(s *sink, e *End, wire *Wire, pkt, inner []byte) bool {
	a := s.t.agent.Load()
	if a == nil || !a.Wants(inner) {
		return false
	}
	switch done, r := a.Receive(wire.Stack.Outer(pkt), inner); {
	case r != drop.None:
		in.lose(s, e.Path, inner, r, nil)
	case done:
		in.show(s.t, inner, noteNeighbour)
		e.Path.Received(1, len(inner))
	default:
		return false
	}
	return true
}

// keepaliveBack reports whether a packet is a router's keepalive that the peer has
// returned and that another program on this host, such as sixfourctl doctor, has sent. The
// peer's own keepalives arrive inside a tunnel packet.
func (e *End) keepaliveBack(pkt []byte) bool {
	outer, r := header.Parse(pkt, header.Version(pkt))
	if r != drop.None {
		return false
	}
	var payload []byte
	var ok bool
	kind := e.Wire().Outer().Kind
	if header.Version(outer) == 4 {
		payload, ok = kind.OpenKeepalive(header.IPv4(outer).Protocol(), header.IPv4(outer).Payload())
	} else {
		payload, ok = kind.OpenKeepalive(header.IPv6(outer).NextHeader(), header.IPv6(outer).Payload())
	}
	return ok && len(payload) >= icmp.HeaderLen && payload[0] == icmp.EchoReply4
}
