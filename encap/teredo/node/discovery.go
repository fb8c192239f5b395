package node

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Times of local discovery (RFC 4380 section 5.2.8).
const (
	announceLeast = 200 * time.Second // between two discovery bubbles
	announceMore  = 100 * time.Second // random part
	localLife     = 10 * time.Minute  // after which a peer's address on our link is forgotten
	localPause    = 10 * time.Second  // between two questions to a peer on our link
)

// discovery is how a client behind a NAT finds clients behind the same NAT on its link: it
// tells them its address by multicast, and asks those whose address it hears for a nonce before
// it trusts them.
type discovery struct {
	silent bool // there is no local discovery
	next   time.Time
}

// Framing returns the framing of the client's packets. Discovery bubbles arrive at the port of
// servers.
func (m Client) Framing() framing.Framing {
	f := framing.SixInUDP{Local: m.Port, Control: m.Second}
	if !m.NoDiscovery {
		f.Group = teredo.Port
	}
	return f
}

// Groups returns the multicast group of discovery bubbles.
func (c *client) Groups() []netip.Addr {
	if c.discovery.silent {
		return nil
	}
	return []netip.Addr{teredo.DiscoveryGroup}
}

// announce sends the discovery bubbles that are due, and returns when the next one is.
func (c *client) announce(now time.Time) time.Time {
	me := c.self.Load()
	if me == nil || c.discovery.silent || me.mapped.Addr == c.Local { // without a NAT, all hosts reach us at our address
		return time.Time{}
	}
	if !c.discovery.next.After(now) {
		c.discovery.next = now.Add(announceLeast + rand.N(announceMore))
		c.Send(header.Mapping{Addr: agent.Word(teredo.DiscoveryGroup), Port: teredo.Port}, teredo.AppendDiscoveryBubble(nil, me.addr))
	}
	return c.discovery.next
}

// discovered handles a discovery bubble.
func (c *client) discovered(from header.Mapping, b []byte, now time.Time) drop.Reason {
	m, err := teredo.Parse(b)
	me := c.self.Load()
	switch {
	case err != nil:
		return drop.LyingLength
	case me == nil, c.discovery.silent, !teredo.IsDiscoveryBubble(m.Packet):
		return drop.NoPeer
	}
	return c.local(header.ReadWord6(m.Packet.Source()), me, from, now)
}

// local handles a bubble of another client that says to be on our link: if it can be behind our
// NAT, a bubble with a nonce asks whether it is there. That bubble is no larger.
func (c *client) local(src header.Word6, me *self, from header.Mapping, now time.Time) drop.Reason {
	switch {
	case src == me.addr, c.Owns(from.Addr):
		return drop.OwnSource
	case c.discovery.silent, from.Port == 0, !c.OnLink(from.Addr), teredo.ClientOf(src).Addr != me.mapped.Addr:
		return drop.Spoof
	}
	p := c.peers.add(src, now)
	switch {
	case p == nil:
		return drop.Limited
	case p.isNear(from) && p.is(from):
		p.near.until = now.Add(localLife)
		return drop.None
	case now.Before(p.near.next):
		return drop.Limited
	}
	p.near.next = now.Add(localPause)
	c.askLocal(p, from)
	return drop.None
}

// askLocal sends a bubble with a nonce to a peer's address on our link.
func (c *client) askLocal(p *peer, at header.Mapping) {
	c.Send(at, teredo.AppendBubble(nil, teredo.NonceAddress(p.nonce), p.addr))
}

// foundLocal notes that a peer has answered at an address on our link, and makes the peer ask
// us, too.
func (c *client) foundLocal(p *peer, me *self, from header.Mapping, now time.Time) {
	if teredo.ClientOf(p.addr) == from || !c.OnLink(from.Addr) || c.discovery.silent {
		return
	}
	if !p.isNear(from) {
		c.Send(from, teredo.AppendDiscoveryBubble(nil, me.addr))
	}
	p.near.at.Store(pack(from))
	p.near.until = now.Add(localLife)
}
