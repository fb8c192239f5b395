package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Times and counts of qualification (RFC 4380 sections 5.2.1 and 5.2.5).
const (
	solicitPause = 4 * time.Second
	solicitTries = 3
	refresh      = 30 * time.Second
	restart      = 100 * time.Second
	addressLife  = 10 * 365 * 24 * time.Hour // the address is removed when the mapping is lost
)

// Why a client is not qualified.
const (
	whySilent = "the server does not answer: does UDP pass to port 3544 of both its addresses?"
	whyMoved  = "the NAT has another mapping for us than before: the server is asked again"
)

// phase is how far a client knows its NAT.
type phase uint8

const (
	asksFirst  phase = iota // the server at its first address
	asksSecond              // the server at its second address: a symmetric NAT shows another mapping
	qualified
	refreshes // asks again whether the mapping is the same
	offline   // the server does not answer
	yields    // the host has native IPv6
)

// String names a phase.
func (p phase) String() string {
	return [...]string{"soliciting", "soliciting", "qualified", "qualified", "offline", "native"}[p]
}

// state returns the word for status.
func (q *qualification) state() string {
	if q.lost {
		return "lost"
	}
	return q.phase.String()
}

// qualification is how a client finds its mapping. The cone phase is left out (RFC 5991 section
// 3.2).
type qualification struct {
	port    uint16 // ours
	key     Key
	phase   phase
	tries   int
	next    time.Time
	nonce   uint64         // in the last solicitation
	first   header.Mapping // that the server sees at its first address
	flags   uint16         // of the address, as long as the mapping stays
	contact time.Time      // when the server was last heard of
	why     string         // the client is not qualified any more
	lost    bool           // it was, and asks for its mapping again
}

// qualify sends what is due, and returns when more is.
func (c *client) qualify(now time.Time) time.Time {
	if c.servers[0] == 0 || c.servers[1] == 0 || c.phase == yields {
		return time.Time{}
	}
	if c.next.After(now) {
		return c.next
	}
	switch c.phase {
	case qualified:
		if idle := c.contact.Add(c.interval()); idle.After(now) { // the server was heard of meanwhile
			c.next = idle
			return c.next
		}
		c.phase, c.tries = refreshes, 0
	case offline:
		c.phase, c.tries = asksFirst, 0
	}
	if c.tries == solicitTries {
		if c.phase == refreshes {
			c.lose(whySilent)
			return c.qualify(now)
		}
		c.phase, c.tries, c.next, c.why, c.lost = offline, 0, now.Add(restart), whySilent, false
		return c.next
	}
	if c.tries == 0 {
		c.nonce = agent.Nonce()
	}
	c.tries++
	c.next = now.Add(solicitPause)
	to := 0
	if c.phase == asksSecond {
		to = 1
	}
	c.Send(c.server(to), solicitation(&c.key, teredo.SolicitationSource, c.nonce))
	return c.next
}

// interval returns a random time after which a silent server is asked again, so that clients
// do not ask at the same time: 75 to 100 percent of the refresh interval.
func (c *client) interval() time.Duration {
	every := max(refresh, c.measure.lives)
	return every - rand.N(every/4)
}

// yieldTo makes the client do nothing if there is a native subnet (RFC 4380 section 5.5).
func (c *client) yieldTo(native netip.Prefix) {
	if native.IsValid() {
		c.phase = yields
		c.why = fmt.Sprintf("this host has native IPv6 (%v on another interface), beside which a client does nothing (RFC 4380 section 5.5): to use Teredo all the same, set beside_native = \"yes\"", native)
	}
}

// lose forgets the mapping and all peers: the client begins again.
func (c *client) lose(why string) {
	c.self.Store(nil)
	c.why, c.lost, c.discovery.next = why, true, time.Time{}
	c.measure = measure{port: c.measure.port}
	c.phase, c.tries, c.next = asksFirst, 0, time.Time{}
	c.peers.all(func(*peer) bool { return false })
	clear(c.asked)
	c.asked = c.asked[:0]
}

// advertised handles a router advertisement of the server.
func (c *client) advertised(m *teredo.Message, from header.Mapping, now time.Time) drop.Reason {
	at := 0
	if c.phase == asksSecond {
		at = 1
	}
	server, ok := teredo.Advertisement(m.Packet)
	switch {
	case !ok, server != c.servers[0] && server != c.servers[at], header.ReadWord6(m.Packet.Dest()) != teredo.SolicitationSource, m.Origin == (header.Mapping{}):
		return drop.Martian
	case c.tries == 0, from != c.server(at), m.Auth == nil, m.Auth.Nonce != c.nonce, m.Auth.Confirmation != 0, c.phase == qualified, c.phase == offline:
		return drop.Spoof
	case !c.key.accepts(m):
		return drop.Unauthenticated
	}
	c.contact, c.tries = now, 0
	switch c.phase {
	case asksFirst:
		c.first, c.phase, c.next = m.Origin, asksSecond, now
		return drop.None
	case asksSecond:
		if me := c.self.Load(); me == nil || me.mapped != c.first {
			c.flags = teredo.RandomFlags(uint16(agent.Nonce()))
		}
		c.why, c.lost = "", false
		c.self.Store(&self{addr: teredo.Address(c.servers[0], c.first, c.flags), mapped: c.first, symmetric: m.Origin != c.first, until: now.Add(addressLife)})
	case refreshes:
		if m.Origin != c.first {
			c.lose(whyMoved)
			return drop.None
		}
	}
	c.phase, c.next = qualified, now.Add(c.interval())
	return drop.None
}
