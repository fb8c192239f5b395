package connectip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/queue"
)

// peer is a peer of the port, with its connections: usually one. After a change there is
// for a short time also the former one, for the packets that are on their way in it.
type peer struct {
	transport.SessionPeer
	settings *Settings
	port     *Port
	stop     func() // ends the goroutine that connects

	outer   atomic.Pointer[header.Outer] // headers of packets from it
	current atomic.Pointer[conn]         // where packets to it go

	mu      sync.Mutex // before Port.routes.mu
	conns   []*conn
	removed bool
	state   State // without what current has
}

// maxConns is how many connections a peer may have.
const maxConns = 4

// Reasons for which a connection ends.
var (
	errReplaced = errors.New("another connection has replaced this one")
	errRemoved  = errors.New("the peer was removed")
)

// attach makes a connection the one to the peer, and starts it.
func (p *peer) attach(c *conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return errRemoved
	}
	if !p.port.routes.add(c.at, p) {
		return fmt.Errorf("another peer is connected from %v", c.at)
	}
	for _, b := range p.greeting() {
		c.out.PutMessage(b)
	}
	former := p.current.Load()
	p.conns = append(p.conns, c)
	p.current.Store(c)
	if former != nil {
		p.label(c, former.at)
	} else {
		p.label(c, c.at)
	}
	c.start()
	if f := p.port.config.Using; f != nil && !p.removed && (former == nil || former.over != c.over) {
		f(p.ID, c.over)
	}
	if former == nil || former.at != c.at {
		p.report(c.at, nil)
	}
	for i, old := range p.conns[:len(p.conns)-1] {
		if len(p.conns)-i > maxConns {
			p.port.running.Go(func() { old.end(errReplaced) })
		} else if old == former {
			time.AfterFunc(p.port.times.drain, func() { old.end(errReplaced) })
		}
	}
	return nil
}

// label gives the packets from the peer headers that say from which address they come. For a
// while that is the former address of the peer, if the present one is another: whoever called
// Receive has to learn of that first, and takes packets from the former address for much
// longer. The caller holds mu.
func (p *peer) label(c *conn, former netip.AddrPort) {
	at := netip.AddrPortFrom(c.local.Addr(), p.port.local.Port())
	p.outer.Store(&header.Outer{From: former, At: at, TTL: 64})
	if former == c.at {
		return
	}
	if p.port.times.settle == 0 {
		p.label(c, c.at)
		return
	}
	time.AfterFunc(p.port.times.settle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.current.Load() == c {
			p.label(c, c.at)
		}
	})
}

// report calls Connected. The caller holds mu.
func (p *peer) report(at netip.AddrPort, why error) {
	if f := p.port.config.Connected; f != nil && !p.removed {
		f(p.ID, at, why)
	}
}

// failed reports that the peer could not be connected to.
func (p *peer) failed(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report(netip.AddrPort{}, why)
}

// ended removes a connection that has ended.
func (p *peer) ended(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.conns, c)
	if i < 0 {
		return
	}
	p.conns = slices.Delete(p.conns, i, i+1)
	p.state.Dropped += c.out.Dropped()
	if !slices.ContainsFunc(p.conns, func(other *conn) bool { return other.at == c.at }) {
		p.port.routes.remove(c.at, p)
	}
	if p.current.CompareAndSwap(c, nil) {
		p.state.Assigned, p.state.Routes, p.state.Refused = nil, nil, 0
		p.report(netip.AddrPort{}, c.why)
	}
}

// moved notes that the peer has another address in the same connection.
func (p *peer) moved(c *conn, at netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.conns, c) || p.Remote.IsValid() || !p.port.routes.add(at, p) {
		return
	}
	if !slices.ContainsFunc(p.conns, func(other *conn) bool { return other != c && other.at == c.at }) {
		p.port.routes.remove(c.at, p)
	}
	former := c.at
	c.at = at
	if p.current.Load() == c {
		p.label(c, former)
		p.report(at, nil)
	}
}

// remove ends all connections, and makes none any more.
func (p *peer) remove() {
	p.mu.Lock()
	p.removed = true
	conns := slices.Clone(p.conns)
	p.mu.Unlock()
	p.stop()
	for _, c := range conns {
		c.end(errRemoved)
	}
}

// deliver takes a packet from the peer.
func (p *peer) deliver(pkt *queue.Packet) {
	pkt.Outer = *p.outer.Load()
	p.port.In.Put(pkt)
}

// greeting returns the capsules with which a connection begins.
func (p *peer) greeting() (capsules [][]byte) {
	s := p.settings
	if len(s.Assign) > 0 {
		capsules = append(capsules, addressCapsule(capsuleAssign, answer(nil, s.Assign)))
	}
	if len(s.Routes) > 0 {
		capsules = append(capsules, routeCapsule(s.Routes))
	}
	if len(s.Request) > 0 {
		all := make([]address, len(s.Request))
		for i, prefix := range s.Request {
			all[i] = address{uint64(i) + 1, prefix}
		}
		capsules = append(capsules, addressCapsule(capsuleRequest, all))
	}
	return capsules
}

// obey does what a capsule says.
func (p *peer) obey(c *conn, capsule control) error {
	switch capsule.kind {
	case capsuleRoutes:
		routes, err := parseRoutes(capsule.value)
		if err != nil {
			return fmt.Errorf("ROUTE_ADVERTISEMENT: %w", err)
		}
		p.note(c, func(s *State) { s.Routes = routes })
		return nil
	case capsuleAssign:
		all, err := parseAddresses(capsule.value)
		if err != nil {
			return fmt.Errorf("ADDRESS_ASSIGN: %w", err)
		}
		p.note(c, func(s *State) {
			s.Assigned = nil
			for _, a := range all {
				if a.prefix == a.none().prefix {
					s.Refused++
				} else {
					s.Assigned = append(s.Assigned, a.prefix)
				}
			}
		})
		return nil
	}
	all, err := parseAddresses(capsule.value)
	if err == nil && len(all) == 0 {
		err = errors.New("it asks for nothing")
	}
	if err == nil && slices.ContainsFunc(all, func(a address) bool { return a.request == 0 }) {
		err = errors.New("a request has the number 0")
	}
	if err != nil {
		return fmt.Errorf("ADDRESS_REQUEST: %w", err)
	}
	if !c.out.PutMessage(addressCapsule(capsuleAssign, answer(all, p.settings.Assign))) {
		return errors.New("the peer asks for addresses faster than it takes answers")
	}
	return nil
}

// note changes what is known from a connection, if that is the current one.
func (p *peer) note(c *conn, f func(*State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current.Load() == c {
		f(&p.state)
	}
}

// describe returns the state of the connection. Ok is false if there is none.
func (p *peer) describe() (s State, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s = p.state
	for _, c := range p.conns {
		s.Dropped += c.out.Dropped()
	}
	c := p.current.Load()
	if c == nil {
		return s, false
	}
	s.At, s.Over, s.Since = c.at, c.over, c.since
	if c.datagrams != nil {
		s.MTU = c.datagrams.limit(1 << 16)
	}
	return s, true
}

// routes finds the peer at an address.
type routes struct {
	mu sync.RWMutex
	at map[netip.AddrPort]*peer
}

func (r *routes) find(at netip.AddrPort) *peer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.at[at]
}

// add makes packets to an address go to a peer, unless they go to another one.
func (r *routes) add(at netip.AddrPort, p *peer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.at[at]; other != nil && other != p {
		return false
	}
	r.at[at] = p
	return true
}

func (r *routes) remove(at netip.AddrPort, p *peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at[at] == p {
		delete(r.at, at)
	}
}
