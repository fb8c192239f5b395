package node

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// Client is a Teredo client (RFC 4380 section 5.2), a host behind a NAT.
type Client struct {
	framed
	keyed
	Server  resolve.Host
	Server2 resolve.Host // zero: the address after that of Server
	// NoDiscovery makes the client neither send nor receive discovery bubbles. BesideNative
	// makes it run although the host has native IPv6.
	NoDiscovery, BesideNative bool
	// Second is another UDP port, by which the client measures how long the NAT keeps a
	// mapping; 0: it does not measure that.
	Second uint16
}

// NewClient returns a client at a UDP port of a server, whose second address may be zero: then
// it is the one after the first.
func NewClient(port uint16, server, second resolve.Host) Client {
	return Client{framed: framed{port}, Server: server, Server2: second}
}

// With returns a client that proves to its server who it is.
func (m Client) With(k Key) Client {
	m.Key = k
	return m
}

// maxClientPeers is how many peers a client knows at the same time.
const maxClientPeers = 1 << 10

// Hosts returns the server and, if it is configured, its second address.
func (m Client) Hosts() []resolve.Host {
	hosts := []resolve.Host{m.Server}
	if m.Server2 != (resolve.Host{}) {
		hosts = append(hosts, m.Server2)
	}
	return hosts
}

// HostPort is the port of servers.
func (Client) HostPort() uint16 { return teredo.Port }

// NeedsHosts reports that the agent itself watches the server.
func (Client) NeedsHosts() bool { return false }

// Resolver returns the agent of the client.
func (m Client) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("teredo", at)
	if err != nil {
		return nil, err
	}
	c := &client{links: links{Base: b, peers: newTable(maxClientPeers)}, qualification: qualification{port: m.Port, key: m.Key}, discovery: discovery{silent: m.NoDiscovery}, measure: measure{port: m.Second}}
	if !m.BesideNative {
		c.yieldTo(nativeOf(at.Elsewhere))
	}
	for i, h := range m.Hosts() {
		addrs := []netip.Addr{h.Addr}
		if !h.Addr.IsValid() {
			if addrs = nil; i < len(at.Hosts) {
				addrs = at.Hosts[i]
			}
		}
		at := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Unmap().Is4() })
		if at < 0 {
			if h.Name == "" {
				return nil, errors.New("teredo: server and server2 must be IPv4 addresses or names")
			}
			if len(addrs) == 0 {
				continue // it is not looked up yet
			}
			return nil, errors.New("teredo: " + h.Name + " has no IPv4 address")
		}
		c.servers[i] = agent.Word(addrs[at].Unmap())
	}
	if m.Server2 == (resolve.Host{}) {
		c.servers[1] = c.servers[0] + 1
	}
	for i := range c.servers {
		if s := c.servers[i]; s != 0 && !b.Reachable(header.Mapping{Addr: s, Port: teredo.Port}) {
			return nil, errors.New("teredo: the server's address " + c.server(i).AddrPort().Addr().String() + " is not that of another host on the Internet")
		}
	}
	if c.servers[0] != 0 && c.servers[0] == c.servers[1] {
		return nil, errors.New("teredo: server and server2 must be two addresses of one server: by the second one the client finds out what NAT it has")
	}
	return c, nil
}

// nativeOf returns the first of some subnets that is one of the Internet, and does not belong
// to 6to4 or Teredo; invalid: none is.
func nativeOf(subnets []netip.Prefix) netip.Prefix {
	for _, s := range subnets {
		if a, ok := header.Word6Of(s.Addr()); ok && isGlobal(a) && a.Hi>>48 != 0x2002 {
			return s
		}
	}
	return netip.Prefix{}
}

// client is the agent of a Client.
type client struct {
	links
	servers [2]uint32 // 0: not known yet
	self    atomic.Pointer[self]
	qualification
	discovery discovery
	measure   measure
}

// self is what a qualified client knows of itself.
type self struct {
	addr      header.Word6
	mapped    header.Mapping
	symmetric bool
	until     time.Time // when the address expires, if it is not confirmed until then
}

func (c *client) server(i int) header.Mapping {
	return header.Mapping{Addr: c.servers[i], Port: teredo.Port}
}

func (c *client) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	me := c.self.Load()
	switch {
	case header.IsMulticast(dst), header.IsLinkLocal(dst), header.IsLinkLocal(src):
		return resolve.Endpoint{}, drop.Martian
	case me == nil:
		return resolve.Endpoint{}, drop.NoRoute
	case src != me.addr:
		return resolve.Endpoint{}, drop.Spoof
	case dst == me.addr:
		return resolve.Endpoint{}, drop.Loop
	case teredo.Is(dst) && !c.Reachable(teredo.ClientOf(dst)), !teredo.Is(dst) && !isGlobal(dst):
		return resolve.Endpoint{}, drop.Martian
	}
	return c.link(dst)
}

// From accepts packets to our address: from trusted peers, from Teredo peers whose address has
// the outer source, and from others for Receive, which drops them if they do not answer a test
// (RFC 4380 section 5.2.3).
func (c *client) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m, me := header.IPv6(inner), agent.MappingOf(from), c.self.Load()
	src := header.ReadWord6(ip.Source())
	switch {
	case me == nil:
		return drop.NoRoute
	case header.ReadWord6(ip.Dest()) != me.addr:
		return drop.Spoof
	case src == me.addr:
		return drop.OwnSource
	}
	if why := c.Source(m); why != drop.None {
		return why
	}
	p := c.peers.Find(src)
	switch {
	case p != nil && (p.is(m) || p.isNear(m)):
		p.hears()
	case teredo.Is(src) && teredo.ClientOf(src) != m:
		return drop.Spoof
	case teredo.Is(src):
		if p != nil {
			p.hears()
		}
	case !isGlobal(src):
		return drop.Martian
	case p != nil && p.link.Load() != 0 && !p.answers(ip):
		p.moved.Store(true) // it may have another relay now: test it
		return drop.Spoof
	}
	return drop.None
}

func (c *client) Wants(inner []byte) bool { return c.wants(inner) }

// Hold asks for the peer's mapping.
func (c *client) Hold(pkt []byte, now time.Time) bool {
	return c.self.Load() != nil && c.holdFor(header.ReadWord6(header.IPv6(pkt).Dest()), pkt, now)
}

// Next solicits the server, and asks for the mappings of peers.
func (c *client) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	again := nd.Earlier(nd.Earlier(c.qualify(now), c.announce(now)), c.measures(now))
	again = nd.Earlier(again, c.advance(now, func(p *peer) bool { return c.question(p) }))
	send, lost := c.Take()
	lost += c.peers.lost
	c.peers.lost = 0
	return send, lost, again
}

// question sends bubbles to a Teredo peer, or a connectivity test to a native one.
func (c *client) question(p *peer) bool {
	me := c.self.Load()
	if me == nil {
		return false
	}
	if !teredo.Is(p.addr) {
		c.Send(c.server(0), teredo.AppendTest(nil, me.addr, p.addr, p.test))
		return true
	}
	if p.tries == 0 && p.link.Load() == 0 && p.near.at.Load() != 0 {
		c.askLocal(p, unpack(p.near.at.Load()))
		return true
	}
	if p.tries == 0 && p.link.Load() != 0 {
		c.confirm(p, me.addr, teredo.AppendDiscovery(teredo.AppendNonce(nil, p.trailer()), false))
		return true
	}
	// RFC 6081 has the nonce in a trailer; clients that do not know trailers answer to the
	// source of the bubble, which is then the nonce.
	if p.tries%2 == 1 {
		return c.bubbles(p, teredo.NonceAddress(p.nonce), nil, true)
	}
	return c.bubbles(p, me.addr, c.trailers(p, me), true)
}

// trailers returns the trailers of bubbles to a peer: the nonce and, if the peer is behind our
// NAT, our address inside it (RFC 6081 section 5.5).
func (c *client) trailers(p *peer, me *self) []byte {
	b := teredo.AppendNonce(nil, p.trailer())
	if teredo.ClientOf(p.addr).Addr == me.mapped.Addr {
		b = teredo.AppendAlternates(b, []header.Mapping{{Addr: c.Local, Port: c.port}})
	}
	return b
}

// Learnt returns the address, the default route and the MTU while the client is qualified.
func (c *client) Learnt() resolve.Learnt {
	l := resolve.Learnt{MTU: teredo.MTU}
	if me := c.self.Load(); me != nil {
		l.Addresses = []resolve.Lease{{Prefix: netip.PrefixFrom(me.addr.Addr(), 32), Preferred: me.until, Valid: me.until}}
		l.Default = me.until
	}
	return l
}

// Entries returns the client itself, with what it knows of its NAT, and its peers.
func (c *client) Entries(now time.Time) []resolve.Entry {
	e := resolve.Entry{State: c.state(), Age: now.Sub(c.contact), Link: c.server(0).AddrPort(), Node: netip.IPv6Unspecified()}
	if c.contact.IsZero() {
		e.Age = 0
	}
	if me := c.self.Load(); me != nil {
		e.Node, e.Link = me.addr.Addr(), me.mapped.AddrPort()
		if me.symmetric {
			e.State = "symmetric"
		}
	}
	return c.entries(now, []resolve.Entry{e})
}

// Mapped returns the address and port outside the NAT, or why they are not known.
func (c *client) Mapped() (at netip.AddrPort, why string) {
	if me := c.self.Load(); me != nil {
		return me.mapped.AddrPort(), ""
	}
	return at, c.why
}
