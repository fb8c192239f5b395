package node

import (
	"net/netip"

	"time"

	"sixfour/encap/drop"
	"sixfour/encap/lisp"
)

// answersEach is how many Map-Requests are answered in a second.
const answersEach = 1000

// ttlMinutes is how long others may use the mapping of the site.
const ttlMinutes = 60

// records returns the mappings of the site's prefixes. Probed is the locator at which a probe
// arrived; not valid: there was none.
func (r *router) records(probed netip.Addr) (all []lisp.Record) {
	locators := make([]lisp.Locator, len(r.RLOCs))
	for i, l := range r.RLOCs {
		locators[i] = lisp.Locator{Priority: l.Priority, Weight: l.Weight, MulticastPriority: unusable, Flags: lisp.LocatorReachable, Addr: l.Addr}
		if l.Addr == r.local {
			locators[i].Flags |= lisp.LocatorLocal
		}
		if l.Addr == probed {
			locators[i].Flags |= lisp.LocatorProbed
		}
	}
	for _, p := range r.EIDs {
		all = append(all, lisp.Record{TTL: ttlMinutes, EID: lisp.EID{Instance: r.Instance, Prefix: p}, Authoritative: true, Locators: locators})
	}
	return all
}

// encapsulated handles a message that a map server has passed on.
func (r *router) encapsulated(b []byte, now time.Time) drop.Reason {
	packet, err := lisp.Encapsulated(b)
	if err != nil {
		return drop.UnknownProtocol
	}
	from, _, message, err := lisp.Inside(packet)
	if err != nil {
		return drop.LyingLength
	}
	q, err := lisp.ParseRequest(message)
	if err != nil {
		return drop.UnknownProtocol
	}
	if q.Probe || q.Solicit { // these are never encapsulated
		return drop.UnknownProtocol
	}
	return r.answer(q, from, len(b), now)
}

// answer answers a Map-Request for a prefix of the site. The answer goes to a locator in the
// request, at the port from which the request was sent. That of a probe is the sender itself, so
// that nobody can have probes answered to others.
func (r *router) answer(q *lisp.Request, from netip.AddrPort, size int, now time.Time) drop.Reason {
	if r.Proxy {
		return drop.NoPeer
	}
	var to netip.Addr
	for _, a := range q.Locators {
		if r.mayUse(a) && (!q.Probe || a == from.Addr()) {
			to = a
			break
		}
	}
	if !to.IsValid() || from.Port() == 0 {
		return drop.Martian
	}
	var probed netip.Addr
	if q.Probe {
		probed = r.local
	}
	for _, e := range r.records(probed) {
		for _, asked := range q.EIDs {
			if !e.EID.Contains(asked) {
				continue
			}
			if !r.answers.allow(answersEach, now) {
				return drop.Limited
			}
			p := &lisp.Reply{Probe: q.Probe, Nonce: q.Nonce, Records: []lisp.Record{e}}
			r.control(netip.AddrPortFrom(to, from.Port()), p.Append(nil))
			return drop.None
		}
	}
	return drop.NoPeer
}
