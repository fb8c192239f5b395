package mapserver

import (
	"net/netip"
	"slices"
	"sort"
	"time"

	"sixfour/encap/lisp"
)

// TTLs of replies that there is no mapping, in minutes: for prefixes of a site that are not
// registered, and for all others (RFC 9301 section 8.4).
const (
	ttlSite  = 1
	ttlOther = 15
)

// The shortest prefixes of such replies. One that is shorter would change what a router does
// with a great part of all addresses.
const (
	shortest4 = 8
	shortest6 = 16
)

// Answer returns the answer to an encapsulated Map-Request, or the message with which it is
// forwarded. Nothing is remembered of the request.
func (s *Server) Answer(b []byte, from netip.AddrPort, now time.Time) (Message, Reason) {
	m, kind, why := s.answer(b, from, now)
	if why != Served {
		s.Refuse(why)
		return Message{}, why
	}
	s.counters.served[kind].Add(1)
	return m, Served
}

func (s *Server) answer(b []byte, from netip.AddrPort, now time.Time) (Message, Count, Reason) {
	packet, err := lisp.Encapsulated(b)
	if err == lisp.ErrType {
		return Message{}, 0, Unsupported
	}
	if err != nil {
		return Message{}, 0, Malformed
	}
	asker, _, inside, err := lisp.Inside(packet)
	if err != nil {
		return Message{}, 0, Malformed
	}
	q, err := lisp.ParseRequest(inside)
	switch {
	case err == lisp.ErrType, err == lisp.ErrAddress:
		return Message{}, 0, Unsupported
	case err != nil, len(q.EIDs) == 0:
		return Message{}, 0, Malformed
	case q.Probe, q.Solicit, !q.EIDs[0].IsValid(): // the first two are for routers
		return Message{}, 0, Unsupported
	}
	record, to := s.find(q.EIDs[0], q)
	if to.IsValid() {
		return Message{netip.AddrPortFrom(to, lisp.ControlPort), b}, Forwarded, Served
	}
	back := s.returnTo(q, from.Addr())
	if !back.IsValid() || asker.Port() == 0 {
		return Message{}, 0, Unreachable
	}
	r := lisp.Reply{Nonce: q.Nonce, Records: []lisp.Record{record}}
	reply := r.Append(nil)
	if !s.budget.take(back, len(reply)-len(b), now) {
		return Message{}, 0, TooLarge
	}
	kind := Replied
	if len(record.Locators) == 0 {
		kind = NoMapping
	}
	return Message{netip.AddrPortFrom(back, asker.Port()), reply}, kind, Served
}

// returnTo returns the locator of the asking router to which the reply goes: that from which the
// request came, if it is one, or the first to which messages can be sent.
func (s *Server) returnTo(q *lisp.Request, from netip.Addr) netip.Addr {
	if slices.Contains(q.Locators, from) && s.Sends(from) {
		return from
	}
	for _, a := range q.Locators {
		if a.IsValid() && s.Sends(a) {
			return a
		}
	}
	return netip.Addr{}
}

// find returns the record for an EID, or the locator to which the request is forwarded.
func (s *Server) find(e lisp.EID, q *lisp.Request) (lisp.Record, netip.Addr) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.spaces[e.Instance]
	if p == nil {
		p = new(space)
	}
	asked := e.Prefix
	at := p.lookup(asked)
	if p.has(asked, at.bits) { // prefixes inside have other mappings: the reply is for its first address
		asked = netip.PrefixFrom(asked.Addr(), asked.Addr().BitLen())
		at = p.lookup(asked)
	}
	least := at.bits
	if least < 0 {
		least = shortest6
		if asked.Addr().Is4() {
			least = shortest4
		}
	}
	e.Prefix = p.widest(asked, least, at.bits)
	m := at.mapping
	if m == nil {
		ttl := uint32(ttlOther)
		if at.bits >= 0 {
			ttl = ttlSite
		}
		return lisp.Record{TTL: ttl, EID: e, Action: lisp.NativelyForward}, netip.Addr{}
	}
	if !m.proxy || q.Authoritative {
		if to := s.choose(m.record.Locators, q.Nonce); to.IsValid() {
			return lisp.Record{}, to
		}
	}
	r := m.record
	r.EID, r.Authoritative, r.Locators = e, false, slices.Clone(r.Locators)
	for i := range r.Locators { // they are not those of the sender, and not probed
		r.Locators[i].Flags &^= lisp.LocatorLocal | lisp.LocatorProbed
	}
	return r, netip.Addr{}
}

// choose returns the locator to which a request is forwarded: one that can be reached of those
// with the best priority, by their weights; not valid: there is none.
func (s *Server) choose(locators []lisp.Locator, nonce uint64) netip.Addr {
	const unusable = 255
	best, sum := uint8(unusable), uint64(0)
	usable := func(l *lisp.Locator) bool {
		return l.Priority != unusable && l.Flags&lisp.LocatorReachable != 0 && l.Addr.IsValid() && s.Sends(l.Addr)
	}
	for i := range locators {
		if l := &locators[i]; usable(l) && l.Priority < best {
			best, sum = l.Priority, 0
		}
		if l := &locators[i]; usable(l) && l.Priority == best {
			sum += uint64(max(l.Weight, 1))
		}
	}
	if sum == 0 {
		return netip.Addr{}
	}
	at := nonce % sum
	for i := range locators {
		if l := &locators[i]; usable(l) && l.Priority == best {
			if w := uint64(max(l.Weight, 1)); at < w {
				return l.Addr
			} else {
				at -= w
			}
		}
	}
	return netip.Addr{}
}

// match is the longest prefix of a space that an EID is in.
type match struct {
	bits    int      // its length; -1: there is none
	mapping *mapping // nil: it is not registered
}

func (p *space) lookup(asked netip.Prefix) match {
	m := match{bits: -1}
	if at, _, ok := p.sites.LookupPrefixLPM(asked); ok {
		m.bits = at.Bits()
	}
	if at, found, ok := p.mappings.LookupPrefixLPM(asked); ok && at.Bits() >= m.bits {
		m = match{at.Bits(), found}
	}
	return m
}

// has reports whether there are prefixes of sites or mappings in a prefix, or the same, that
// are longer than so many bits.
func (p *space) has(in netip.Prefix, bits int) bool {
	for o := range p.sites.Subnets(in) {
		if o.Bits() > bits {
			return true
		}
	}
	for o := range p.mappings.Subnets(in) {
		if o.Bits() > bits {
			return true
		}
	}
	return false
}

// widest returns the shortest prefix of at least so many bits in which the asked one is, and in
// which everything has the same mapping as that: a router would use the reply for all of it.
func (p *space) widest(asked netip.Prefix, least, matched int) netip.Prefix {
	of := func(bits int) netip.Prefix {
		w, _ := asked.Addr().Prefix(bits)
		return w
	}
	if least >= asked.Bits() {
		return asked
	}
	n := sort.Search(asked.Bits()-least, func(i int) bool { return !p.has(of(least+i), matched) })
	return of(least + n)
}
