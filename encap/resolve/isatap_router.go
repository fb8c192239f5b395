package resolve

import (
	"net/netip"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// Values that a router advertises.
const (
	routerLifetime     = 30 * time.Minute // AdvDefaultLifetime (RFC 4861 section 6.2.1)
	prefixValid        = 2 * time.Hour
	prefixPreferred    = time.Hour
	advertisedMTU      = 1280
	advertisedHopLimit = 64
)

// isatapRouter is the resolver of a router. It sends advertisements only as answers to
// solicitations.
type isatapRouter struct {
	*isatap
	prefixes []netip.Prefix
}

// From requires that the inner source embeds the outer source, and that its prefix is
// one that we advertise (RFC 6324 section 3.1).
func (r *isatapRouter) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	if why := r.arrives(from, inner); why != drop.None {
		return why
	}
	switch src := header.ReadWord6(inner.Source()); {
	case !isISATAP(src):
		return drop.ForeignSource
	case uint32(src.Lo) != from.IPv4(), !header.Within(r.advertised, src):
		return drop.Spoof
	}
	return drop.None
}

// Receive answers solicitations.
func (r *isatapRouter) Receive(o header.Outer, inner []byte, _ time.Time) bool {
	from, ip := source4(o), header.IPv6(inner)
	if !nd.Is(ip) {
		return false
	}
	m, ok := nd.Parse(ip)
	if !ok {
		return true
	}
	switch to := header.ReadWord6(ip.Dest()); m.Type {
	case nd.NeighborSolicitation:
		r.answerNeighbor(from, ip, &m, true)
	case nd.RouterSolicitation:
		if (r.ours(to) || to == nd.AllRouters) && nd.LinkLocal.Contains(header.ReadWord6(ip.Source())) {
			r.put(from, nd.Append(nil, isatapLocal(r.local).Addr(), ip.Src(), r.advertisement()))
		}
	}
	return true
}

// advertisement returns an advertisement with A=1, L=0: hosts form addresses from the
// prefixes, and reach addresses in them by the interface identifier or through us.
func (r *isatapRouter) advertisement() *nd.Message {
	m := &nd.Message{Type: nd.RouterAdvertisement, HopLimit: advertisedHopLimit, Lifetime: routerLifetime, MTU: advertisedMTU}
	for _, p := range r.prefixes {
		m.Prefixes = append(m.Prefixes, nd.Prefix{Prefix: p.Masked(), Auto: true, Valid: prefixValid, Preferred: prefixPreferred})
	}
	return m
}

// Next returns the answers to solicitations.
func (r *isatapRouter) Next(time.Time) ([]Message, int, time.Time) {
	return r.take(), 0, time.Time{}
}

// Learnt returns only the link-local address: a router learns no prefixes.
func (r *isatapRouter) Learnt() Learnt { return Learnt{Link: learnt(&r.Learner).Link} }

// Entries returns nothing: a router keeps no state of its hosts.
func (r *isatapRouter) Entries(time.Time) []Entry { return nil }
