package resolve

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/nd"
)

// Bounds and times of what routers tell.
const (
	maxRouters  = 16
	maxPrefixes = 16
	minMTU      = 1280  // RFC 8200 section 5
	maxMTU      = 65515 // what fits into an IPv4 packet
	// RFC 4862 section 5.5.3: an advertisement, which anybody may have forged,
	// cannot make a valid lifetime shorter than this.
	leastValid = 2 * time.Hour
)

// learner is what a host knows from router advertisements (RFC 4861 section
// 6.3.4, RFC 4862 section 5.5.3).
type learner struct {
	iid      uint64 // interface identifier
	routers  []router
	prefixes []learntPrefix
	mtu      int
}

// router is a default router, by its link-local address.
type router struct {
	addr  word6
	until time.Time
}

type learntPrefix struct {
	prefix                   netip.Prefix
	match                    prefix6
	onLink, preferred, valid time.Time
}

// hear takes an advertisement of a router.
func (l *learner) hear(m *nd.Message, from word6, now time.Time) {
	l.routers = slices.DeleteFunc(l.routers, func(r router) bool { return r.addr == from && m.Lifetime == 0 })
	if m.Lifetime > 0 {
		at := slices.IndexFunc(l.routers, func(r router) bool { return r.addr == from })
		switch {
		case at >= 0:
			l.routers[at].until = now.Add(m.Lifetime)
		case len(l.routers) < maxRouters:
			l.routers = append(l.routers, router{from, now.Add(m.Lifetime)})
		}
	}
	if m.MTU >= minMTU && m.MTU <= maxMTU {
		l.mtu = int(m.MTU)
	}
	for _, p := range m.Prefixes {
		l.hearPrefix(p, now)
	}
}

func (l *learner) hearPrefix(p nd.Prefix, now time.Time) {
	match := newPrefix6(p.Prefix)
	if isLinkLocal(match.value) || isMulticast(match.value) || p.Prefix.Bits() == 0 || p.Preferred > p.Valid {
		return
	}
	at := slices.IndexFunc(l.prefixes, func(q learntPrefix) bool { return q.match == match })
	if at < 0 {
		if p.Valid == 0 || len(l.prefixes) == maxPrefixes {
			return
		}
		at = len(l.prefixes)
		l.prefixes = append(l.prefixes, learntPrefix{prefix: p.Prefix, match: match})
	}
	q := &l.prefixes[at]
	if p.OnLink {
		q.onLink = now.Add(p.Valid)
	}
	if p.Auto && p.Prefix.Bits() == 64 {
		q.preferred = now.Add(p.Preferred)
		switch left := q.valid.Sub(now); {
		case q.valid.IsZero(), p.Valid > leastValid, p.Valid > left:
			q.valid = now.Add(p.Valid)
		case left > leastValid:
			q.valid = now.Add(leastValid)
		}
	}
}

// expire forgets what has lived its time, and says when there is something to
// forget next; zero: never.
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

// failed puts a router that does not answer behind the others.
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

// all are the prefixes that are on this link, whether or not one may send into
// them directly.
func (l *learner) all() (out []prefix6) {
	for _, q := range l.prefixes {
		out = append(out, q.match)
	}
	return out
}

// has reports whether an address was made from a learnt prefix.
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

// earlier is the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// outbox is what a Speaker wants to send. It is bounded: what others ask for, and
// does not fit, they ask for again.
type outbox struct{ list []Message }

const maxOutbox = 256

func (o *outbox) put(to uint32, packet []byte) {
	if len(o.list) < maxOutbox {
		o.list = append(o.list, Message{to, packet})
	}
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
