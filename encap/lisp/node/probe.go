package node

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/lisp"
)

// Probing of locators (RFC 9301 section 7.1).
const (
	probeEvery   = time.Minute
	probeWait    = 3 * time.Second // for an answer
	probeMisses  = 3               // a locator that has not answered so many probes is down
	maxProbed    = 4096            // locators
	probesAtOnce = 100             // in a second
)

// rloc is a locator of mappings.
type rloc struct {
	nonce    uint64
	awaiting bool // the answer to nonce
	next     time.Time
	misses   int
	seen     time.Time // when a mapping with it was last found
	eid      lisp.EID  // of such a mapping
}

// isUp reports whether a locator can be used, as far as is known.
func (r *router) isUp(l *lisp.Locator) bool {
	if l.Flags&lisp.LocatorReachable == 0 {
		return false
	}
	x := r.rlocs[l.Addr]
	return x == nil || x.misses < probeMisses
}

// probe probes the locators of mappings that are in use.
func (r *router) probe(now time.Time) {
	for _, m := range r.cache.all {
		if now.Sub(m.usedAt) >= idle {
			continue
		}
		for i := range m.locators {
			l := &m.locators[i]
			x := r.rlocs[l.Addr]
			if x == nil {
				if l.Priority == unusable || len(r.rlocs) >= maxProbed {
					continue
				}
				x = &rloc{next: now.Add(probeWait)}
				r.rlocs[l.Addr] = x
			}
			x.seen, x.eid = now, lisp.EID{Instance: r.Instance, Prefix: m.prefix}
		}
	}
	left := probesAtOnce
	for a, x := range r.rlocs {
		switch {
		case x.seen != now && now.Sub(x.seen) >= idle:
			delete(r.rlocs, a)
			continue
		case x.next.After(now):
			continue
		case x.awaiting:
			x.awaiting = false
			if x.misses++; x.misses == probeMisses {
				r.reselect(a)
			}
			if x.misses >= probeMisses {
				x.next = now.Add(probeEvery / 2)
				continue
			}
		}
		if left == 0 {
			continue
		}
		left--
		x.nonce, x.awaiting, x.next = r.random(), true, now.Add(probeWait)
		q := &lisp.Request{Probe: true, Nonce: x.nonce, Locators: []netip.Addr{r.local}, EIDs: []lisp.EID{x.eid}}
		r.control(netip.AddrPortFrom(a, lisp.ControlPort), q.Append(nil))
	}
}

// probed handles the answer to a probe. Only the mapping system is believed about mappings, so the
// record in it is not read.
func (r *router) probed(p *lisp.Reply, from netip.Addr, now time.Time) drop.Reason {
	x := r.rlocs[from]
	if x == nil || !x.awaiting || x.nonce != p.Nonce {
		return drop.Spoof
	}
	wasDown := x.misses >= probeMisses
	x.awaiting, x.misses, x.next = false, 0, now.Add(probeEvery)
	if wasDown {
		r.reselect(from)
	}
	return drop.None
}

// reselect chooses again among the locators of all mappings that have one.
func (r *router) reselect(a netip.Addr) {
	for _, m := range r.cache.all {
		if m.uses(a) {
			m.choose(r.endpoint, r.isUp)
		}
	}
}

// sources are the xTRs that have sent packets since the start. They may have an old mapping of the
// site, and are told to ask for the present one (RFC 9301 section 6.1), once.
type sources struct {
	open atomic.Bool // since the start, a while has not passed yet

	mu    sync.Mutex
	inner map[netip.Addr]flow // by locator; nil: the while has passed
	end   time.Time
}

// flow has the inner addresses of a packet; invalid: the xTR was told.
type flow struct{ src, dst netip.Addr }

const (
	maxSources = 256
	greetFor   = time.Minute
	greetEach  = 20 // in a second
)

func newSources() *sources {
	s := &sources{inner: make(map[netip.Addr]flow)}
	s.open.Store(true)
	return s
}

// note notes an xTR. Any goroutine may call it.
func (s *sources) note(outer, src, dst netip.Addr) {
	if !s.mu.TryLock() {
		return // the next packet will do
	}
	defer s.mu.Unlock()
	if _, known := s.inner[outer]; !known && len(s.inner) < maxSources && s.inner != nil {
		s.inner[outer] = flow{src, dst}
	}
}

// greet solicits requests from the xTRs that have sent packets.
func (r *router) greet(now time.Time) {
	s := r.heard
	if r.Proxy || !s.open.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.IsZero() {
		s.end = now.Add(greetFor)
	}
	if !now.Before(s.end) {
		s.open.Store(false)
		s.inner = nil
		return
	}
	left := greetEach
	for outer, inner := range s.inner {
		if left == 0 {
			return
		}
		s.inner[outer] = flow{}
		if !inner.src.IsValid() || !r.mayUse(outer) {
			continue
		}
		left--
		q := &lisp.Request{Solicit: true, Nonce: r.random(), Source: lisp.HostEID(r.Instance, inner.dst), Locators: []netip.Addr{r.local}, EIDs: []lisp.EID{lisp.HostEID(r.Instance, inner.src)}}
		r.control(netip.AddrPortFrom(outer, lisp.ControlPort), q.Append(nil))
	}
}
