package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Role is the role of a node in a mechanism whose nodes have different roles.
type Role string

// The roles of 6to4, and of 6rd.
const (
	RoleHost   Role = "host"   // 6to4 for its own addresses only
	RoleRouter Role = "router" // 6to4 for a site
	RoleRelay  Role = "relay"  // between 6to4 and native IPv6
	RoleReturn Role = "return" // a server that sends its answers directly to 6to4 clients
	RoleCE     Role = "ce"     // 6rd customer edge
	RoleBR     Role = "br"     // 6rd border relay
)

// SixToFour is 6to4 (RFC 3056). A site with the public IPv4 address V4ADDR has the IPv6
// prefix 2002:V4ADDR::/48, so each site finds the outer address of every other site in
// the inner addresses. Other destinations are reached through a relay, if there is one.
// Because any host may send a packet with any inner source, each packet's inner and
// outer addresses must agree as RFC 3964 says. A native source cannot be verified; it is
// accepted from any relay unless relays are listed. Link-local and multicast packets are
// drop.Martian in both directions. An inner address, source or destination, that
// contradicts an outer one is drop.Spoof.
type SixToFour struct {
	Role    Role
	Relay   Host           // for a host or router: where packets to native destinations go; zero: they are dropped
	Relays  []netip.Prefix // IPv4: relays that may send packets with native sources; nil: all
	Clients []netip.Prefix // for a relay: IPv4 addresses whose packets it carries (RFC 3964 section 4.2.5)
	Sources []netip.Prefix // for a return path: inner sources that it carries
}

// Hosts returns the relay.
func (m SixToFour) Hosts() []Host {
	if m.Relay == (Host{}) {
		return nil
	}
	return []Host{m.Relay}
}

// ProbeAddress returns the invalid address: a relay returns packets, but it may be anybody's
// public service, at an anycast address, and is probed only when a user asks.
func (m SixToFour) ProbeAddress(netip.Addr) netip.Addr { return netip.Addr{} }

// Resolver returns the resolver for a site, whose local address must be globally unique:
// otherwise no host could answer (RFC 6343 section 4.1).
func (m SixToFour) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "6to4")
	if err != nil {
		return nil, err
	}
	if Martian4(p.local, at.Strict) {
		return nil, fmt.Errorf("6to4: local address %v is not globally unique, so that no answer could reach it: set local to a public address, or use mode 6in4 through a tunnel broker", at.Local)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	own := header.Prefix6{Value: prefix6to4(p.local), Mask: header.Word6{Hi: 0xffffffffffff0000}}
	p.home = []header.Prefix6{own}
	r := &sixToFour{place: p, role: m.Role, anySource: m.Relays == nil,
		relays: prefixes4(m.Relays), clients: prefixes4(m.Clients), sources: header.Prefixes6(m.Sources)}
	for _, o := range header.Prefixes6(at.Own) {
		if !is6to4(o.Value) {
			r.native = append(r.native, o)
		}
	}
	if relay := p.outer4(m.Hosts(), at); len(relay) > 0 {
		r.relay = relay[0]
	}
	return r, nil
}

func (m SixToFour) check() error {
	switch {
	case !slices.Contains([]Role{RoleHost, RoleRouter, RoleRelay, RoleReturn}, m.Role):
		return fmt.Errorf("6to4: role %q: use host, router, relay or return", m.Role)
	case m.Relay != (Host{}) && m.Role != RoleHost && m.Role != RoleRouter:
		return fmt.Errorf("6to4: a %s reaches native IPv6 itself: leave out the relay, or use role router", m.Role)
	case m.Role == RoleRelay && m.Clients == nil:
		return errors.New("6to4: a relay must know its clients: set clients, to 0.0.0.0/0 for an open relay")
	case m.Role == RoleReturn && m.Sources == nil:
		return errors.New("6to4: a return path must know whose answers it sends: set sources to this server's native prefixes")
	}
	return nil
}

type sixToFour struct {
	place
	role      Role
	relay     uint32 // 0: none
	anySource bool
	relays    []prefix4
	clients   []prefix4
	sources   []header.Prefix6
	native    []header.Prefix6 // the interface's prefixes that are not 6to4
}

// sane is the IPv6 sanity check of RFC 3964 section 5.3.2 for a source or a destination.
func (r *sixToFour) sane(a header.Word6) bool {
	return a.Hi>>48 != 0 && !noLink(a) && (!is6to4(a) || r.global4(v4of6to4(a)))
}

// To follows RFC 3964 section 5.1.
func (r *sixToFour) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	if !r.sane(src) || !r.sane(to) {
		return Endpoint{}, drop.Martian
	}
	if r.home[0].Contains(to) { // a subnet that does not exist
		return Endpoint{}, drop.Loop
	}
	dst := r.relay
	if is6to4(to) {
		dst = v4of6to4(to)
	}
	if dst == 0 {
		return Endpoint{}, drop.NoPeer
	}
	if !r.mayLeave(src, to) {
		return Endpoint{}, drop.Spoof
	}
	if why := r.leads(ip, dst); why != drop.None {
		return Endpoint{}, why
	}
	return Endpoint4(dst), drop.None
}

func (r *sixToFour) mayLeave(src, to header.Word6) bool {
	switch {
	case r.role == RoleReturn: // mechanisms 9.5
		return !is6to4(src) && header.Within(r.sources, src)
	case is6to4(src):
		return v4of6to4(src) == r.local && (r.role != RoleHost || slices.Contains(r.own6, src))
	}
	return is6to4(to) // else native to native
}

// From follows RFC 3964 section 5.2.
func (r *sixToFour) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	if r.role == RoleReturn {
		return drop.ForeignSource
	}
	src4 := from.IPv4()
	src, to := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest())
	switch {
	case !r.global4(src4), !r.sane(src), !r.sane(to):
		return drop.Martian
	case r.home[0].Contains(src), header.Within(r.native, src), slices.Contains(r.own6, src):
		return drop.OwnSource
	case r.mine(src4), is6to4(src) && v4of6to4(src) != src4:
		return drop.Spoof
	case is6to4(to):
		return r.arrives(at.IPv4(), src4, src, to, inner)
	case !is6to4(src):
		return drop.Spoof // native to native
	case r.role != RoleRelay:
		return drop.NoPeer
	case !within4(r.clients, src4):
		return drop.ForeignSource
	case r.returns(src), r.returns(to):
		return drop.Loop
	}
	return drop.None
}

// arrives checks a packet to a 6to4 address.
func (r *sixToFour) arrives(dst4, src4 uint32, src, to header.Word6, inner header.IPv6) drop.Reason {
	switch {
	case v4of6to4(to) != dst4:
		return drop.Spoof
	case r.role == RoleHost && !slices.Contains(r.own6, to):
		return drop.NoPeer
	case !is6to4(src) && !r.anySource && !within4(r.relays, src4):
		return drop.ForeignSource
	case r.returns(src), r.returns(to):
		return drop.Loop
	}
	return drop.None
}

// Warnings says that the anycast relay is no longer reliable.
func (m SixToFour) Warnings() []string {
	if m.Relay.Addr != netip.AddrFrom4([4]byte{192, 88, 99, 1}) {
		return nil
	}
	return []string{`the relay address 192.88.99.1 is deprecated (RFC 7526), and there may be no relay: set relay to an address that you know, or to "none"`}
}
