package prober

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/probe"
)

// receivePacket handles a packet of the tunnel's protocol to our outer address. It
// modifies the packet.
func (a *Prober) receivePacket(b []byte) {
	packet, r := header.ParseReceived(b, header.Version(b))
	if r != drop.None || destination(packet) != a.local {
		return
	}
	udp, other := a.datagramOf(packet)
	if other {
		return
	}
	if sender(packet) == a.remote {
		defer a.countOther(a.answerCount())
	}
	outer := ecnOf(packet)
	if m, ok := keepaliveIn(packet); ok {
		if a.ID.IsReply(m, icmp.EchoReply4) {
			a.deliverAnswer(m, outer, outer)
		}
		return
	}
	setECN(packet, header.NotECT) // so that decapsulation does not change the inner ECN field
	inner, r := a.decapsulate(packet, udp)
	if r != drop.None {
		return
	}
	m, ok := a.replyIn(inner)
	if !ok {
		m, ok = a.looped(inner)
	}
	if ok {
		a.deliverAnswer(m, ecnOf(inner), outer)
		return
	}
	a.receiveInner(inner)
}

// datagramOf returns the UDP header and payload of a packet if the tunnel's framing has
// ports; nil: it has none. Other is true for a packet to another port: a raw socket for UDP
// receives the packets to all ports.
func (a *Prober) datagramOf(packet []byte) (udp []byte, other bool) {
	f := a.Layers[len(a.Layers)-1].Kind.Framing()
	if f.Properties().Ports == (framing.Ports{}) {
		return nil, false
	}
	switch header.Version(packet) {
	case 4:
		udp = header.IPv4(packet).Payload()
	default:
		udp = header.IPv6(packet).Payload()
	}
	return udp, len(udp) < header.UDPLen || protocolOf(packet) != header.UDP || !f.Matches(udp)
}

func protocolOf(packet []byte) byte {
	if header.Version(packet) == 4 {
		return header.IPv4(packet).Protocol()
	}
	return header.IPv6(packet).NextHeader()
}

// decapsulate returns the inner packet. The UDP checksum is not verified: if the sender is
// on this machine, or in a container of it, its kernel leaves the checksum to a device, and
// a raw socket sees it unfinished.
func (a *Prober) decapsulate(packet, udp []byte) ([]byte, drop.Reason) {
	if udp == nil {
		return a.stack.Decapsulate(packet)
	}
	return a.stack.Open(a.stack.Outer(packet), udp[header.UDPLen:])
}

// receiveInner handles an ICMP error that came through the tunnel: its quote has the
// cookie of the probe.
func (a *Prober) receiveInner(inner []byte) {
	err, ok := icmp.Parse(inner)
	if !ok {
		return
	}
	at := bytes.Index(err.Quote, a.ID.Cookie[:])
	if at < probe.CookieAt-probe.SeqAt {
		return
	}
	seq := binary.BigEndian.Uint16(err.Quote[at-(probe.CookieAt-probe.SeqAt):])
	err.Quote = slices.Clone(err.Quote)
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.pending[seq]; q != nil {
		q.deliver(Reply{ICMP: err, From: sender(inner)})
	}
}

// answerCount returns the number of answers received.
func (a *Prober) answerCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answers
}

// countOther counts a packet from the peer, unless an answer was received since answers
// returned before.
func (a *Prober) countOther(before int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers == before {
		a.others++
	}
}

// looped returns the ICMP message if a packet is our echo request to ourselves.
func (a *Prober) looped(packet []byte) (m []byte, ok bool) {
	if header.Version(packet) != 6 {
		return nil, false
	}
	ip := header.IPv6(packet)
	m = ip.Payload()
	return m, ip.NextHeader() == header.ICMPv6 && ip.Src() == ip.Dst() && a.ID.IsReply(m, icmp.EchoRequest6)
}

// keepaliveIn returns the payload of a GRE packet with protocol type 0, a keepalive.
func keepaliveIn(packet []byte) ([]byte, bool) {
	var payload []byte
	switch {
	case header.Version(packet) == 4 && header.IPv4(packet).Protocol() == header.GRE && !header.IPv4(packet).IsFragment():
		payload = header.IPv4(packet).Payload()
	case header.Version(packet) == 6 && header.IPv6(packet).NextHeader() == header.GRE:
		payload = header.IPv6(packet).Payload()
	default:
		return nil, false
	}
	h, r := header.ParseGRE(payload)
	if r != drop.None || h.Protocol != header.GREKeepalive {
		return nil, false
	}
	return payload[h.Len:], true
}

// replyIn returns the echo reply in a packet. A reply that is too large for the path back
// comes in fragments; the first one is sufficient.
func (a *Prober) replyIn(packet []byte) (m []byte, ok bool) {
	if header.Version(packet) == 4 {
		ip := header.IPv4(packet)
		m = ip.Payload()
		return m, ip.Protocol() == header.ICMP && ip.FirstBytes() && a.ID.IsReply(m, icmp.EchoReply4)
	}
	up, ok := header.FindUpper(header.IPv6(packet))
	if !ok || up.Protocol != header.ICMPv6 || up.Later {
		return nil, false
	}
	m = packet[up.Offset:]
	return m, a.ID.IsReply(m, icmp.EchoReply6)
}

// receiveICMP handles an ICMP packet to our outer address: the answer to a probe
// outside the tunnel, or an error about any probe.
func (a *Prober) receiveICMP(b []byte) {
	packet, r := header.ParseReceived(b, header.Version(b))
	if r != drop.None || destination(packet) != a.local {
		return
	}
	if m, ok := a.replyIn(packet); ok {
		if sender(packet) == a.remote {
			a.deliverAnswer(m, ecnOf(packet), ecnOf(packet))
		}
		return
	}
	err, ok := icmp.Parse(packet)
	if !ok {
		return
	}
	err.Quote = slices.Clone(err.Quote)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.pending {
		if quotes(err.Quote, q.packet) {
			q.deliver(Reply{ICMP: err, From: sender(packet)})
			return
		}
	}
}

// quotes reports whether a quote is the beginning of a packet. The quote of an IPv4
// packet may differ in the fields that routers change, and need not have more than 8
// bytes of the payload.
func quotes(quote, packet []byte) bool {
	const least = 8
	if len(packet) == 0 || header.Version(quote) != header.Version(packet) {
		return false
	}
	if header.Version(quote) == 4 {
		if len(quote) < header.IPv4Len+least || len(packet) < header.IPv4Len+least {
			return false
		}
		q, p := header.IPv4(quote), header.IPv4(packet)
		return q.HeaderLen() == header.IPv4Len && q.ID() == p.ID() && q.Protocol() == p.Protocol() && q.Src() == p.Src() && q.Dst() == p.Dst() &&
			slices.Equal(quote[header.IPv4Len:header.IPv4Len+least], packet[header.IPv4Len:header.IPv4Len+least])
	}
	n := min(len(quote), len(packet), quotedBytes)
	return n >= header.IPv6Len+least && header.IPv6(quote).Src() == header.IPv6(packet).Src() && header.IPv6(quote).Dst() == header.IPv6(packet).Dst() &&
		slices.Equal(quote[header.IPv6Len:n], packet[header.IPv6Len:n])
}

// quotedBytes is how many bytes of an IPv6 packet are compared: routers quote more (RFC
// 4443 section 2.4 c).
const quotedBytes = 128

func (a *Prober) deliverAnswer(m []byte, inner, outer byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers++
	if q := a.pending[binary.BigEndian.Uint16(m[probe.SeqAt:])]; q != nil {
		q.deliver(Reply{Answer: true, RTT: time.Since(q.sent), InnerECN: inner, OuterECN: outer})
	}
}

// deliver passes on a reply if there is room. It never blocks.
func (q *Probe) deliver(r Reply) {
	select {
	case q.replies <- r:
	default:
	}
}

// sender returns the source address of a packet.
func sender(packet []byte) netip.Addr {
	if header.Version(packet) == 4 {
		return header.IPv4(packet).Src()
	}
	return header.IPv6(packet).Src()
}

func destination(packet []byte) netip.Addr {
	if header.Version(packet) == 4 {
		return header.IPv4(packet).Dst()
	}
	return header.IPv6(packet).Dst()
}
