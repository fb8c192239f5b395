package node

import (
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Receive handles advertisements, bubbles, answers to tests and the first packets of peers.
func (c *client) Receive(o header.Outer, b []byte, now time.Time) (done bool) {
	if o.At.Addr().IsMulticast() {
		c.Why = c.discovered(header.MappingOf(o.From), b, now)
		return true
	}
	if c.measure.port != 0 && o.At.Port() == c.measure.port {
		c.Why = c.measured(header.MappingOf(o.From), b, now)
		return true
	}
	var data bool
	data, c.Why = c.receive(header.MappingOf(o.From), b, now)
	return !data
}

func (c *client) receive(from header.Mapping, b []byte, now time.Time) (data bool, why drop.Reason) {
	m, err := teredo.Parse(b)
	if err != nil {
		return false, drop.LyingLength
	}
	if why := c.Source(from); why != drop.None {
		return false, why
	}
	fromServer := from == c.server(0) || from == c.server(1)
	me := c.self.Load()
	switch src, dst := header.ReadWord6(m.Packet.Source()), header.ReadWord6(m.Packet.Dest()); {
	case teredo.IsData(b) && me != nil:
		return c.firstOf(&m, from, now)
	case fromServer && dst == teredo.SolicitationSource && !teredo.IsBubble(m.Packet):
		return false, c.advertised(&m, from, now)
	case me == nil, !teredo.IsBubble(m.Packet), src == me.addr:
		return false, drop.NoPeer
	case fromServer && m.Origin != (header.Mapping{}) && dst == me.addr:
		c.contact = now
		return false, c.indirect(&m, me, now)
	default:
		return false, c.direct(&m, me, from, now)
	}
}

// firstOf handles a packet of a peer that is not trusted. One of a Teredo peer is delivered,
// because From has compared its mapping. One of a native host is dropped, unless it answers
// the connectivity test: it may be forged, and a test is sent.
func (c *client) firstOf(m *teredo.Message, from header.Mapping, now time.Time) (data bool, why drop.Reason) {
	src := header.ReadWord6(m.Packet.Source())
	switch p := c.peers.Find(src); {
	case teredo.Is(src):
		if teredo.ClientOf(src) != from && (p == nil || !p.isNear(from)) {
			return false, drop.Spoof
		}
		if p = c.peers.add(src, now); p != nil {
			c.found(p, from, now)
		}
		return true, drop.None
	case p != nil && p.answers(m.Packet):
		c.found(p, from, now)
		return false, drop.None
	case p != nil && p.is(from): // it has just become trusted
		return true, drop.None
	case len(c.asked) >= maxAsking:
		return false, drop.Limited
	}
	if p := c.peers.add(src, now); p != nil {
		c.ask(p, now)
	}
	return false, drop.Spoof
}

// indirect handles a bubble that the server has passed on. The answer goes to where it came
// from, to the source of the bubble, which may be a nonce, and makes our NAT let the peer's
// packets in.
func (c *client) indirect(m *teredo.Message, me *self, now time.Time) drop.Reason {
	to := m.Origin
	if port, ok := m.RandomPort(); ok {
		to.Port = port
	}
	if !c.Reachable(m.Origin) || !c.Reachable(to) {
		return drop.Martian
	}
	src := header.ReadWord6(m.Packet.Source())
	answer := c.answer(m, me)
	c.Send(to, answer)
	if !teredo.Is(src) {
		return drop.None
	}
	if teredo.ClientOf(src).Addr == me.mapped.Addr { // behind our NAT, which may not pass packets from inside to its own address
		for _, at := range m.Alternates() {
			if c.Source(at) == drop.None && !c.Owns(at.Addr) {
				c.Send(at, answer)
			}
		}
	}
	p := c.peers.add(src, now)
	if p == nil {
		return drop.Limited
	}
	p.echo.nonce, p.echo.ok = m.Nonce()
	if p.link.Load() == 0 && p.echo.ok && !p.asking && !p.spent(now) && !c.pauses(p, now) {
		// If the peer's NAT is symmetric, its answer shows the mapping for us (RFC 6081
		// section 5.2).
		if c.bubbles(p, me.addr, c.trailers(p, me), false) {
			p.sending(now)
		}
	}
	return drop.None
}

// answer returns the bubble that answers one.
func (c *client) answer(m *teredo.Message, me *self) []byte {
	b := teredo.AppendBubble(nil, me.addr, header.ReadWord6(m.Packet.Source()))
	if nonce, ok := m.Nonce(); ok {
		b = teredo.AppendNonce(b, nonce)
	}
	return b
}

// direct handles a bubble that came from its sender. It makes a Teredo peer trusted if its
// address has the mapping from which it came, or if it has our nonce. At a mapping at which the
// peer is trusted already, it stays trusted.
func (c *client) direct(m *teredo.Message, me *self, from header.Mapping, now time.Time) drop.Reason {
	src, dst := header.ReadWord6(m.Packet.Source()), header.ReadWord6(m.Packet.Dest())
	if header.IsLinkLocal(src) && dst == me.addr { // the peer asks: its nonce is the source
		if !c.Reachable(from) && !c.OnLink(from.Addr) {
			return drop.Martian
		}
		c.Send(from, c.answer(m, me))
		return drop.None
	}
	if teredo.IsDiscoveryBubble(m.Packet) { // as an answer to ours
		return c.local(src, me, from, now)
	}
	p := c.peers.Find(src)
	known := p != nil && (p.matches(m) || p.is(from))
	switch {
	case !teredo.Is(src), dst != me.addr && !known:
		return drop.Spoof
	case !known && teredo.ClientOf(src) != from:
		return c.local(src, me, from, now)
	case p == nil:
		if p = c.peers.add(src, now); p == nil {
			return drop.Limited
		}
	}
	fresh := !p.is(from)
	if m.Solicits() && (known || c.Reachable(from)) {
		c.Send(from, teredo.AppendDiscovery(c.answer(m, me), true))
		fresh = false
	}
	if n, ok := m.Nonce(); ok && !p.matches(m) {
		p.echo = echo{n, true}
	}
	c.found(p, from, now)
	c.foundLocal(p, me, from, now)
	if fresh && teredo.ClientOf(src) != from {
		// Our other bubbles went to the mapping in its address: this one shows the peer
		// that packets pass.
		b := teredo.AppendBubble(nil, me.addr, src)
		if p.echo.ok {
			b = teredo.AppendNonce(b, p.echo.nonce)
		}
		c.Send(from, b)
	}
	return drop.None
}
