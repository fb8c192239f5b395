package resolve

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/nd"
)

// Bounds and times for router advertisements.
const (
	maxRouters  = 16
	maxPrefixes = 16
	minMTU      = 1280  // RFC 8200 section 5
	maxMTU      = 65515 // the largest payload of an IPv4 packet
	// RFC 4862 section 5.5.3: an advertisement may be forged, so it cannot make a valid
	// lifetime shorter than this.
	leastValid = 2 * time.Hour
)

// Advertisements may be forged, and forgeries may be so many that they leave no room for
// real ones. If there are too many entries, an entry without a second advertisement, at
// least confirmedAfter later, keeps its place for no longer than that. An entry with one
// keeps it for longer than a router is ever silent: MaxRtrAdvInterval is at most half an
// hour (RFC 4861 section 6.2.1), and routers of ISATAP are asked at least every
// maxRefresh.
const (
	confirmedAfter = 10 * time.Second
	confirmedFor   = maxRefresh + confirmedAfter
)

// heardOf is when an entry was first and last advertised.
type heardOf struct{ first, last time.Time }

// again records a further advertisement.
func (h *heardOf) again(now time.Time) {
	if h.first.IsZero() {
		h.first = now
	}
	h.last = now
}

// mayGo reports whether the entry may be replaced by a new one.
func (h *heardOf) mayGo(now time.Time) bool {
	if h.last.Sub(h.first) >= confirmedAfter {
		return now.Sub(h.last) >= confirmedFor
	}
	return now.Sub(h.last) >= confirmedAfter
}

// withRoom makes room for another entry in a list that may have most entries. If the
// list is full, it removes the entry that was not advertised for the longest time, of
// those that may be replaced. If there are none, the list stays full.
func withRoom[T any](list []T, most int, now time.Time, heard func(*T) *heardOf) []T {
	if len(list) < most {
		return list
	}
	gone := -1
	for i := range list {
		h := heard(&list[i])
		if h.mayGo(now) && (gone < 0 || h.last.Before(heard(&list[gone]).last)) {
			gone = i
		}
	}
	if gone < 0 {
		return list
	}
	return slices.Delete(list, gone, gone+1)
}

// learner holds what a host knows from router advertisements (RFC 4861 section 6.3.4,
// RFC 4862 section 5.5.3).
type learner struct {
	at       *place // nil: every prefix is accepted
	iid      uint64 // interface identifier
	routers  []router
	prefixes []learntPrefix
	mtu      int
}

// router is a default router, identified by its link-local address.
type router struct {
	addr  word6
	until time.Time
	heard heardOf
}

type learntPrefix struct {
	prefix                   netip.Prefix
	match                    prefix6
	onLink, preferred, valid time.Time
	heard                    heardOf
}

// hear handles a router advertisement.
func (l *learner) hear(m *nd.Message, from word6, now time.Time) {
	l.routers = slices.DeleteFunc(l.routers, func(r router) bool { return r.addr == from && m.Lifetime == 0 })
	if m.Lifetime > 0 {
		l.hearRouter(from, m.Lifetime, now)
	}
	if m.MTU >= minMTU && m.MTU <= maxMTU {
		l.mtu = int(m.MTU)
	}
	for _, p := range m.Prefixes {
		l.hearPrefix(p, now)
	}
}

func (l *learner) hearRouter(from word6, lifetime time.Duration, now time.Time) {
	at := slices.IndexFunc(l.routers, func(r router) bool { return r.addr == from })
	if at < 0 {
		l.routers = withRoom(l.routers, maxRouters, now, func(r *router) *heardOf { return &r.heard })
		if at = len(l.routers); at == maxRouters {
			return
		}
		l.routers = append(l.routers, router{addr: from})
	}
	l.routers[at].until = now.Add(lifetime)
	l.routers[at].heard.again(now)
}

// believes reports whether a router may announce that a prefix is on this link. The
// prefix must have 64 bits, because interface identifiers have 64 bits (RFC 2529 section
// 4, RFC 5214 section 6.1). It must not be a prefix of this host's own addresses of
// other mechanisms, because the checks of RFC 6324 let destinations on this link pass,
// and not a subnet of another link.
func (l *learner) believes(p netip.Prefix, match prefix6) bool {
	switch a := match.value; {
	case p.Bits() != 64, a.hi == 0, isLinkLocal(a), isMulticast(a), isTeredo(a):
		return false
	case l.at == nil:
		return true
	default:
		return (!is6to4(a) || !l.at.mine(v4of6to4(a))) && !within(l.at.delegated, a) && !within(l.at.elsewhere, a)
	}
}

func (l *learner) hearPrefix(p nd.Prefix, now time.Time) {
	match := newPrefix6(p.Prefix)
	if p.Preferred > p.Valid || !l.believes(p.Prefix, match) {
		return
	}
	at := slices.IndexFunc(l.prefixes, func(q learntPrefix) bool { return q.match == match })
	if at < 0 {
		if p.Valid == 0 {
			return
		}
		l.prefixes = withRoom(l.prefixes, maxPrefixes, now, func(q *learntPrefix) *heardOf { return &q.heard })
		if at = len(l.prefixes); at == maxPrefixes {
			return
		}
		l.prefixes = append(l.prefixes, learntPrefix{prefix: p.Prefix, match: match})
	}
	q := &l.prefixes[at]
	q.heard.again(now)
	if p.OnLink {
		q.onLink = now.Add(p.Valid)
	}
	if p.Auto {
		q.preferred = now.Add(p.Preferred)
		switch left := q.valid.Sub(now); {
		case q.valid.IsZero(), p.Valid > leastValid, p.Valid > left:
			q.valid = now.Add(p.Valid)
		case left > leastValid:
			q.valid = now.Add(leastValid)
		}
	}
}

// expire removes what has expired. Next is when something expires next; zero means
// never.
func (l *learner) expire(now time.Time) (changed bool, next time.Time) {
	routers, prefixes := len(l.routers), len(l.prefixes)
	l.routers = slices.DeleteFunc(l.routers, func(r router) bool { return !r.until.After(now) })
	for i := range l.prefixes {
		q := &l.prefixes[i]
		if !q.onLink.IsZero() && !q.onLink.After(now) {
			q.onLink, changed = time.Time{}, true
		}
		if !q.valid.IsZero() && !q.valid.After(now) {
			q.valid, changed = time.Time{}, true
		}
	}
	l.prefixes = slices.DeleteFunc(l.prefixes, func(q learntPrefix) bool { return q.onLink.IsZero() && q.valid.IsZero() })
	for _, r := range l.routers {
		next = earlier(next, r.until)
	}
	for _, q := range l.prefixes {
		next = earlier(earlier(next, q.valid), q.onLink)
	}
	return changed || len(l.routers) != routers || len(l.prefixes) != prefixes, next
}

// failed moves a router that does not answer after the others.
func (l *learner) failed(addr word6) {
	if at := slices.IndexFunc(l.routers, func(r router) bool { return r.addr == addr }); at >= 0 {
		r := l.routers[at]
		l.routers = append(slices.Delete(l.routers, at, at+1), r)
	}
}

func (l *learner) onLink() (out []prefix6) {
	for _, q := range l.prefixes {
		if !q.onLink.IsZero() {
			out = append(out, q.match)
		}
	}
	return out
}

// all returns the prefixes that are on this link, with or without the on-link flag.
func (l *learner) all() (out []prefix6) {
	for _, q := range l.prefixes {
		out = append(out, q.match)
	}
	return out
}

// has reports whether an address was formed from a learnt prefix.
func (l *learner) has(a word6) bool {
	return a.lo == l.iid && slices.ContainsFunc(l.prefixes, func(q learntPrefix) bool {
		return !q.valid.IsZero() && q.match.value.hi == a.hi
	})
}

func (l *learner) learnt() Learnt {
	out := Learnt{MTU: l.mtu, Link: netip.PrefixFrom(word6{linkLocal.value.hi, l.iid}.addr(), 64)}
	for _, r := range l.routers {
		if r.until.After(out.Default) {
			out.Default = r.until
		}
	}
	for _, q := range l.prefixes {
		if !q.valid.IsZero() {
			a := word6{q.match.value.hi, l.iid}.addr()
			out.Addresses = append(out.Addresses, Lease{netip.PrefixFrom(a, 64), q.preferred, q.valid})
		}
	}
	return out
}

// earlier returns the earlier of two times. Zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// outbox holds the messages that an Agent has to send. It is bounded: an answer that
// does not fit is dropped, and the node that asked asks again.
type outbox struct{ list []Message }

const maxOutbox = 256

// put reports whether there was room for the message.
func (o *outbox) put(to uint32, packet []byte) bool {
	if len(o.list) >= maxOutbox {
		return false
	}
	o.list = append(o.list, Message{To: Endpoint4(to), Bytes: packet})
	return true
}

func (o *outbox) take() []Message {
	out := o.list
	o.list = nil
	return out
}

var (
	linkLocal  = prefix6{word6{hi: 0xfe80 << 48}, word6{hi: ^uint64(0)}} // fe80::/64
	allNodes   = word6{0xff02 << 48, 1}
	allRouters = word6{0xff02 << 48, 2}
)
