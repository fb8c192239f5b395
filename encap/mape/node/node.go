// Package node has the nodes of MAP-E (RFC 7597) and lightweight 4over6 (RFC 7596): the customer
// edge and the B4 at one end, the border relay and the AFTR at the other. They are stateless,
// except for IPv4 packets in fragments, of which only the first has ports.
package node

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/mape"
	"sixfour/encap/resolve"
)

// Edge is a customer edge of MAP-E or, without an IPv6 address in Own, a B4 of lightweight 4over6.
type Edge struct {
	Mode   string    // its name in errors
	Own    mape.Edge // its IPv4 address or prefix, ports, and its IPv6 address, which is then the local one
	Relays []resolve.Host
	Rules  []mape.Rule // those by which it reaches other customer edges directly
}

// Hosts returns the border relays or AFTRs.
func (m Edge) Hosts() []resolve.Host { return m.Relays }

// Share returns the IPv4 address to which packets are translated, and its ports that are for this
// edge. Ok is false if it has a prefix, which the hosts behind it use themselves.
func (m Edge) Share() (a netip.Addr, p mape.Ports, ok bool) {
	return m.Own.IPv4.Addr(), m.Own.Ports, m.Own.IPv4.IsSingleIP()
}

// Resolver returns the resolver of the edge.
func (m Edge) Resolver(at resolve.Site) (resolve.Resolver, error) {
	local, ok := header.Word6Of(at.Local)
	if !ok {
		return nil, fmt.Errorf("%s: local address %v: the mode needs an IPv6 address of this host: set local to one", m.Mode, at.Local)
	}
	if m.Own.IPv6.IsValid() && at.Local != m.Own.IPv6 {
		return nil, fmt.Errorf("%s: local address %v: a customer edge with %v must have the address %v (RFC 7597 section 6): leave local out, and give that address to an interface of this host", m.Mode, at.Local, m.Own.Prefix, m.Own.IPv6)
	}
	if !m.Own.IPv4.IsValid() || !m.Own.IPv4.Addr().Is4() {
		return nil, fmt.Errorf("%s: this end has no IPv4 address", m.Mode)
	}
	mesh, err := newRules(m.Rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Mode, err)
	}
	e := &edge{local: local, mesh: mesh, ports: m.Own.Ports, mask: uint32(uint64(0xffffffff) << (32 - m.Own.IPv4.Bits())), agent: agent{newFragments()}}
	e.own = word4(m.Own.IPv4.Addr()) & e.mask
	e.relays, e.relay = hosts(m.Relays, at, local)
	return e, nil
}

// hosts returns the addresses of hosts, and that of them to which packets go: the first that is
// not down.
func hosts(list []resolve.Host, at resolve.Site, local header.Word6) (all []header.Word6, first header.Word6) {
	down := true
	for i, h := range list {
		addrs := []netip.Addr{h.Addr}
		if !h.Addr.IsValid() && i < len(at.Hosts) {
			addrs = at.Hosts[i]
		}
		for _, a := range addrs {
			w, ok := header.Word6Of(a)
			if !ok || w == local || slices.Contains(all, w) {
				continue
			}
			all = append(all, w)
			if isDown := slices.Contains(at.Down, a); len(all) == 1 || down && !isDown {
				first, down = w, isDown
			}
		}
	}
	return all, first
}

// edge is the resolver of an Edge.
type edge struct {
	local  header.Word6
	own    uint32 // IPv4 address or prefix
	mask   uint32 // of own
	ports  mape.Ports
	relays []header.Word6
	relay  header.Word6 // the one in use; zero: none
	mesh   rules
	agent
}

// CarriesIPv4 says that packets of IPv4 are carried.
func (*edge) CarriesIPv4() {}

// has reports whether a port of our IPv4 address is ours. A packet without ports is not, if the
// address is shared.
func (e *edge) has(p port) bool {
	return e.ports.PSIDLen == 0 || p.state == withPort && e.ports.Has(p.number)
}

// To returns the customer edge that has the destination, if there is a rule for it, and otherwise
// the relay.
func (e *edge) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv4(inner)
	p := portsOf(ip)
	src, dst := binary.BigEndian.Uint32(ip.Source()), binary.BigEndian.Uint32(ip.Dest())
	switch {
	case src&e.mask != e.own, p.src.state != laterPiece && !e.has(p.src):
		return resolve.Endpoint{}, drop.Spoof
	case dst&e.mask == e.own && e.has(p.dst):
		return resolve.Endpoint{}, drop.Loop
	}
	if len(e.mesh) > 0 {
		switch end, f := e.mesh.at(dst, p.dst); {
		case f == noEnd:
			return resolve.Endpoint{}, drop.NoPeer
		case f == needsPort && p.dst.state == laterPiece:
			return e.later(ip)
		case f == someone && end == e.local:
			return resolve.Endpoint{}, drop.Loop
		case f == someone:
			e.fragments.leaves(ip, end)
			return resolve.Endpoint6(end), drop.None
		}
	}
	if e.relay == (header.Word6{}) {
		return resolve.Endpoint{}, drop.NoRoute
	}
	return resolve.Endpoint6(e.relay), drop.None
}

// From accepts packets to our address and ports: from relays, and from the customer edges to
// which the sources belong.
func (e *edge) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip := header.IPv4(inner)
	p := portsOf(ip)
	src, dst := binary.BigEndian.Uint32(ip.Source()), binary.BigEndian.Uint32(ip.Dest())
	if dst&e.mask != e.own || p.dst.state != laterPiece && !e.has(p.dst) {
		return drop.Spoof
	}
	if slices.Contains(e.relays, from.IPv6()) {
		return drop.None
	}
	if len(e.mesh) == 0 {
		return drop.ForeignSource
	}
	return e.check(e.mesh, from.IPv6(), ip, src, p.src)
}

// Relay is a border relay of MAP-E.
type Relay struct{ Rules []mape.Rule }

// Hosts is empty: a relay needs no other host.
func (Relay) Hosts() []resolve.Host { return nil }

// Resolver returns the resolver of the relay.
func (m Relay) Resolver(at resolve.Site) (resolve.Resolver, error) {
	list, err := newRules(m.Rules)
	if err != nil {
		return nil, fmt.Errorf("map_e: %w", err)
	}
	return newRelay("map_e", at, list)
}

// AFTR is an AFTR of lightweight 4over6.
type AFTR struct{ Bindings []mape.Edge }

// Hosts is empty: an AFTR needs no other host.
func (AFTR) Hosts() []resolve.Host { return nil }

// Resolver returns the resolver of the AFTR.
func (m AFTR) Resolver(at resolve.Site) (resolve.Resolver, error) {
	list, err := newBindings(m.Bindings)
	if err != nil {
		return nil, fmt.Errorf("lw4o6: %w", err)
	}
	return newRelay("lw4o6", at, list)
}

func newRelay(mode string, at resolve.Site, list ends) (*relay, error) {
	local, ok := header.Word6Of(at.Local)
	if !ok {
		return nil, fmt.Errorf("%s: local address %v: the mode needs an IPv6 address of this host: set local to one", mode, at.Local)
	}
	return &relay{local: local, ends: list, agent: agent{newFragments()}}, nil
}

// relay is the resolver of a Relay or an AFTR.
type relay struct {
	local header.Word6
	ends  ends
	agent
}

// CarriesIPv4 says that packets of IPv4 are carried.
func (*relay) CarriesIPv4() {}

// To returns the customer edge that has the destination.
func (r *relay) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv4(inner)
	p := portsOf(ip)
	dst := binary.BigEndian.Uint32(ip.Dest())
	switch end, f := r.ends.at(dst, p.dst); {
	case f == needsPort && p.dst.state == laterPiece:
		return r.later(ip)
	case f != someone:
		return resolve.Endpoint{}, drop.NoPeer
	case end == r.local:
		return resolve.Endpoint{}, drop.Loop
	default:
		r.fragments.leaves(ip, end)
		return resolve.Endpoint6(end), drop.None
	}
}

// From accepts a packet from the customer edge to which its source address and port belong.
func (r *relay) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip := header.IPv4(inner)
	p := portsOf(ip)
	return r.check(r.ends, from.IPv6(), ip, binary.BigEndian.Uint32(ip.Source()), p.src)
}

// agent is what is common to all nodes: it keeps fragments, and sends nothing of its own.
type agent struct{ fragments *fragments }

// later returns the end of a later fragment, which goes where the first one went.
func (a *agent) later(ip header.IPv4) (resolve.Endpoint, drop.Reason) {
	end, known := a.fragments.goesTo(ip)
	if !known {
		return resolve.Endpoint{}, drop.Unresolved
	}
	return resolve.Endpoint6(end), drop.None
}

// check returns drop.None if a packet may have come from an end. A later fragment must follow the
// first one from the same end.
func (a *agent) check(list ends, from header.Word6, ip header.IPv4, src uint32, p port) drop.Reason {
	end, f := list.at(src, p)
	switch {
	case f == needsPort && p.state == laterPiece:
		if !a.fragments.cameFrom(ip, from) {
			return drop.Spoof
		}
	case f != someone, end != from:
		return drop.Spoof
	default:
		a.fragments.arrives(ip, from)
	}
	return drop.None
}

// Wants is false: there are no control packets.
func (*agent) Wants([]byte) bool { return false }

// Receive is never called.
func (*agent) Receive(header.Outer, []byte, time.Time) bool { return false }

// Hold keeps a later fragment that has arrived before the first one.
func (a *agent) Hold(pkt []byte, now time.Time) bool { return a.fragments.hold(pkt, now) }

// Next returns the fragments that were held, and whose first one has arrived since.
func (a *agent) Next(now time.Time) ([]resolve.Message, int, time.Time) { return a.fragments.next(now) }

// Learnt is empty: nothing is learnt.
func (*agent) Learnt() resolve.Learnt { return resolve.Learnt{} }

// Entries is empty: where the ends are is computed.
func (*agent) Entries(time.Time) []resolve.Entry { return nil }
