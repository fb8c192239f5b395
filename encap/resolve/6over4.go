package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// SixOverFour is 6over4 (RFC 2529). It uses a site's IPv4 network with multicast as a
// link layer for IPv6, whose link-layer addresses are IPv4 addresses. Neighbours are
// found by neighbour discovery. An IPv6 group is mapped by its last two bytes to an IPv4
// group of the organisation-local scope, 239.192.0.0/16. The TUN interface has no link
// layer, so this type does neighbour discovery itself. Link-local packets of every
// protocol are carried, as on any link (RFC 2529 section 1). Those that we send must
// have the link-local address of RFC 2529 section 5, because neighbours resolve no
// other. Any host that can send IPv4 packets to a node can pretend to be its neighbour:
// the site's border must drop protocol 41 and the scope's groups (RFC 2529 section 9).
type SixOverFour struct {
	Scope byte // second byte of the IPv4 groups; 0: 192
}

// defaultScope is the second byte of the first organisation-local group (RFC 2529
// section 6, RFC 2365 section 6.2).
const defaultScope = 192

// Hosts returns nothing: neighbour discovery finds all nodes.
func (SixOverFour) Hosts() []Host { return nil }

// Resolver returns the resolver for a site with any IPv4 address. It is an Agent and a
// Joiner.
func (m SixOverFour) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "6over4")
	if err != nil {
		return nil, err
	}
	if m.Scope == 0 {
		m.Scope = defaultScope
	}
	if m.Scope < defaultScope || m.Scope > 195 {
		return nil, fmt.Errorf("6over4: groups 239.%d.0.0/16 are not of the organisation-local scope: use 192 to 195 (RFC 2365 section 6.2)", m.Scope)
	}
	r := &sixOverFour{place: p, groups: 239<<24 | uint32(m.Scope)<<16, cache: nd.NewCache(),
		link: header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(p.local)}, onLinkAlways: []header.Prefix6{nd.LinkLocal}}
	for _, o := range at.Own {
		if o.Bits() == 64 && o.Addr().Is6() {
			r.onLinkAlways = append(r.onLinkAlways, header.NewPrefix6(o))
		}
	}
	r.InterfaceID, r.Believes = uint64(p.local), r.place.mayBeOnLink
	r.update()
	return r, nil
}

type sixOverFour struct {
	place
	groups       uint32       // the first of the IPv4 groups
	link         header.Word6 // our link-local address
	onLinkAlways []header.Prefix6
	cache        *nd.Cache
	view         atomic.Pointer[linkView]
	nd.Learner

	// Used only by the methods of Agent.

	outbox
	waiting
	inquiries
	answers  nd.Bucket // of our answers to groups
	solicits nd.Bucket // of our solicitations to groups
}

// waiting counts the packets that wait for neighbours.
type waiting struct {
	held    int             // bytes in queues
	leaving int             // those of them that are in the outbox
	flushed []*nd.Neighbour // neighbours whose packets are in the outbox
	sending []*nd.Neighbour // neighbours whose packets Next returned last
	lost    int             // packets given up since Next was called
}

// inquiries is the state of the solicitations of routers.
type inquiries struct {
	solicited int
	solicit   time.Time // do not solicit routers before this time
}

// linkView is the learnt state that To and From use. It is replaced as a whole.
type linkView struct {
	onLink, home []header.Prefix6
	router       header.Word6 // zero: none
}

func (r *sixOverFour) update() {
	v := &linkView{
		onLink: slices.Concat(r.onLinkAlways, r.OnLink()),
		home:   slices.Concat(r.onLinkAlways, r.All()),
	}
	if len(r.Routers) > 0 {
		v.router = r.Routers[0].Addr
	}
	r.view.Store(v)
}

// group returns the IPv4 group for an IPv6 group (RFC 2529 section 6).
func (r *sixOverFour) group(to header.Word6) uint32 { return r.groups | uint32(to.Lo&0xffff) }

func (r *sixOverFour) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	v := r.view.Load()
	switch {
	case header.IsMulticast(src):
		return Endpoint{}, drop.Martian
	case header.IsLinkLocal(src) && src != r.link: // neighbours could not resolve it
		return Endpoint{}, drop.Spoof
	case to == r.link, slices.Contains(r.own6, to), r.returnsTo(v.home, src), r.returnsTo(v.home, to):
		return Endpoint{}, drop.Loop
	case header.IsMulticast(to):
		return Endpoint4(r.group(to)), drop.None
	}
	next, ok := v.next(to)
	if !ok {
		return Endpoint{}, drop.NoPeer
	}
	if n := r.cache.Find(next); n != nil {
		if hop := n.Hop.Load(); hop&nd.MayPass != 0 {
			return Endpoint4(uint32(hop)), drop.None
		}
	}
	return Endpoint{}, drop.Unresolved
}

// next returns the neighbour to which a packet to an address is sent.
func (v *linkView) next(to header.Word6) (header.Word6, bool) {
	if header.Within(v.onLink, to) {
		return to, true
	}
	return v.router, v.router != header.Word6{} && !header.IsLinkLocal(to)
}

// From accepts packets that can be from a node of this link. A packet to an IPv6 group
// must come to its IPv4 group, so that a unicast packet from a remote host cannot reach
// all nodes.
func (r *sixOverFour) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	src, to, src4, dst4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4(), at.IPv4()
	home := r.view.Load().home
	switch {
	case r.mine(src4), src == r.link, slices.Contains(r.own6, src): // also our own packets to a group
		return drop.OwnSource
	case !r.reachable4(src4), header.IsMulticast(src), src == header.Word6{} && !nd.Is(inner):
		return drop.Martian
	case (header.IsMulticast(to) || dst4>>28 == 0xe) && (!header.IsMulticast(to) || dst4 != r.group(to)),
		nd.Is(inner) && inner.HopLimit() != nd.HopLimit: // it came through a router
		return drop.Spoof
	case r.returnsTo(home, src), r.returnsTo(home, to):
		return drop.Loop
	}
	return drop.None
}

// Groups returns the groups of all nodes, and the solicited-node groups of our
// addresses.
func (r *sixOverFour) Groups() []netip.Addr {
	list := []uint32{r.group(nd.AllNodes), r.group(r.link)}
	for _, o := range r.own6 {
		list = append(list, r.group(o))
	}
	slices.Sort(list) // learnt addresses have the same last bytes as our link-local one
	var out []netip.Addr
	for _, g := range slices.Compact(list) {
		out = append(out, addr4(g))
	}
	return out
}

// Wants selects neighbour discovery messages.
func (r *sixOverFour) Wants(inner []byte) bool { return nd.Is(header.IPv6(inner)) }

// Learnt returns addresses in the routers' prefixes with our identifier, the default
// route and the MTU.
func (r *sixOverFour) Learnt() Learnt { return learnt(&r.Learner) }
