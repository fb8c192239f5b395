package node

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// router is the agent of a Router.
type router struct {
	Router
	local netip.Addr
	hot
	cache *cache
	asked requests
	rlocs map[netip.Addr]*rloc // of mappings, which are probed
	heard *sources             // of packets since the start, which may have an old mapping of ours

	resolvers []netip.Addr
	proxies   []resolve.Endpoint
	registrations

	outbox
	answers bucket // map replies to requests
	refused drop.Reason
	swept   time.Time
	random  func() uint64
}

// hot has addresses in the form in which To and From compare them.
type hot struct {
	eids   []header.Prefix6 // EIDs
	mapped header.Word6     // local; one of IPv4 is mapped into IPv6
}

func newRouter(m Router, local netip.Addr) *router {
	r := &router{Router: m, local: local, cache: newCache(), asked: newRequests(), rlocs: make(map[netip.Addr]*rloc), heard: newSources(), random: random}
	r.mapped = words(netip.PrefixFrom(local, local.BitLen())).Value
	for _, p := range m.EIDs {
		r.eids = append(r.eids, words(p))
	}
	if len(r.RLOCs) == 0 {
		r.RLOCs = []RLOC{{Addr: local, Priority: 1, Weight: 100}}
	}
	return r
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// CarriesIPv4 says that packets of both IP versions are carried.
func (r *router) CarriesIPv4() {}

// endpoint returns where data packets for a locator go.
func (r *router) endpoint(a netip.Addr) resolve.Endpoint {
	return resolve.EndpointOf(netip.AddrPortFrom(a, lisp.DataPort))
}

// has reports whether an address is in EIDs.
func (r *router) has(a netip.Addr) bool {
	for _, p := range r.EIDs {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// To returns the locator for the destination of a packet.
func (r *router) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	src, dst := ends(inner)
	switch {
	case isMulticast(dst):
		return resolve.Endpoint{}, drop.Martian
	case header.Within(r.eids, src) == r.Proxy: // not of the site, or of another site, which has an xTR
		return resolve.Endpoint{}, drop.Spoof
	case header.Within(r.eids, dst) != r.Proxy:
		if r.Proxy {
			return resolve.Endpoint{}, drop.NoPeer
		}
		return resolve.Endpoint{}, drop.Loop
	}
	m := r.cache.route(dst)
	if m == nil {
		return resolve.Endpoint{}, drop.Unresolved
	}
	if !m.used.Load() { // written once, so that processors share it
		m.used.Store(true)
	}
	if slots := *m.slots.Load(); len(slots) > 0 {
		return pick(slots, inner), drop.None
	}
	return r.without(m, inner)
}

// without returns where a packet goes whose mapping has no locators (RFC 9301 section 5.4).
func (r *router) without(m *mapping, inner []byte) (resolve.Endpoint, drop.Reason) {
	switch {
	case m.action == lisp.NativelyForward && len(r.proxies) > 0:
		return pick(r.proxies, inner), drop.None
	case m.action == lisp.SendMapRequest && m.answered:
		return resolve.Endpoint{}, drop.Unresolved
	}
	return resolve.Endpoint{}, drop.NoPeer
}

// From accepts packets to the site or, at a proxy xTR, from a site to hosts without LISP.
func (r *router) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	src, dst := ends(inner)
	outer := from.IPv6() // one of IPv4 is mapped
	switch {
	case !isUnicast(outer):
		return drop.Martian
	case outer == r.mapped:
		return drop.OwnSource
	case header.Within(r.eids, src) != r.Proxy:
		return drop.Spoof
	case header.Within(r.eids, dst) == r.Proxy:
		return drop.NoPeer
	}
	if r.Checked {
		if m := r.cache.route(src); m != nil && len(m.locators) > 0 && !m.uses(from.Addr()) {
			return drop.Spoof
		}
	}
	if !r.Proxy && r.heard.open.Load() {
		r.heard.note(from.Addr(), src.Addr().Unmap(), dst.Addr().Unmap())
	}
	return drop.None
}

// Wants selects control messages. Their types are in the first four bits; a Map-Notify has the
// version of IPv4 there, but no header length.
func (r *router) Wants(inner []byte) bool {
	if len(inner) < 4 {
		return false
	}
	switch t := lisp.Type(inner[0] >> 4); t {
	case lisp.TypeRequest, lisp.TypeReply, lisp.TypeEncapsulated:
		return true
	case lisp.TypeNotify:
		return inner[0]&0xf < header.IPv4Len/4
	}
	return false
}

// PerSecond is how many control messages are accepted.
func (r *router) PerSecond() int { return 5000 }

// Refused returns why the last message was dropped.
func (r *router) Refused() drop.Reason { return r.refused }

// Receive handles a control message.
func (r *router) Receive(o header.Outer, b []byte, now time.Time) (done bool) {
	r.refused = r.receive(o, b, now)
	return true
}

func (r *router) receive(o header.Outer, b []byte, now time.Time) drop.Reason {
	if o.At.Port() != lisp.ControlPort {
		return drop.UnknownProtocol
	}
	switch t, _ := lisp.MessageType(b); t {
	case lisp.TypeRequest:
		q, err := lisp.ParseRequest(b)
		if err != nil {
			return drop.LyingLength
		}
		if q.Solicit {
			return r.solicited(q, o.From.Addr(), now)
		}
		return r.answer(q, o.From, len(b), now)
	case lisp.TypeEncapsulated:
		return r.encapsulated(b, now)
	case lisp.TypeReply:
		p, err := lisp.ParseReply(b)
		if err != nil {
			return drop.LyingLength
		}
		if p.Probe {
			return r.probed(p, o.From.Addr(), now)
		}
		return r.replied(p, now)
	case lisp.TypeNotify:
		return r.notified(b, o.From.Addr(), now)
	}
	return drop.UnknownProtocol
}

// sweepEvery is how often the map cache is looked through.
const sweepEvery = time.Second

// Next returns what is to be sent, and does what is due.
func (r *router) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	r.register(now)
	if now.Sub(r.swept) >= sweepEvery || r.swept.IsZero() {
		r.swept = now
		r.cache.sweep(now)
		r.renew(now)
		r.probe(now)
		r.greet(now)
	}
	r.ask(now)
	send, lost := r.take()
	return send, lost, r.next(now)
}

// next returns when Next is to be called again.
func (r *router) next(now time.Time) time.Time {
	next := r.swept.Add(sweepEvery)
	for _, s := range r.servers {
		if s.next.Before(next) {
			next = s.next
		}
	}
	if q := r.asked.soonest(); !q.IsZero() && q.Before(next) {
		next = q
	}
	if !next.After(now) {
		next = now.Add(10 * time.Millisecond)
	}
	return next
}

// Learnt is empty: the interface has what the configuration says.
func (r *router) Learnt() resolve.Learnt { return resolve.Learnt{} }

// Entries returns the registrations and the map cache.
func (r *router) Entries(now time.Time) (list []resolve.Entry) {
	for _, s := range r.servers {
		list = append(list, s.entries(r.EIDs, now)...)
	}
	all := make([]*mapping, 0, len(r.cache.all))
	for _, m := range r.cache.all {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *mapping) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	for _, m := range all {
		list = append(list, r.entriesOf(m, now)...)
	}
	return list
}

// entriesOf returns an entry for each locator of a mapping, or one if it has none.
func (r *router) entriesOf(m *mapping, now time.Time) (list []resolve.Entry) {
	used := m.usedAt
	if m.used.Load() {
		used = now
	}
	e := resolve.Entry{Node: m.prefix.Addr(), Bits: m.prefix.Bits(), Age: now.Sub(used)}
	slots := *m.slots.Load()
	for _, l := range m.locators {
		e.Link, e.State = netip.AddrPortFrom(l.Addr, lisp.DataPort), "backup"
		switch {
		case l.Priority == unusable:
			e.State = "unusable"
		case !r.isUp(&l):
			e.State = "down"
		case slices.Contains(slots, r.endpoint(l.Addr)):
			e.State = "up"
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		e.State = m.stateWithout()
		list = append(list, e)
	}
	return list
}

// stateWithout is the state of a mapping without locators.
func (m *mapping) stateWithout() string {
	switch {
	case !m.answered:
		return "unanswered"
	case m.action == lisp.NativelyForward:
		return "native"
	case m.action == lisp.SendMapRequest:
		return "ask"
	case len(m.locators) == 0 && m.action == lisp.NoAction:
		return "none"
	}
	return "drop"
}
