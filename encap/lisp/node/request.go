package node

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// Limits of requests.
const (
	maxRequests   = 1024
	maxTries      = 4   // after 1, 2, 4 and 8 seconds an EID counts as unanswered
	requestsEach  = 200 // requests in a second
	heldPackets   = 2   // of one EID
	heldTotal     = 256
	heldFor       = 3 * time.Second
	firstPause    = time.Second
	renewEach     = 3 * time.Second // the least time between two requests for a mapping (RFC 9301 section 5.3)
	leastPositive = 8               // bits of a prefix with locators: a shorter one would take nearly all packets
)

// request is an EID for which a mapping was asked, and whose answer is awaited.
type request struct {
	eid       netip.Addr
	inner     netip.Addr // source of the packet that needs it
	nonce     uint64
	tries     int
	next      time.Time
	solicited bool
	held      []held
}

// held is a packet that waits for a mapping.
type held struct {
	pkt []byte
	at  time.Time
}

// requests are those without an answer, by EID and by nonce.
type requests struct {
	of     map[netip.Addr]*request
	nonces map[uint64]*request
	held   int
	limit  bucket
}

func newRequests() requests {
	return requests{of: make(map[netip.Addr]*request), nonces: make(map[uint64]*request)}
}

// soonest returns when the next request is due.
func (a *requests) soonest() (next time.Time) {
	for _, q := range a.of {
		if next.IsZero() || q.next.Before(next) {
			next = q.next
		}
	}
	return next
}

// add adds a request for an EID, or returns the one that there is; nil: there is no room.
func (a *requests) add(eid, inner netip.Addr, now time.Time) *request {
	q := a.of[eid]
	if q == nil && len(a.of) < maxRequests {
		q = &request{eid: eid, inner: inner, next: now}
		a.of[eid] = q
	}
	return q
}

// end removes a request, and returns the packets that waited for it.
func (a *requests) end(q *request) []held {
	delete(a.of, q.eid)
	delete(a.nonces, q.nonce)
	a.held -= len(q.held)
	return q.held
}

// Hold keeps a packet while the mapping of its destination is asked for.
func (r *router) Hold(pkt []byte, now time.Time) bool {
	src, dst := addresses(pkt)
	if m := r.cache.find(dst); m != nil && now.Sub(m.renewed) < renewEach {
		return false // the answer was to ask again, but not all the time
	}
	q := r.asked.add(dst, src, now)
	if q == nil || len(q.held) >= heldPackets || r.asked.held >= heldTotal {
		return false
	}
	q.held = append(q.held, held{slices.Clone(pkt), now})
	r.asked.held++
	return true
}

// ask sends the requests that are due.
func (r *router) ask(now time.Time) {
	for _, q := range r.asked.of {
		fresh := slices.DeleteFunc(q.held, func(h held) bool { return now.Sub(h.at) >= heldFor })
		lost := len(q.held) - len(fresh)
		q.held, r.asked.held, r.lost = fresh, r.asked.held-lost, r.lost+lost
		if q.next.After(now) {
			continue
		}
		if q.tries == maxTries {
			r.unanswered(q, now)
			continue
		}
		if len(r.resolvers) == 0 { // their names are not known yet
			q.next, q.tries = now.Add(firstPause), q.tries+1
			continue
		}
		if !r.asked.limit.allow(requestsEach, now) {
			q.next = now.Add(firstPause / 4)
			continue
		}
		delete(r.asked.nonces, q.nonce)
		q.nonce = r.random()
		r.asked.nonces[q.nonce] = q
		r.control(netip.AddrPortFrom(r.resolvers[q.tries%len(r.resolvers)], lisp.ControlPort), r.requestFor(q))
		q.next = now.Add(firstPause << q.tries)
		q.tries++
	}
}

// requestFor returns the encapsulated Map-Request for an EID.
func (r *router) requestFor(q *request) []byte {
	m := &lisp.Request{Nonce: q.nonce, Solicited: q.solicited, Locators: []netip.Addr{r.local}, EIDs: []lisp.EID{lisp.HostEID(r.Instance, q.eid)}}
	if !r.Proxy {
		m.Source = lisp.EID{Instance: r.Instance, Prefix: netip.PrefixFrom(q.inner, q.inner.BitLen())}
	}
	return lisp.AppendInside(nil, netip.AddrPortFrom(q.inner, lisp.ControlPort), netip.AddrPortFrom(q.eid, lisp.ControlPort), m.Append(nil))
}

// unanswered gives up a request. No other one follows for a while.
func (r *router) unanswered(q *request, now time.Time) {
	r.lost += len(r.asked.end(q))
	if r.cache.find(q.eid) != nil { // it was to be renewed
		return
	}
	m := &mapping{prefix: netip.PrefixFrom(q.eid, q.eid.BitLen()), inner: q.inner, until: now.Add(silent), usedAt: now}
	m.slots.Store(new([]resolve.Endpoint))
	r.cache.put(m)
}

// replied handles the answer to a request: the mapping of a prefix that contains the EID that was
// asked for, and those of prefixes in it (RFC 9301 section 5.5).
func (r *router) replied(p *lisp.Reply, now time.Time) drop.Reason {
	q := r.asked.nonces[p.Nonce]
	if q == nil {
		return drop.Spoof // nobody has asked, or long ago
	}
	asked := lisp.HostEID(r.Instance, q.eid)
	at := slices.IndexFunc(p.Records, func(e lisp.Record) bool { return e.EID.Contains(asked) })
	if at < 0 || len(p.Records[at].Locators) > 0 && p.Records[at].EID.Prefix.Bits() < leastPositive {
		return drop.Spoof
	}
	whole := p.Records[at].EID
	for i := range p.Records {
		if whole.Contains(p.Records[i].EID) {
			r.install(&p.Records[i], q.inner, now)
		}
	}
	for _, o := range r.asked.of {
		if o == q || whole.Contains(lisp.HostEID(r.Instance, o.eid)) {
			r.release(r.asked.end(o))
		}
	}
	return drop.None
}

// install puts a record into the map cache.
func (r *router) install(e *lisp.Record, inner netip.Addr, now time.Time) {
	ttl := max(min(time.Duration(e.TTL)*time.Minute, maxTTL), silent) // 0 removes a mapping, which must not be asked for all the time
	m := &mapping{prefix: e.EID.Prefix, action: e.Action, inner: inner, until: now.Add(ttl), usedAt: now, renewed: now, answered: true}
	for _, l := range e.Locators {
		if len(m.locators) < maxLocators && r.mayUse(l.Addr) {
			m.locators = append(m.locators, l)
		}
	}
	if len(e.Locators) > 0 && len(m.locators) == 0 {
		m.action = lisp.Drop // none that this router can send to
	}
	m.choose(r.endpoint, r.isUp)
	r.cache.replaceUnanswered(m.prefix)
	r.cache.put(m)
}

// mayUse reports whether packets may be sent to a locator: an address of the IP version of ours, of
// another host, and outside the prefixes that are reached through the tunnel.
func (r *router) mayUse(a netip.Addr) bool {
	return a.IsValid() && a.Is4() == r.local.Is4() && a != r.local && a.Zone() == "" && !a.Is4In6() &&
		!a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && a != broadcast && !r.has(a)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// release sends packets that have waited for a mapping.
func (r *router) release(packets []held) {
	for _, h := range packets {
		to, why := r.To(h.pkt)
		if why != drop.None {
			r.lost++
			continue
		}
		r.data(to, h.pkt)
	}
}

// renew asks again for mappings in use that will expire soon.
func (r *router) renew(now time.Time) {
	for _, m := range r.cache.all {
		if m.answered && now.Sub(m.usedAt) < idle && m.until.Sub(now) < renewBefore {
			r.again(m, false, now)
		}
	}
}

// renewBefore is how long before its end a mapping in use is asked for again.
const renewBefore = 20 * time.Second

// again asks for the mapping of a prefix once more, not too often.
func (r *router) again(m *mapping, solicited bool, now time.Time) {
	if now.Sub(m.renewed) < renewEach {
		return
	}
	if q := r.asked.add(m.prefix.Addr(), m.inner, now); q != nil {
		q.solicited = q.solicited || solicited
		m.renewed = now
	}
}

// solicited handles the message that another xTR has a new mapping. What it says is not believed:
// the mapping system is asked (RFC 9301 section 6.1).
func (r *router) solicited(q *lisp.Request, from netip.Addr, now time.Time) drop.Reason {
	if !q.Source.IsValid() || q.Source.Instance != r.Instance {
		return drop.NoPeer
	}
	m := r.cache.find(q.Source.Prefix.Addr())
	if m == nil || !m.answered {
		return drop.NoPeer
	}
	if !m.uses(from) && !slices.ContainsFunc(q.Locators, m.uses) {
		return drop.Spoof
	}
	r.again(m, true, now)
	return drop.None
}
