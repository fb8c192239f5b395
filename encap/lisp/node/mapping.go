package node

import (
	"encoding/binary"
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

	within header.Prefix6 // prefix; one of IPv4 is mapped into IPv6 (RFC 4291 section 2.5.5.2)
	last   atomic.Bool    // in the cache, and no mapping has a longer prefix in it

	locators []lisp.Locator // those of our address family
	inner    netip.Addr     // the inner source for which it was asked
	until    time.Time
	renewed  time.Time // when it was last asked for again
	usedAt   time.Time
	answered bool // by the mapping system; otherwise it only says that nobody has answered
}

// cache is the map cache: what To finds, and the same by prefix.
type cache struct {
	table  atomic.Pointer[bart.Table[*mapping]]
	recent [256]atomic.Pointer[mapping] // those of recent destinations, by hash
	all    map[netip.Prefix]*mapping
	silent map[netip.Prefix]*mapping // those of all that are not answered
}

func newCache() *cache {
	c := &cache{all: make(map[netip.Prefix]*mapping), silent: make(map[netip.Prefix]*mapping)}
	c.table.Store(new(bart.Table[*mapping]))
	return c
}

// find returns the mapping with the longest prefix that contains an address; nil: there is none.
func (c *cache) find(a netip.Addr) *mapping {
	m, _ := c.table.Load().Lookup(a)
	return m
}

// route is find for the destination of a packet. Most packets have one of few destinations, whose
// mappings are found without the table.
func (c *cache) route(dst header.Word6) *mapping {
	slot := &c.recent[(dst.Hi^dst.Lo*0x9e3779b97f4a7c15)*0x9e3779b97f4a7c15>>56]
	if m := slot.Load(); m != nil && m.last.Load() && m.within.Contains(dst) {
		return m
	}
	m := c.find(dst.Addr().Unmap())
	if m != nil && m.last.Load() {
		slot.Store(m)
	}
	return m
}

// put adds a mapping, in place of the one with the same prefix. If the cache is full, it takes the
// place of one that was not used for a long time.
func (c *cache) put(m *mapping) {
	if c.all[m.prefix] == nil && len(c.all) >= maxMappings {
		c.evict()
	}
	t := c.table.Load()
	if old := c.all[m.prefix]; old != nil {
		old.last.Store(false)
	}
	for _, o := range t.Supernets(m.prefix) {
		o.last.Store(false)
	}
	m.within = words(m.prefix)
	last := true
	for p := range t.Subnets(m.prefix) {
		last = last && p == m.prefix
	}
	m.last.Store(last)
	c.all[m.prefix] = m
	if delete(c.silent, m.prefix); !m.answered {
		c.silent[m.prefix] = m
	}
	c.table.Store(t.InsertPersist(m.prefix, m))
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
	m.last.Store(false)
	delete(c.all, m.prefix)
	delete(c.silent, m.prefix)
	c.table.Store(c.table.Load().DeletePersist(m.prefix))
}

// replaceUnanswered removes what says that nobody has answered for EIDs in a prefix.
func (c *cache) replaceUnanswered(p netip.Prefix) {
	for _, m := range c.silent {
		if p.Bits() < m.prefix.Bits() && p.Contains(m.prefix.Addr()) {
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

// words returns a prefix as numbers. One of IPv4 is mapped into IPv6.
func words(p netip.Prefix) header.Prefix6 {
	if p.Addr().Is4() {
		p = netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+96)
	}
	return header.NewPrefix6(p)
}

// ends returns the addresses of an inner packet as numbers, those of IPv4 mapped into IPv6.
func ends(inner []byte) (src, dst header.Word6) {
	if header.Version(inner) == 4 {
		ip := header.IPv4(inner)
		return word4(ip.Source()), word4(ip.Dest())
	}
	ip := header.IPv6(inner)
	return header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
}

func word4(b []byte) header.Word6 {
	return header.Word6{Lo: 0xffff<<32 | uint64(binary.BigEndian.Uint32(b))}
}

// isMulticast reports whether an address is one of a multicast group.
func isMulticast(a header.Word6) bool {
	return a.Hi>>56 == 0xff || a.Hi == 0 && a.Lo>>28 == 0xffff<<4|0xe
}

// isUnicast reports whether an outer source is neither a group, nor unspecified, nor a loopback
// address.
func isUnicast(a header.Word6) bool {
	if a.Hi == 0 && a.Lo>>32 == 0xffff {
		return uint32(a.Lo) != 0 && uint32(a.Lo)>>24 != 127 && !isMulticast(a)
	}
	return !isMulticast(a) && (a.Hi != 0 || a.Lo > 1)
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
