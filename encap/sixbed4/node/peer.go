package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/sixbed4"
)

// Peer is a 6bed4 peer: a host, possibly behind a NAT, that gets an address from a router, and
// exchanges packets with other peers directly where the NATs let it.
type Peer struct {
	framed
	Router resolve.Host
	Direct bool // false: all packets go through the router
}

// NewPeer returns a peer of a router, at a UDP port.
func NewPeer(port uint16, router resolve.Host, direct bool) Peer {
	return Peer{framed{port}, router, direct}
}

// Hosts returns the router.
func (m Peer) Hosts() []resolve.Host { return []resolve.Host{m.Router} }

// NeedsHosts reports that the agent itself watches the router.
func (Peer) NeedsHosts() bool { return false }

// HostPort is the port of routers.
func (Peer) HostPort() uint16 { return sixbed4.Port }

// Resolver returns the agent of the peer.
func (m Peer) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("6bed4", at)
	if err != nil {
		return nil, err
	}
	p := &peer{Base: b, remotes: newRemotes(), direct: m.Direct}
	var addrs []netip.Addr
	if len(at.Hosts) > 0 {
		addrs = at.Hosts[0]
	}
	if m.Router.Addr.IsValid() {
		addrs = []netip.Addr{m.Router.Addr}
	}
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Unmap().Is4() })
	switch {
	case i >= 0:
		p.router = header.Mapping{Addr: agent.Word(addrs[i].Unmap()), Port: sixbed4.Port}
		if !b.Reachable(p.router) {
			return nil, fmt.Errorf("6bed4: the router's address %v is not that of another host on the Internet: set router to that of the router", addrs[i])
		}
	case len(addrs) > 0 || m.Router.Name == "":
		return nil, errors.New("6bed4: the router needs an IPv4 address: set router to one, or to a name that has one")
	}
	return p, nil
}

// Times of the exchange with the router.
const (
	firstAsk     = time.Second // doubled after each solicitation, up to lastAsk
	lastAsk      = 32 * time.Second
	keepPause    = 25 * time.Second // between keepalives; a NAT is taken to keep a mapping for 30 s
	keepsPerAsk  = 4                // between solicitations, by which a lost mapping is found
	keepTTL      = 3                // of keepalives: enough for most NATs, and the router need not receive them
	silentAfter  = 3                // unanswered solicitations, after which the router is silent
	addressLife  = 10 * 365 * 24 * time.Hour
	ownLAN       = 1 // our number among the hosts behind our port
	nativeLength = 16
)

// peer is the agent of a Peer.
type peer struct {
	agent.Base
	remotes
	router header.Mapping // zero: not known yet
	direct bool
	self   atomic.Pointer[header.Word6] // our address; nil: none yet

	// Used only by the methods of Agent.
	nonce   uint64 // in the source of the last solicitation
	asks    int    // solicitations without an answer
	wait    time.Duration
	keeps   int  // keepalives since the last solicitation
	far     bool // a mapping was lost: keepalives have the ordinary TTL, because the NAT may be far away
	next    time.Time
	contact time.Time // when the router has answered last
	tick    time.Time
}

// To returns the peer in an address of our network, or in one of fc64::/16, if it can be
// reached directly, and otherwise the router.
func (p *peer) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip, me := header.IPv6(inner), p.self.Load()
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case header.IsMulticast(dst), header.IsLinkLocal(dst), header.IsLinkLocal(src):
		return resolve.Endpoint{}, drop.Martian
	case me == nil:
		return resolve.Endpoint{}, drop.NoRoute
	case !isOurs(*me, src):
		return resolve.Endpoint{}, drop.Spoof
	case isOurs(*me, dst):
		return resolve.Endpoint{}, drop.Loop
	}
	if !p.mayBePeer(*me, dst) {
		if !isGlobal(dst) && !sixbed4.IsNative(dst) && dst.Hi != me.Hi {
			return resolve.Endpoint{}, drop.Martian
		}
		if isNeighbour(*me, dst) {
			sixbed4.SetSeen(ip, false)
		}
		return agent.Endpoint(p.router), drop.None
	}
	at := sixbed4.MappingOf(dst)
	r := p.Find(key(at))
	if r == nil {
		return resolve.Endpoint{}, drop.Unresolved
	}
	mark(&r.sent)
	policy := sixbed4.PolicyOf(ip.TrafficClass())
	sixbed4.SetSeen(ip, r.tell.Load())
	switch {
	case r.goesDirect(policy):
		return agent.Endpoint(at), drop.None
	case policy == sixbed4.Persistent:
		return resolve.Endpoint{}, drop.NoRoute
	}
	return agent.Endpoint(p.router), drop.None
}

// isOurs reports whether an address has our network and our mapping.
func isOurs(me, a header.Word6) bool {
	return a.Hi == me.Hi && a.Lo&^sixbed4.MaxLAN == me.Lo&^sixbed4.MaxLAN
}

// mayBePeer reports whether packets to an address may go directly.
func (p *peer) mayBePeer(me, dst header.Word6) bool {
	at := sixbed4.MappingOf(dst)
	return p.direct && isNeighbour(me, dst) && at != p.router && p.Reachable(at)
}

// isNeighbour reports whether an address is that of a 6bed4 peer, for which the flags in the
// traffic class have a meaning.
func isNeighbour(me, a header.Word6) bool {
	return sixbed4.Fits(a) && (a.Hi == me.Hi || sixbed4.IsNative(me) && sixbed4.IsNative(a))
}

// From accepts packets to our address, from the router or from the peer that is in the source.
func (p *peer) From(e, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m, me := header.IPv6(inner), agent.MappingOf(e), p.self.Load()
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case me == nil:
		return drop.NoRoute
	case !isOurs(*me, dst):
		return drop.Spoof
	case isOurs(*me, src):
		return drop.OwnSource
	case m == p.router:
		if !isGlobal(src) && !sixbed4.IsNative(src) && src.Hi != me.Hi {
			return drop.Martian
		}
	case !p.mayBePeer(*me, src):
		return drop.Spoof
	default:
		if why := from(&p.Base, src, m); why != drop.None {
			return why
		}
	}
	said := sixbed4.SetSeen(ip, false)
	// Others may have addresses whose second half is that of the remote.
	if r := p.Find(key(sixbed4.MappingOf(src))); r != nil && r.addr.Hi == src.Hi && sixbed4.Fits(src) {
		if m == p.router {
			mark(&r.through)
		} else {
			mark(&r.heard)
		}
		if said {
			mark(&r.seen)
		}
	}
	return drop.None
}

// Wants selects messages of the link, and probes.
func (p *peer) Wants(inner []byte) bool { return !isData(inner) }

// Receive takes our address from the router, notes probes, and answers solicitations of old
// peers.
func (p *peer) Receive(o header.Outer, b []byte, now time.Time) (done bool) {
	p.Why = p.receive(header.MappingOf(o.From), b, now)
	return true
}

func (p *peer) receive(m header.Mapping, b []byte, now time.Time) drop.Reason {
	if len(b) == 0 {
		if r := p.Find(key(m)); r != nil {
			mark(&r.heard)
			return drop.None
		}
		return drop.ForeignSource
	}
	ip, why := header.ParseIPv6(b)
	if why != drop.None {
		return why
	}
	msg, ok := nd.Parse(ip)
	switch {
	case !ok:
		return drop.UnknownProtocol
	case msg.Type == nd.RouterAdvertisement:
		return p.advertised(m, ip, now)
	case msg.Type != nd.NeighborSolicitation:
		return drop.UnknownProtocol
	}
	me, target := p.self.Load(), msg.Target
	a, is := header.Word6Of(target)
	src := header.ReadWord6(ip.Source())
	if me == nil || !is || a != *me || m != p.router && sixbed4.MappingOf(src) != m || !p.Reachable(m) {
		return drop.Spoof
	}
	p.Send(m, sixbed4.AppendNeighbour(nil, target, ip.Src(), sixbed4.MappingOf(*me)))
	return drop.None
}

// advertised takes our address from an advertisement that answers a solicitation of ours. One
// that was not asked for says that our address is wrong now: the router is asked, so that
// nobody who pretends to be the router can change it.
func (p *peer) advertised(m header.Mapping, ip header.IPv6, now time.Time) drop.Reason {
	network, at, ok := sixbed4.Advertisement(ip)
	switch {
	case m != p.router, !ok:
		return drop.Spoof
	case header.ReadWord6(ip.Dest()) != sixbed4.NonceAddress(p.nonce), p.asks == 0:
		if me := p.self.Load(); me != nil && (network != me.Hi || at != sixbed4.MappingOf(*me)) && p.asks == 0 && now.Sub(p.contact) >= firstAsk {
			p.keeps, p.next = keepsPerAsk, now
		}
		return drop.None
	}
	p.contact, p.asks, p.keeps, p.next = now, 0, 0, now.Add(keepPause)
	a := sixbed4.Address(network, at, ownLAN)
	if me := p.self.Load(); me == nil || *me != a {
		p.far = p.far || me != nil
		p.self.Store(&a)
	}
	return drop.None
}

// Hold makes a remote known, and sends the packet on its way.
func (p *peer) Hold(pkt []byte, now time.Time) bool {
	me := p.self.Load()
	ip := header.IPv6(pkt)
	if me == nil {
		return false
	}
	r := p.add(header.ReadWord6(ip.Dest()), now)
	copied := append([]byte(nil), pkt...)
	sixbed4.SetSeen(copied, r != nil && r.tell.Load())
	if r == nil { // no room: without peering
		return p.Forward(p.router, copied)
	}
	p.tick = now
	mark(&r.sent)
	if r.goesDirect(sixbed4.PolicyOf(ip.TrafficClass())) {
		return p.Forward(r.at(), copied)
	}
	return p.Forward(p.router, copied)
}

// Next asks the router, keeps the NAT's mapping, and probes remotes.
func (p *peer) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	again := p.ask(now)
	if p.Len() > 0 {
		if !p.tick.After(now) {
			p.tick = now.Add(tickInterval)
			p.All(func(r *remote) bool {
				probe, keep := r.tick(now)
				if probe && keep {
					p.Send(r.at(), nil)
				}
				return keep
			})
		}
		again = nd.Earlier(again, p.tick)
	}
	send, lost := p.Take()
	return send, lost, again
}

// ask sends solicitations and keepalives to the router.
func (p *peer) ask(now time.Time) time.Time {
	switch {
	case p.router == (header.Mapping{}):
		return time.Time{} // its name is not looked up yet
	case p.next.After(now):
		return p.next
	case p.asks == 0 && p.self.Load() != nil && p.keeps < keepsPerAsk:
		p.keeps++
		p.next = now.Add(keepPause)
		if p.far {
			p.Send(p.router, nil)
		} else {
			p.SendTTL(p.router, nil, keepTTL)
		}
		return p.next
	}
	if p.asks == 0 {
		p.wait = firstAsk
	} else {
		p.wait = min(2*p.wait, lastAsk)
	}
	p.asks++
	p.nonce = agent.Nonce()
	p.next = now.Add(p.wait)
	p.Send(p.router, sixbed4.AppendSolicitation(nil, p.nonce))
	return p.next
}

// Learnt returns our address and the MTU. There is a default route if the network belongs to
// the Internet.
func (p *peer) Learnt() resolve.Learnt {
	l := resolve.Learnt{MTU: sixbed4.MTU}
	me := p.self.Load()
	if me == nil {
		return l
	}
	until := p.contact.Add(addressLife)
	bits := 64
	if sixbed4.IsNative(*me) {
		bits = nativeLength
	} else {
		l.Default = until
	}
	l.Addresses = []resolve.Lease{{Prefix: netip.PrefixFrom(me.Addr(), bits), Preferred: until, Valid: until}}
	return l
}

// Entries returns the peer itself, with the mapping that the router sees, and the remotes.
func (p *peer) Entries(now time.Time) []resolve.Entry {
	e := resolve.Entry{State: "soliciting", Node: netip.IPv6Unspecified(), Link: p.router.AddrPort()}
	me := p.self.Load()
	if me != nil {
		e.Node, e.Link, e.State = me.Addr(), sixbed4.MappingOf(*me).AddrPort(), "qualified"
	}
	if !p.contact.IsZero() {
		e.Age = now.Sub(p.contact)
	}
	if p.asks > silentAfter {
		e.State = "offline"
	}
	list := []resolve.Entry{e}
	p.All(func(r *remote) bool {
		e := resolve.Entry{Link: r.at().AddrPort(), State: r.phase.String(), Node: r.addr.Addr()}
		if !r.last.IsZero() {
			e.Age = now.Sub(r.last)
		}
		list = append(list, e)
		return true
	})
	return list
}

// Mapped returns the address and port outside the NAT, or why they are not known.
func (p *peer) Mapped() (at netip.AddrPort, why string) {
	switch me := p.self.Load(); {
	case p.asks > silentAfter:
		return at, "the router does not answer: does UDP pass to its port 25790?"
	case me != nil:
		return sixbed4.MappingOf(*me).AddrPort(), ""
	}
	return at, ""
}
