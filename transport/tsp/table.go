package tsp

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"sixfour/transport/access"
)

// tuple is the outer addresses and ports between which a dialogue or a tunnel runs, of IPv4.
type tuple struct{ from, at uint64 }

func tupleOf(from, at netip.AddrPort) tuple { return tuple{packed(from), packed(at)} }

func packed(a netip.AddrPort) uint64 {
	b := a.Addr().As4()
	return uint64(binary.BigEndian.Uint32(b[:]))<<16 | uint64(a.Port())
}

// shards is how many parts a table has. Packets of different clients wait for each other only
// if a client of the same part comes or goes.
const shards = 64

// table has the clients whose tunnels run in UDP, by their addresses and ports, and the owners
// of tunnels in protocol 41.
type table struct {
	parts [shards]struct {
		sync.RWMutex
		m map[tuple]*client
	}
	mu  sync.Mutex
	raw map[netip.Addr]*rawLink
}

func (t *table) init() {
	for i := range t.parts {
		t.parts[i].m = make(map[tuple]*client)
	}
	t.raw = make(map[netip.Addr]*rawLink)
}

func (k tuple) part() uint64 { return (k.from ^ k.at<<7) * 0x9e3779b97f4a7c15 >> 58 }

// find returns the client with a tuple, or nil.
func (t *table) find(k tuple) *client {
	p := &t.parts[k.part()]
	p.RLock()
	c := p.m[k]
	p.RUnlock()
	return c
}

// put adds a client, and returns the one whose place it takes, or nil.
func (t *table) put(c *client) (before *client) {
	p := &t.parts[c.key.part()]
	p.Lock()
	defer p.Unlock()
	before = p.m[c.key]
	p.m[c.key] = c
	return before
}

// remove removes a client, if it is still there.
func (t *table) remove(c *client) {
	p := &t.parts[c.key.part()]
	p.Lock()
	defer p.Unlock()
	if p.m[c.key] == c {
		delete(p.m, c.key)
	}
}

// each returns the clients for which f returns true.
func (t *table) each(f func(c *client) bool) (list []*client) {
	for i := range t.parts {
		p := &t.parts[i]
		p.RLock()
		for _, c := range p.m {
			if f(c) {
				list = append(list, c)
			}
		}
		p.RUnlock()
	}
	return list
}

func (t *table) all() []*client { return t.each(func(*client) bool { return true }) }

// silent returns the clients from which nothing has come for too long.
func (t *table) silent(now time.Time) []*client {
	return t.each(func(c *client) bool { return now.UnixNano()-c.heard.Load() > int64(c.patience) })
}

// foreign reports whether an outer address has a tunnel of another account: in UDP, or in
// protocol 41.
func (t *table) foreign(outer netip.Addr, account string) bool {
	t.mu.Lock()
	r := t.raw[outer]
	t.mu.Unlock()
	if r != nil && r.account != account {
		return true
	}
	return len(t.each(func(c *client) bool { return c.from.Addr() == outer && c.account != account })) > 0
}

// rawLink is the link of a tunnel in protocol 41. It remembers whose address it is.
type rawLink struct {
	access.Link
	table   *table
	outer   netip.Addr
	account string
}

// own notes that an address belongs to a tunnel in protocol 41.
func (t *table) own(r *rawLink) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.raw[r.outer] = r
}

// End implements access.Link.
func (r *rawLink) End(why *access.Refusal) {
	r.table.disown(r)
	r.Link.End(why)
}

// Attached implements access.Follower.
func (r *rawLink) Attached(c access.Client) {
	if f, ok := r.Link.(access.Follower); ok {
		f.Attached(c)
	}
}

// Left implements access.Follower.
func (r *rawLink) Left() {
	r.table.disown(r)
	if f, ok := r.Link.(access.Follower); ok {
		f.Left()
	}
}

func (t *table) disown(r *rawLink) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raw[r.outer] == r {
		delete(t.raw, r.outer)
	}
}
