package resolve

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// Counts and times for router solicitations.
const (
	solicitations   = 3                 // MAX_RTR_SOLICITATIONS (RFC 4861 section 10)
	solicitInterval = 4 * time.Second   // RTR_SOLICITATION_INTERVAL
	minRefresh      = 120 * time.Second // MinRouterSolicitInterval (RFC 5214 section 9)
)

// isatapHost is the resolver of a host that solicits the routers on its list.
type isatapHost struct {
	*isatap
	ask []inquiry
}

// inquiry is the state of the solicitations to one router: when the next one is due, and
// how many were sent since its last answer.
type inquiry struct {
	router uint32
	next   time.Time
	tries  int
}

// From follows RFC 5214 section 7.3: the inner source embeds the outer source, or the
// outer source is a router on the list.
func (h *isatapHost) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	if why := h.arrives(from, inner); why != drop.None {
		return why
	}
	src, src4 := header.ReadWord6(inner.Source()), from.IPv4()
	switch {
	case isISATAP(src) && uint32(src.Lo) == src4, slices.Contains(h.prl, src4) && !header.IsLinkLocal(src):
		return drop.None
	case isISATAP(src), header.IsLinkLocal(src): // also from a router, because routers forward no link-local packets
		return drop.Spoof
	}
	return drop.ForeignSource
}

// Receive learns from advertisements of routers on the list, from their link-local ISATAP
// address (RFC 5214 section 8.3.2), and answers neighbours.
func (h *isatapHost) Receive(o header.Outer, inner []byte, now time.Time) bool {
	from, ip := source4(o), header.IPv6(inner)
	if !nd.Is(ip) {
		return false
	}
	m, ok := nd.Parse(ip)
	if !ok {
		return true
	}
	switch m.Type {
	case nd.NeighborSolicitation:
		h.answerNeighbor(from, ip, &m, false)
	case nd.RouterAdvertisement:
		src := header.ReadWord6(ip.Source())
		at := slices.IndexFunc(h.ask, func(q inquiry) bool { return q.router == from })
		if at >= 0 && nd.LinkLocal.Contains(src) && isISATAP(src) && uint32(src.Lo) == from {
			h.Advertised(&m, header.Word6{Hi: src.Hi, Lo: src.Lo &^ (universal << 32)}, now)
			h.ask[at] = inquiry{router: from, next: now.Add(refreshIn(&m))}
			h.update()
		}
	}
	return true
}

// refreshIn returns after what time a router is solicited again: well before the first
// of its lifetimes ends.
func refreshIn(m *nd.Message) time.Duration {
	least := 4 * nd.MaxRefresh / 3
	if m.Lifetime > 0 {
		least = min(least, m.Lifetime)
	}
	for _, p := range m.Prefixes {
		if p.Valid > 0 {
			least = min(least, p.Valid)
		}
		if p.Preferred > 0 {
			least = min(least, p.Preferred)
		}
	}
	return max(least*3/4, minRefresh)
}

// Next solicits each router: three times, four seconds apart, if it does not answer, and
// again later.
func (h *isatapHost) Next(now time.Time) (send []Message, lost int, again time.Time) {
	changed, again := h.Expire(now)
	if changed {
		h.update()
	}
	for i := range h.ask {
		q := &h.ask[i]
		if !q.next.After(now) {
			h.put(q.router, nd.Append(nil, isatapLocal(h.local).Addr(), isatapLocal(q.router).Addr(), &nd.Message{Type: nd.RouterSolicitation}))
			q.tries++
			q.next = now.Add(solicitInterval)
			if q.tries == solicitations {
				q.tries, q.next = 0, now.Add(minRefresh)
			}
		}
		again = nd.Earlier(again, q.next)
	}
	return h.take(), 0, again
}

// Learnt returns addresses in the routers' prefixes with our identifier, the default
// route and the MTU.
func (h *isatapHost) Learnt() Learnt { return learnt(&h.Learner) }

// Entries returns the routers on the list: those that advertise themselves are "router", and
// the others are "silent".
func (h *isatapHost) Entries(now time.Time) (list []Entry) {
	for _, q := range h.ask {
		e := Entry{Node: isatapLocal(q.router).Addr(), Link: netip.AddrPortFrom(addr4(q.router), 0), State: "silent"}
		for _, r := range h.Routers {
			if uint32(r.Addr.Lo) == q.router {
				e.State, e.Age = "router", now.Sub(r.LastAdvertised())
			}
		}
		list = append(list, e)
	}
	return list
}
