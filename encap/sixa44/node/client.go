package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
)

// Client is a 6a44 client (RFC 6751 section 6.5): a host behind a NAT whose provider has
// relays.
type Client struct{ Relay resolve.Host }

// Framing returns the framing of the client's packets, beside which there are those of protocol
// 41.
func (Client) Framing() framing.Framing {
	return framing.SixInUDP{Local: sixa44.Port, Plain: true, NoChecksum: true}
}

// HostPort is the port of relays.
func (Client) HostPort() uint16 { return sixa44.Port }

// Hosts returns the relay.
func (m Client) Hosts() []resolve.Host { return []resolve.Host{m.Relay} }

// NeedsHosts reports that the agent itself watches the relay.
func (Client) NeedsHosts() bool { return false }

// Resolver returns the agent of the client. It is an error if the host has native IPv6, which
// is better (RFC 6751 section 6.5.1).
func (m Client) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("6a44", at)
	if err != nil {
		return nil, err
	}
	if p, ok := nativePrefix(at); ok {
		return nil, fmt.Errorf("6a44: this host has native IPv6 (%v), and needs no 6a44", p)
	}
	c := &client{Base: b}
	if a, ok := first4(m.Relay, at.Hosts); ok {
		c.relay = header.Mapping{Addr: agent.Word(a), Port: sixa44.Port}
		if b.Owns(c.relay.Addr) {
			return nil, fmt.Errorf("6a44: the relay's address %v is this host's own: set relay to that of the provider's relay", a)
		}
	} else if m.Relay.Name == "" {
		return nil, errors.New("6a44: the relay needs an IPv4 address")
	}
	return c, nil
}

// Times of the exchange of bubbles (RFC 6751 section 6.5).
const (
	askLeast    = time.Second // T1: from a second to one and a half
	askMore     = time.Second / 2
	askTries    = 4
	renew       = 30 * time.Second // T2, less the tries
	noRelay     = 30 * time.Minute // T3
	addressLife = 10 * 365 * 24 * time.Hour
)

// client is the agent of a Client.
type client struct {
	agent.Base
	relay header.Mapping               // zero: not known yet
	self  atomic.Pointer[header.Word6] // our address; nil: none

	// Used only by the methods of Agent.
	id      uint64 // of the last bubble
	tries   int    // bubbles with this ID
	silent  bool   // the relay has not answered
	next    time.Time
	contact time.Time
}

// To returns the relay for packets from our address.
func (c *client) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip, me := header.IPv6(inner), c.self.Load()
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case header.IsMulticast(dst), header.IsLinkLocal(dst), header.IsLinkLocal(src), !isGlobal(dst):
		return resolve.Endpoint{}, drop.Martian
	case me == nil:
		return resolve.Endpoint{}, drop.NoRoute
	case src != *me:
		return resolve.Endpoint{}, drop.Spoof
	case dst == *me:
		return resolve.Endpoint{}, drop.Loop
	case sameSite(*me, dst):
		return c.inside(dst)
	}
	return agent.Endpoint(c.relay), drop.None
}

// sameSite reports whether two addresses are those of clients behind one NAT.
func sameSite(a, b header.Word6) bool { return a.Hi == b.Hi && a.Lo>>48 == b.Lo>>48 }

// inside returns the address of another client of our site, to which packets go directly
// (RFC 6751 section 6.5.2).
func (c *client) inside(dst header.Word6) (resolve.Endpoint, drop.Reason) {
	_, a := sixa44.Of(dst)
	switch {
	case c.Owns(a):
		return resolve.Endpoint{}, drop.Loop
	case c.Source(header.Mapping{Addr: a, Port: sixa44.Port}) != drop.None:
		return resolve.Endpoint{}, drop.Martian
	}
	e := resolve.Endpoint4(a)
	e.Form = direct
	return e, drop.None
}

// From accepts packets of the relay to our address, and those of other clients of our site
// whose source has the outer source.
func (c *client) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, me := header.IPv6(inner), c.self.Load()
	src := header.ReadWord6(ip.Source())
	switch {
	case me == nil:
		return drop.NoRoute
	case header.ReadWord6(ip.Dest()) != *me:
		return drop.Spoof
	case src == *me:
		return drop.OwnSource
	case from.Form == direct:
		if _, a := sixa44.Of(src); !sameSite(*me, src) || a != from.IPv4() {
			return drop.Spoof
		}
	case agent.MappingOf(from) != c.relay, sameSite(*me, src):
		return drop.Spoof
	case !isGlobal(src):
		return drop.Martian
	}
	return drop.None
}

// Wants selects bubbles.
func (c *client) Wants(inner []byte) bool { return len(inner) < header.IPv6Len }

// Receive takes the address from a bubble that answers ours. One without an ID says that it is
// wrong now: the relay is asked.
func (c *client) Receive(o header.Outer, b []byte, now time.Time) (done bool) {
	c.Why = c.receive(header.MappingOf(o.From), b, now)
	return true
}

func (c *client) receive(from header.Mapping, b []byte, now time.Time) drop.Reason {
	m, ok := sixa44.ParseBubble(b)
	switch {
	case !ok:
		return drop.UnknownProtocol
	case from != c.relay:
		return drop.Spoof
	case m.ID == 0:
		if me := c.self.Load(); me != nil && c.tries == 0 && now.Sub(c.contact) >= askLeast {
			if p, _ := sixa44.Of(*me); p != m.Prefix {
				c.next = now
			}
		}
		return drop.None
	case c.tries == 0, m.ID != c.id, m.Prefix.At.Port == 0:
		return drop.Spoof
	}
	a := m.Prefix.Address(c.Local)
	if !isGlobal(a) {
		return drop.Martian
	}
	if me := c.self.Load(); me == nil || *me != a {
		c.self.Store(&a)
	}
	c.tries, c.silent, c.contact, c.next = 0, false, now, now.Add(renew-askTries*(askLeast+askMore))
	return drop.None
}

// Hold keeps nothing.
func (c *client) Hold([]byte, time.Time) bool { return false }

// Next sends bubbles.
func (c *client) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	switch {
	case c.relay == (header.Mapping{}):
		return nil, 0, time.Time{} // its name is not looked up yet
	case c.next.After(now):
		return c.due()
	case c.tries == askTries:
		c.self.Store(nil)
		c.tries, c.silent, c.next = 0, true, now.Add(noRelay)
		return c.due()
	case c.tries == 0:
		c.id = max(agent.Nonce(), 1)
	}
	c.tries++
	c.next = now.Add(askLeast + rand.N(askMore))
	c.Send(c.relay, sixa44.AppendBubble(nil, sixa44.Bubble{ID: c.id}))
	return c.due()
}

// Learnt returns the address, the default route and the MTU.
func (c *client) Learnt() resolve.Learnt {
	l := resolve.Learnt{MTU: sixa44.MTU}
	if me := c.self.Load(); me != nil {
		l.Default = c.contact.Add(addressLife)
		l.Addresses = []resolve.Lease{{Prefix: netip.PrefixFrom(me.Addr(), sixa44.ProviderBits), Preferred: l.Default, Valid: l.Default}}
	}
	return l
}

// Entries returns the client itself.
func (c *client) Entries(now time.Time) []resolve.Entry {
	e := resolve.Entry{State: "soliciting", Node: netip.IPv6Unspecified(), Link: c.relay.AddrPort()}
	if !c.contact.IsZero() {
		e.Age = now.Sub(c.contact)
	}
	if c.silent {
		e.State = "offline"
	}
	if me := c.self.Load(); me != nil {
		p, _ := sixa44.Of(*me)
		e.Node, e.Link, e.State = me.Addr(), p.At.AddrPort(), "qualified"
	}
	return []resolve.Entry{e}
}

// Mapped returns the address and port outside the NAT, or why they are not known.
func (c *client) Mapped() (at netip.AddrPort, why string) {
	if me := c.self.Load(); me != nil {
		p, _ := sixa44.Of(*me)
		return p.At.AddrPort(), ""
	}
	if c.silent {
		return at, fmt.Sprintf("no relay answers at %v: does the provider have 6a44, and does UDP pass to port %d? It is asked again in half an hour", c.relay.AddrPort().Addr(), sixa44.Port)
	}
	return at, ""
}

// due returns the messages to send now.
func (c *client) due() ([]resolve.Message, int, time.Time) {
	send, lost := c.Take()
	return send, lost, c.next
}
