package node

import (
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// bubblesAtOnce is how many bubbles ask for a mapping: a direct and an indirect one.
const bubblesAtOnce = 2

// maxAsking is how many peers may be asked at the same time because they have sent something.
const maxAsking = 64

// links finds the mappings of peers, for clients and relays.
type links struct {
	agent.Base
	peers *table
	asked []*peer // those with asking set
	sweep time.Time
}

// link returns where packets to a peer go.
func (l *links) link(dst header.Word6) (resolve.Endpoint, drop.Reason) {
	p := l.peers.Find(dst)
	if p == nil {
		return resolve.Endpoint{}, drop.Unresolved
	}
	if !p.used.Load() {
		p.used.Store(true)
	}
	v := p.link.Load()
	if v == 0 {
		return resolve.Endpoint{}, drop.Unresolved
	}
	return agent.Endpoint(unpack(v)), drop.None
}

// hears notes that a packet of a peer has arrived.
func (p *peer) hears() {
	if !p.heard.Load() {
		p.heard.Store(true)
	}
}

// ask makes the node ask for a peer's mapping.
func (l *links) ask(p *peer, now time.Time) {
	if !p.asking {
		p.asking, p.tries, p.next = true, 0, now
		l.asked = append(l.asked, p)
	}
}

// holdFor keeps a packet for a peer whose mapping is not known, and asks for it.
func (l *links) holdFor(dst header.Word6, pkt []byte, now time.Time) bool {
	p := l.peers.add(dst, now)
	if p == nil {
		return false
	}
	if v := p.link.Load(); v != 0 { // it has just become known
		return l.Forward(unpack(v), append([]byte(nil), pkt...))
	}
	if teredo.Is(dst) && !p.asking && p.spent(now) || !l.peers.hold(p, pkt) {
		return false
	}
	l.ask(p, now)
	return true
}

// found makes packets to a peer go to a mapping, and sends those that were held.
func (l *links) found(p *peer, at header.Mapping, now time.Time) {
	p.trust(at, now)
	for _, pkt := range l.peers.take(p) {
		if !l.Forward(at, pkt) {
			l.peers.lost++
		}
	}
}

// advance asks for the mappings of peers, and forgets those of silent ones. Send sends one
// question, and returns false if there is no way to ask. The result is when there is more to
// do.
func (l *links) advance(now time.Time, send func(p *peer) bool) (again time.Time) {
	still := l.asked[:0]
	for _, p := range l.asked {
		if p.asking && !p.next.After(now) && l.Room(bubblesAtOnce) { // the others follow when the outbox is empty again
			switch {
			case p.tries == bubbleTries, p.spent(now), p.tries == 0 && l.pauses(p, now):
				if p.tries > 0 || p.spent(now) {
					p.asking = false
				}
			case send(p):
				p.tries, p.next = p.tries+1, now.Add(bubblePause)
				p.sending(now)
			default:
				p.asking = false
			}
			if !p.asking {
				l.peers.giveUp(p)
			}
		}
		if p.asking {
			still = append(still, p)
			again = nd.Earlier(again, p.next)
		}
	}
	clear(l.asked[len(still):])
	l.asked = still
	if l.peers.Len() > 0 {
		if !l.sweep.After(now) {
			l.sweep = now.Add(sweepInterval)
			l.age(now)
		}
		again = nd.Earlier(again, l.sweep)
	}
	return again
}

// pauses delays a question until 2 s after the last one.
func (l *links) pauses(p *peer, now time.Time) bool {
	if p.bubbles.last.IsZero() || now.Sub(p.bubbles.last) >= bubblePause {
		return false
	}
	p.next = p.bubbles.last.Add(bubblePause)
	return true
}

// age does what is due for each peer.
func (l *links) age(now time.Time) {
	l.peers.all(func(p *peer) bool {
		used := p.used.Swap(false)
		if p.heard.Swap(false) {
			p.last, p.bubbles.sent = now, 0
		}
		silent := now.Sub(p.last)
		near := now.Before(p.near.until)
		if !near {
			p.near.at.Store(0)
		}
		switch {
		case p.link.Load() != 0 && silent >= peerLife:
			p.link.Store(0)
		case p.moved.Swap(false), used && p.link.Load() != 0 && silent >= peerRenew:
			l.ask(p, now)
		}
		return near || p.asking || silent < peerLife || p.bubbles.sent > 0 && now.Sub(p.bubbles.last) < bubbleWindow
	})
}

// entries describes the peers for status.
func (l *links) entries(now time.Time, list []resolve.Entry) []resolve.Entry {
	l.peers.all(func(p *peer) bool {
		e := p.entry()
		if p.heard.Load() {
			e.Age = 0
		} else {
			e.Age = now.Sub(p.last)
		}
		list = append(list, e)
		return true
	})
	return list
}

// wants reports whether a packet that From accepted is for the agent: control messages, answers
// to tests, and packets of peers that are not trusted yet.
func (l *links) wants(b []byte) bool {
	if !teredo.IsData(b) {
		return true
	}
	ip := header.IPv6(b)
	p := l.peers.Find(header.ReadWord6(ip.Source()))
	return p == nil || p.link.Load() == 0 || p.answers(ip)
}

// answers reports whether a packet is the answer to the connectivity test of a peer.
func (p *peer) answers(ip header.IPv6) bool {
	if !teredo.IsEchoReply(ip) {
		return false
	}
	nonce, ok := teredo.TestNonce(ip)
	return ok && nonce == p.test
}

// bubbles sends a direct bubble to a peer's mapping, if direct is set, and an indirect one to
// its server. It returns false if neither may be sent.
func (l *links) bubbles(p *peer, src header.Word6, trailers []byte, direct bool) bool {
	b := append(teredo.AppendBubble(nil, src, p.addr), trailers...)
	to, server := teredo.ClientOf(p.addr), header.Mapping{Addr: teredo.ServerOf(p.addr), Port: teredo.Port}
	if !l.Reachable(server) && server.Addr != l.Local || !l.Reachable(to) { // our own server is on this host
		return false
	}
	if direct {
		l.Send(to, b)
	}
	l.Send(server, b)
	return true
}

// confirm sends a bubble to the mapping at which a peer is trusted: if it answers, its server
// has no work (RFC 6081 section 5.6).
func (l *links) confirm(p *peer, src header.Word6, trailers []byte) {
	l.Send(unpack(p.link.Load()), append(teredo.AppendBubble(nil, src, p.addr), trailers...))
}

// matches reports whether a direct bubble answers one of ours to a peer: it has the nonce as
// its destination, or in its trailer.
func (p *peer) matches(m *teredo.Message) bool {
	if n, ok := teredo.NonceOf(header.ReadWord6(m.Packet.Dest())); ok {
		return n == p.nonce
	}
	n, ok := m.Nonce()
	return ok && n == p.trailer()
}

// trailer returns the nonce for the trailers of bubbles to the peer.
func (p *peer) trailer() uint32 { return uint32(p.nonce>>32 ^ p.nonce) }
