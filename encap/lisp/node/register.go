package node

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// Times of registrations (RFC 9301 section 8.2).
const (
	registerEvery = time.Minute
	registerSoon  = 20 * time.Second // in the first five minutes
	soonFor       = 5 * time.Minute
	registerRetry = time.Second // doubles while no answer comes
	registeredFor = 3 * registerEvery
)

// registration is that of the site at one map server.
type registration struct {
	at     netip.Addr
	nonce  uint64
	tries  int // since the last answer
	next   time.Time
	begun  time.Time
	acked  time.Time // when it was last confirmed
	wrong  bool      // the last answer had no valid authentication data
	missed bool      // some prefixes were not confirmed
}

// registrations are those of the site at all map servers.
type registrations struct {
	servers []*registration
	nonces  nonces
}

// nonces gives the nonces of registrations, which must increase for ever (RFC 9301 section 5.6). A
// counter makes them do so after a restart with a clock that goes back. They begin with the time, in
// microseconds, in case the counter is lost.
type nonces struct {
	counters resolve.Counters // nil: there is only the time
	last     uint64
	left     uint64 // how many after the last one are reserved
}

// nonceBlock is how many nonces are reserved at once, so that the disk is seldom written.
const nonceBlock = 1 << 16

// another returns the next nonce. File is that of the counter.
func (n *nonces) another(file string, now time.Time) uint64 {
	least := max(n.last+1, uint64(now.UnixMicro()))
	switch {
	case n.counters == nil:
		n.last = least
	case n.left > 0:
		n.last, n.left = n.last+1, n.left-1
	default:
		n.last, n.left = n.counters.Reserve(file, least, nonceBlock), nonceBlock-1
	}
	return n.last
}

// register sends the registrations that are due.
func (r *router) register(now time.Time) {
	if r.Key.secret == "" {
		return
	}
	for _, s := range r.servers {
		if s.next.After(now) {
			continue
		}
		if s.begun.IsZero() {
			s.begun = now
		}
		s.nonce = r.nonces.another(r.NonceFile, now)
		m := &lisp.Registration{
			Type: lisp.TypeRegister, Proxy: r.Answers, WantNotify: true, Nonce: s.nonce,
			Algorithm: r.Key.Algorithm, Records: r.records(netip.Addr{}),
		}
		r.control(netip.AddrPortFrom(s.at, lisp.ControlPort), m.Append(nil, []byte(r.Key.secret), false))
		s.next = now.Add(min(registerRetry<<min(s.tries, 6), registerEvery))
		s.tries++
	}
}

// notified handles a Map-Notify, which confirms a registration.
func (r *router) notified(b []byte, from netip.Addr, now time.Time) drop.Reason {
	m, err := lisp.ParseRegistration(b)
	if err != nil {
		return drop.LyingLength
	}
	at := slices.IndexFunc(r.servers, func(s *registration) bool { return s.at == from })
	if at < 0 {
		return drop.ForeignSource
	}
	s := r.servers[at]
	if m.Nonce != s.nonce || s.tries == 0 {
		return drop.Spoof
	}
	if m.Verify(b, []byte(r.Key.secret)) != nil {
		s.wrong = true
		return drop.Unauthenticated
	}
	s.missed = false
	for _, p := range r.EIDs {
		eid := lisp.EID{Instance: r.Instance, Prefix: p}
		if !slices.ContainsFunc(m.Records, func(e lisp.Record) bool { return e.EID == eid }) {
			s.missed = true
		}
	}
	s.acked, s.tries, s.wrong = now, 0, false
	every := registerEvery
	if now.Sub(s.begun) < soonFor {
		every = registerSoon
	}
	s.next = now.Add(every)
	return drop.None
}

// state describes the registration in a word.
func (s *registration) state(now time.Time) string {
	switch {
	case s.wrong:
		return "wrong-key"
	case s.acked.IsZero() && s.tries <= 2:
		return "registering"
	case s.acked.IsZero(), now.Sub(s.acked) >= registeredFor:
		return "unregistered"
	case s.missed:
		return "partly-registered"
	}
	return "registered"
}

// entries returns the status of the registration of each prefix.
func (s *registration) entries(eids []netip.Prefix, now time.Time) (list []resolve.Entry) {
	since := s.acked
	if since.IsZero() {
		since = s.begun
	}
	if since.IsZero() {
		since = now
	}
	for _, p := range eids {
		list = append(list, resolve.Entry{Node: p.Addr(), Bits: p.Bits(), Link: netip.AddrPortFrom(s.at, lisp.ControlPort), State: s.state(now), Age: now.Sub(since)})
	}
	return list
}
