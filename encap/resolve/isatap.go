package resolve

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// ISATAP makes a site's IPv4 network one IPv6 link (RFC 5214). The interface identifier
// of a node is [02]00:5efe:V4ADDR, so nodes with a common prefix reach each other
// directly. Routers advertise the prefix and the default route. Hosts solicit them by
// unicast, because there is no multicast, and accept advertisements only from routers on
// their potential router list. Link-local packets of every protocol are carried between
// two link-local addresses (RFC 5214 section 6.2). Packets with only one link-local
// address are carried only for neighbour discovery; others are drop.Martian. There is no
// multicast: it is drop.NoPeer when sent, drop.Martian when received. Any node inside
// the site can forge packets: the site's border must drop protocol 41.
type ISATAP struct {
	Routers  []Host         // for a host: the potential router list
	Router   bool           // advertises Prefixes when solicited
	Prefixes []netip.Prefix // for a router: /64 each
}

// Hosts returns the potential router list.
func (m ISATAP) Hosts() []Host { return m.Routers }

// Resolver returns the resolver for a site with any IPv4 address. It is an Agent.
func (m ISATAP) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "isatap")
	if err != nil {
		return nil, err
	}
	switch {
	case m.Router && len(m.Prefixes) == 0:
		return nil, errors.New("isatap: a router must advertise something: set prefix to a /64")
	case m.Router && len(m.Routers) > 0:
		return nil, errors.New("isatap: a router does not ask other routers: leave out routers, or router = true")
	case !m.Router && len(m.Prefixes) > 0:
		return nil, errors.New("isatap: only a router advertises prefixes: set router = true, or put an address on the interface")
	}
	for _, q := range m.Prefixes {
		if q.Bits() != 64 || !q.Addr().Is6() {
			return nil, errors.New("isatap: prefix " + q.String() + ": hosts make addresses only from IPv6 prefixes of 64 bits (RFC 4862 section 5.5.3)")
		}
	}
	i := &isatap{place: p, prl: p.outer4(m.Routers, at), advertised: append(header.Prefixes6(m.Prefixes), nd.LinkLocal),
		static: slices.Concat([]header.Prefix6{nd.LinkLocal}, header.Prefixes6(at.Own), header.Prefixes6(m.Prefixes))}
	i.InterfaceID, i.Believes = isatapID(p.local), i.place.mayBeOnLink
	i.update()
	if m.Router {
		return &isatapRouter{isatap: i, prefixes: m.Prefixes}, nil
	}
	h := &isatapHost{isatap: i}
	for _, r := range h.prl {
		h.ask = append(h.ask, inquiry{router: r})
	}
	return h, nil
}

// isatapID returns the interface identifier of a node (RFC 5214 section 6.1).
func isatapID(v4 uint32) uint64 {
	id := uint64(0x5efe)<<32 | uint64(v4)
	if !Martian4(v4, false) {
		id |= universal << 32
	}
	return id
}

func isatapLocal(v4 uint32) header.Word6 {
	return header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: isatapID(v4)}
}

// isatap is the part that hosts and routers have in common.
type isatap struct {
	place
	prl        []uint32
	advertised []header.Prefix6 // for a router: the sources that it accepts
	static     []header.Prefix6 // on-link regardless of advertisements
	view       atomic.Pointer[isatapView]
	nd.Learner

	// Used only by the methods of Agent.

	outbox
}

// isatapView is the learnt state that To and From use. It is replaced as a whole.
type isatapView struct {
	onLink, home []header.Prefix6
	router       uint32 // 0: none
}

// update publishes a new view.
func (r *isatap) update() {
	v := &isatapView{
		onLink: slices.Concat(r.static, r.OnLink()),
		home:   slices.Concat(r.static, r.All()),
	}
	if len(r.prl) > 0 {
		v.router = r.prl[0]
	}
	for _, a := range r.prl {
		if slices.ContainsFunc(r.Routers, func(q nd.Router) bool { return uint32(q.Addr.Lo) == a }) {
			v.router = a
			break
		}
	}
	r.view.Store(v)
}

// site4 reports whether an address can be that of a node of the site. Private addresses
// can.
func (r *isatap) site4(a uint32) bool {
	return r.reachable4(a) && (private4(a) || !Martian4(a, r.strict))
}

func (r *isatap) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	v := r.view.Load()
	switch {
	case header.IsMulticast(to):
		return Endpoint{}, drop.NoPeer
	case header.IsLinkLocal(src) != header.IsLinkLocal(to) && !nd.Is(ip): // an answer could not be sent
		return Endpoint{}, drop.Martian
	}
	dst := v.router
	if isISATAP(to) && header.Within(v.onLink, to) {
		dst = uint32(to.Lo)
	} else if header.IsLinkLocal(to) {
		dst = 0
	}
	switch {
	case dst == 0:
		return Endpoint{}, drop.NoPeer
	case !r.site4(dst):
		return Endpoint{}, drop.Martian
	case r.mine(dst), r.returnsTo(v.home, src), r.returnsTo(v.home, to):
		return Endpoint{}, drop.Loop
	}
	return Endpoint4(dst), drop.None
}

// arrives does the checks that hosts and routers have in common, RFC 6324 section 3.1
// last.
func (r *isatap) arrives(from Endpoint, inner header.IPv6) drop.Reason {
	src, to, src4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4()
	home := r.view.Load().home
	switch {
	case !r.site4(src4), header.IsMulticast(src), header.IsMulticast(to) && to != nd.AllRouters, (header.IsLinkLocal(src) != header.IsLinkLocal(to) || to == nd.AllRouters) && !nd.Is(inner):
		return drop.Martian
	case isISATAP(src) && r.mine(uint32(src.Lo)) && header.Within(home, src), slices.Contains(r.own6, src):
		return drop.OwnSource
	case r.mine(src4):
		return drop.Spoof
	case r.returnsTo(home, src), r.returnsTo(home, to):
		return drop.Loop
	}
	return drop.None
}

// Wants selects neighbour discovery messages.
func (r *isatap) Wants(inner []byte) bool { return nd.Is(header.IPv6(inner)) }

// Hold keeps nothing, because every address is known at once.
func (r *isatap) Hold([]byte, time.Time) bool { return false }

// ours reports whether an address is one of this node. ISATAP addresses may have the u
// bit set or clear.
func (r *isatap) ours(a header.Word6) bool {
	return slices.Contains(r.own6, a) || r.Has(a) ||
		a.Hi == nd.LinkLocal.Value.Hi && isISATAP(a) && uint32(a.Lo) == r.local
}

// answerNeighbor confirms that we are reachable to a node that asks (RFC 5214 section
// 8.3.3). It sends no link-layer address, which is embedded in the address.
func (r *isatap) answerNeighbor(from uint32, ip header.IPv6, m *nd.Message, isRouter bool) {
	t := m.Target.As16()
	if r.ours(header.ReadWord6(t[:])) && !ip.Src().IsUnspecified() {
		r.put(from, nd.Append(nil, m.Target, ip.Src(), &nd.Message{
			Type: nd.NeighborAdvertisement, Target: m.Target, Router: isRouter, Solicited: true}))
	}
}
