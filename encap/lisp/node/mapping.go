package node

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// Limits of the map cache.
const (
	maxMappings = 16384
	maxLocators = 32 // of a mapping: others are left out
	maxSlots    = 128
	maxTTL      = 24 * time.Hour
	// silent is how long no further requests are sent for an EID that nobody has answered for.
	silent = 15 * time.Second
	// idle is how long a mapping must have been unused so that it is not renewed.
	idle = 5 * time.Minute
)

// mapping is an entry of the map cache. To reads slots, action and used; all else belongs to the
// agent.
type mapping struct {
	prefix netip.Prefix
	action lisp.Action // what happens to packets if there are no locators

	slots atomic.Pointer[[]resolve.Endpoint] // the locators in use, each as often as its weight says
	used  atomic.Bool                        // since the last sweep

	locators []lisp.Locator // those of our address family
	inner    netip.Addr     // the inner source for which it was asked
	until    time.Time
	renewed  time.Time // when it was last asked for again
	usedAt   time.Time
	answered bool // by the mapping system; otherwise it only says that nobody has answered
}

// cache is the map cache: what To finds, and the same by prefix.
type cache struct {
	table atomic.Pointer[bart.Table[*mapping]]
	all   map[netip.Prefix]*mapping
}

func newCache() *cache {
	c := &cache{all: make(map[netip.Prefix]*mapping)}
	c.table.Store(new(bart.Table[*mapping]))
	return c
}

// find returns the mapping with the longest prefix that contains an address; nil: there is none.
func (c *cache) find(a netip.Addr) *mapping {
	m, _ := c.table.Load().Lookup(a)
	return m
}

// put adds a mapping, in place of the one with the same prefix. If the cache is full, it takes the
// place of one that was not used for a long time.
func (c *cache) put(m *mapping) {
	if c.all[m.prefix] == nil && len(c.all) >= maxMappings {
		c.evict()
	}
	c.all[m.prefix] = m
	c.table.Store(c.table.Load().InsertPersist(m.prefix, m))
}

// evict removes the least recently used of a few mappings.
func (c *cache) evict() {
	const few = 16
	var oldest *mapping
	n := 0
	for _, m := range c.all { // in random order
		if oldest == nil || m.usedAt.Before(oldest.usedAt) {
			oldest = m
		}
		if n++; n == few {
			break
		}
	}
	c.remove(oldest)
}

func (c *cache) remove(m *mapping) {
	delete(c.all, m.prefix)
	c.table.Store(c.table.Load().DeletePersist(m.prefix))
}

// replaceUnanswered removes what says that nobody has answered for EIDs in a prefix.
func (c *cache) replaceUnanswered(p netip.Prefix) {
	for _, m := range c.all {
		if !m.answered && p.Bits() < m.prefix.Bits() && p.Contains(m.prefix.Addr()) {
			c.remove(m)
		}
	}
}

// sweep removes mappings that have expired, and notes which were used.
func (c *cache) sweep(now time.Time) {
	for _, m := range c.all {
		if m.used.Swap(false) {
			m.usedAt = now
		}
		if !now.Before(m.until) {
			c.remove(m)
		}
	}
}

// choose sets the slots of a mapping: the locators with the best priority of those that are up, by
// weight. If none is up, all count as up, because locators need not answer probes.
func (m *mapping) choose(at func(netip.Addr) resolve.Endpoint, isUp func(*lisp.Locator) bool) {
	usable := slices.DeleteFunc(slices.Clone(m.locators), func(l lisp.Locator) bool { return l.Priority == unusable })
	if up := slices.DeleteFunc(slices.Clone(usable), func(l lisp.Locator) bool { return !isUp(&l) }); len(up) > 0 {
		usable = up
	}
	best := uint8(unusable)
	for _, l := range usable {
		best = min(best, l.Priority)
	}
	usable = slices.DeleteFunc(usable, func(l lisp.Locator) bool { return l.Priority != best })
	total := 0
	for _, l := range usable {
		total += int(l.Weight)
	}
	var slots []resolve.Endpoint
	for _, l := range usable {
		n := 1
		switch {
		case len(usable) == 1, total == 0: // equal shares
		case l.Weight == 0:
			n = 0
		default:
			n = max(1, int(l.Weight)*maxSlots/total)
		}
		for range n {
			slots = append(slots, at(l.Addr))
		}
	}
	m.slots.Store(&slots)
}

// unusable is the priority of a locator that must not be used (RFC 9300 section 6.1).
const unusable = 255

// uses reports whether an address is one of the locators.
func (m *mapping) uses(a netip.Addr) bool {
	return slices.ContainsFunc(m.locators, func(l lisp.Locator) bool { return l.Addr == a })
}

// pick returns the slot for the flow of a packet.
func pick(slots []resolve.Endpoint, inner []byte) resolve.Endpoint {
	if len(slots) == 1 {
		return slots[0]
	}
	version := header.Version(inner)
	if version == 4 && len(inner) < header.IPv4(inner).HeaderLen() { // cut off: the ports are not known
		return slots[0]
	}
	h := framing.Spread(framing.FlowHash(inner, version))
	return slots[h%uint64(len(slots))]
}

// addresses returns the addresses of an inner packet.
func addresses(inner []byte) (src, dst netip.Addr) {
	if header.Version(inner) == 4 {
		ip := header.IPv4(inner)
		return ip.Src(), ip.Dst()
	}
	ip := header.IPv6(inner)
	return ip.Src(), ip.Dst()
}
