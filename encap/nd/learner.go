package nd

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/header"
)

// Bounds and times for router advertisements.
const (
	MaxRouters  = 16    // that a Learner keeps
	MaxPrefixes = 16    // that a Learner keeps
	minMTU      = 1280  // RFC 8200 section 5
	maxMTU      = 65515 // the largest payload of an IPv4 packet
	// RFC 4862 section 5.5.3: an advertisement may be forged, so it cannot make a valid
	// lifetime shorter than this.
	leastValid = 2 * time.Hour
)

// Advertisements may be forged, and forgeries may be so many that they leave no room for
// real ones. If there are too many entries, an entry without a second advertisement, at
// least ConfirmedAfter later, keeps its place for no longer than that. An entry with one
// keeps it for longer than a router is ever silent: MaxRtrAdvInterval is at most half an
// hour (RFC 4861 section 6.2.1), and routers of ISATAP are asked at least every
// MaxRefresh.
const (
	ConfirmedAfter = 10 * time.Second
	confirmedFor   = MaxRefresh + ConfirmedAfter
)

// advertised is when an entry was first and last advertised.
type advertised struct{ first, last time.Time }

// again records a further advertisement.
func (h *advertised) again(now time.Time) {
	if h.first.IsZero() {
		h.first = now
	}
	h.last = now
}

// mayGo reports whether the entry may be replaced by a new one.
func (h *advertised) mayGo(now time.Time) bool {
	if h.last.Sub(h.first) >= ConfirmedAfter {
		return now.Sub(h.last) >= confirmedFor
	}
	return now.Sub(h.last) >= ConfirmedAfter
}

// withRoom makes room for another entry in a list that may have most entries. If the
// list is full, it removes the entry that was not advertised for the longest time, of
// those that may be replaced. If there are none, the list stays full.
func withRoom[T any](list []T, most int, now time.Time, times func(*T) *advertised) []T {
	if len(list) < most {
		return list
	}
	gone := -1
	for i := range list {
		h := times(&list[i])
		if h.mayGo(now) && (gone < 0 || h.last.Before(times(&list[gone]).last)) {
			gone = i
		}
	}
	if gone < 0 {
		return list
	}
	return slices.Delete(list, gone, gone+1)
}

// Learner holds what a host has learnt from router advertisements (RFC 4861 section 6.3.4,
// RFC 4862 section 5.5.3). The zero value is ready to use. It is not safe for concurrent use.
type Learner struct {
	// Believes reports whether a router may announce that a prefix of 64 bits is on this
	// link; nil: it may announce every prefix that can be on one.
	Believes    func(a header.Word6) bool
	InterfaceID uint64         // the lower half of our addresses in the learnt prefixes
	Routers     []Router       // the default router first
	Prefixes    []LearntPrefix // without those that have expired
	MTU         int            // of the link; 0: not advertised
}

// Router is a default router, identified by its link-local address.
type Router struct {
	Addr  header.Word6
	Until time.Time // when its lifetime ends
	times advertised
}

// LastAdvertised returns when the router last advertised itself.
func (r *Router) LastAdvertised() time.Time { return r.times.last }

// LearntPrefix is a prefix that a router advertised. Zero times are those of what it is not
// used for.
type LearntPrefix struct {
	Prefix           netip.Prefix
	Match            header.Prefix6 // the same prefix
	Preferred, Valid time.Time      // when the lifetimes of addresses in it end
	onLink           time.Time      // when it is no longer on this link
	times            advertised
}

// Advertised handles a router advertisement from a link-local address.
func (l *Learner) Advertised(m *Message, from header.Word6, now time.Time) {
	l.Routers = slices.DeleteFunc(l.Routers, func(r Router) bool { return r.Addr == from && m.Lifetime == 0 })
	if m.Lifetime > 0 {
		l.addRouter(from, m.Lifetime, now)
	}
	if m.MTU >= minMTU && m.MTU <= maxMTU {
		l.MTU = int(m.MTU)
	}
	for _, p := range m.Prefixes {
		l.addPrefix(p, now)
	}
}

func (l *Learner) addRouter(from header.Word6, lifetime time.Duration, now time.Time) {
	at := slices.IndexFunc(l.Routers, func(r Router) bool { return r.Addr == from })
	if at < 0 {
		l.Routers = withRoom(l.Routers, MaxRouters, now, func(r *Router) *advertised { return &r.times })
		if at = len(l.Routers); at == MaxRouters {
			return
		}
		l.Routers = append(l.Routers, Router{Addr: from})
	}
	l.Routers[at].Until = now.Add(lifetime)
	l.Routers[at].times.again(now)
}

// accepts reports whether a prefix may be on this link. The prefix must have 64 bits,
// because interface identifiers have 64 bits (RFC 2529 section 4, RFC 5214 section 6.1).
func (l *Learner) accepts(p netip.Prefix, a header.Word6) bool {
	const teredo = 0x20010000 // 2001::/32 has IPv4 addresses of its own in it (RFC 4380)
	return p.Bits() == 64 && a.Hi != 0 && a.Hi>>32 != teredo && !header.IsLinkLocal(a) && !header.IsMulticast(a) && (l.Believes == nil || l.Believes(a))
}

func (l *Learner) addPrefix(p Prefix, now time.Time) {
	match := header.NewPrefix6(p.Prefix)
	if p.Preferred > p.Valid || !l.accepts(p.Prefix, match.Value) {
		return
	}
	at := slices.IndexFunc(l.Prefixes, func(q LearntPrefix) bool { return q.Match == match })
	if at < 0 {
		if p.Valid == 0 {
			return
		}
		l.Prefixes = withRoom(l.Prefixes, MaxPrefixes, now, func(q *LearntPrefix) *advertised { return &q.times })
		if at = len(l.Prefixes); at == MaxPrefixes {
			return
		}
		l.Prefixes = append(l.Prefixes, LearntPrefix{Prefix: p.Prefix, Match: match})
	}
	q := &l.Prefixes[at]
	q.times.again(now)
	if p.OnLink {
		q.onLink = now.Add(p.Valid)
	}
	if p.Auto {
		q.Preferred = now.Add(p.Preferred)
		switch left := q.Valid.Sub(now); {
		case q.Valid.IsZero(), p.Valid > leastValid, p.Valid > left:
			q.Valid = now.Add(p.Valid)
		case left > leastValid:
			q.Valid = now.Add(leastValid)
		}
	}
}

// Expire removes what has expired. Next is when something expires next; zero means
// never.
func (l *Learner) Expire(now time.Time) (changed bool, next time.Time) {
	routers, prefixes := len(l.Routers), len(l.Prefixes)
	l.Routers = slices.DeleteFunc(l.Routers, func(r Router) bool { return !r.Until.After(now) })
	for i := range l.Prefixes {
		q := &l.Prefixes[i]
		if !q.onLink.IsZero() && !q.onLink.After(now) {
			q.onLink, changed = time.Time{}, true
		}
		if !q.Valid.IsZero() && !q.Valid.After(now) {
			q.Valid, changed = time.Time{}, true
		}
	}
	l.Prefixes = slices.DeleteFunc(l.Prefixes, func(q LearntPrefix) bool { return q.onLink.IsZero() && q.Valid.IsZero() })
	for _, r := range l.Routers {
		next = Earlier(next, r.Until)
	}
	for _, q := range l.Prefixes {
		next = Earlier(Earlier(next, q.Valid), q.onLink)
	}
	return changed || len(l.Routers) != routers || len(l.Prefixes) != prefixes, next
}

// Failed moves a router that does not answer after the others.
func (l *Learner) Failed(addr header.Word6) {
	if at := slices.IndexFunc(l.Routers, func(r Router) bool { return r.Addr == addr }); at >= 0 {
		r := l.Routers[at]
		l.Routers = append(slices.Delete(l.Routers, at, at+1), r)
	}
}

// OnLink returns the prefixes whose addresses are neighbours on this link.
func (l *Learner) OnLink() (out []header.Prefix6) {
	for _, q := range l.Prefixes {
		if !q.onLink.IsZero() {
			out = append(out, q.Match)
		}
	}
	return out
}

// All returns the prefixes that are on this link, with or without the on-link flag.
func (l *Learner) All() (out []header.Prefix6) {
	for _, q := range l.Prefixes {
		out = append(out, q.Match)
	}
	return out
}

// Has reports whether an address was formed from a learnt prefix.
func (l *Learner) Has(a header.Word6) bool {
	return a.Lo == l.InterfaceID && slices.ContainsFunc(l.Prefixes, func(q LearntPrefix) bool {
		return !q.Valid.IsZero() && q.Match.Value.Hi == a.Hi
	})
}

// Earlier returns the earlier of two times. Zero means never.
func Earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// MaxRefresh is how long a host waits at most before it solicits a router again that has
// advertised itself.
const MaxRefresh = time.Hour

// The prefix of link-local addresses with 64 bits, and the groups of all nodes and of all
// routers on a link (RFC 4291).
var (
	LinkLocal  = header.Prefix6{Value: header.Word6{Hi: 0xfe80 << 48}, Mask: header.Word6{Hi: ^uint64(0)}} // fe80::/64
	AllNodes   = header.Word6{Hi: 0xff02 << 48, Lo: 1}
	AllRouters = header.Word6{Hi: 0xff02 << 48, Lo: 2}
)
