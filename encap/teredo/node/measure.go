package node

import (
	"net/netip"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Times of the measurement (RFC 4380 section 5.2.7).
const (
	measureStep  = 30 * time.Second // by which the time is raised after each success
	measureMost  = 120 * time.Second
	measureOpens = 2               // solicitations: many NATs keep a mapping longer that was used for some time
	measureGap   = 3 * time.Second // between them
)

// measure is how a client finds out how long its NAT keeps a mapping that is not used. A second
// port solicits the server, which opens a mapping; later, the first port sends a bubble to that
// mapping, through the server. If it arrives, the NAT still has the mapping.
type measure struct {
	port  uint16        // the second port; 0: there is no measurement
	lives time.Duration // a mapping lives at least so long; 0: not known

	phase  measurePhase
	opened int // solicitations that were answered
	tries  int
	next   time.Time
	nonce  uint64
	at     header.Mapping // of the second port
}

type measurePhase uint8

const (
	opens   measurePhase = iota // solicits the server from the second port
	waits                       // until the mapping was not used for the time that is tried
	asks                        // sends bubbles to the mapping
	knowing                     // the time is known
)

// measures sends what is due, and returns when more is.
func (c *client) measures(now time.Time) time.Time {
	q, me := &c.measure, c.self.Load()
	switch {
	case q.port == 0, me == nil, q.phase == knowing:
		return time.Time{}
	case q.next.After(now):
		return q.next
	case q.phase == waits:
		q.phase, q.tries = asks, 0
	case q.tries == solicitTries: // the mapping is lost, or the server is silent
		q.phase = knowing
		return time.Time{}
	}
	if q.tries == 0 {
		q.nonce = agent.Nonce()
	}
	q.tries++
	q.next = now.Add(solicitPause)
	if q.phase == opens {
		c.SendFrom(netip.AddrPortFrom(netip.Addr{}, q.port), c.server(0), solicitation(&c.key, teredo.SolicitationSource, q.nonce))
	} else {
		c.Send(c.server(0), teredo.AppendNonce(teredo.AppendBubble(nil, me.addr, c.second()), uint32(q.nonce)))
	}
	return q.next
}

// second returns the address that the second port would have as a client.
func (c *client) second() header.Word6 { return teredo.Address(c.servers[0], c.measure.at, 0) }

// measured handles what arrives at the second port.
func (c *client) measured(from header.Mapping, b []byte, now time.Time) drop.Reason {
	m, err := teredo.Parse(b)
	q := &c.measure
	switch {
	case err != nil:
		return drop.LyingLength
	case from != c.server(0), q.tries == 0:
		return drop.Spoof
	}
	if q.phase == opens {
		at, ok := Client{keyed: keyed{c.key}}.Mapping(b, q.nonce)
		if !ok {
			return drop.Spoof
		}
		q.at, q.opened, q.tries = at, q.opened+1, 0
		if q.next = now.Add(measureGap); q.opened == measureOpens {
			q.phase, q.next = waits, now.Add(max(refresh, q.lives)+measureStep)
		}
		return drop.None
	}
	n, ok := m.Nonce()
	if !ok || n != uint32(q.nonce) || !teredo.IsBubble(m.Packet) || header.ReadWord6(m.Packet.Dest()) != c.second() {
		return drop.Spoof
	}
	// The bubble itself has used the mapping: the next time begins now.
	q.lives, q.tries = max(refresh, q.lives)+measureStep, 0
	if q.phase = waits; q.lives >= measureMost {
		q.phase = knowing
	}
	q.next = now.Add(q.lives + measureStep)
	return drop.None
}
