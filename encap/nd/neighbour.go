package nd

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sixfour/encap/header"
)

// State is the state of a neighbour (RFC 4861 section 7.3.2).
type State uint8

// The states.
const (
	Incomplete State = iota // its address is being resolved
	Reachable               // confirmed recently
	Stale                   // not confirmed recently
	Delay                   // a packet was sent to it, which it may confirm
	Probe                   // it is being asked whether it is still there
)

// String returns the word for the state in RFC 4861.
func (s State) String() string {
	return [...]string{Incomplete: "incomplete", Reachable: "reachable", Stale: "stale", Delay: "delay", Probe: "probe"}[s]
}

// Times and counts of RFC 4861 section 10.
const (
	RetransTimer    = time.Second
	SolicitTries    = 3                // MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT
	MostTries       = 2 * SolicitTries // including those that our limits did not allow
	ReachableTime   = 30 * time.Second
	DelayFirstProbe = 5 * time.Second
	QueueLen        = 3 // packets that wait for one neighbour (section 7.2.2 requires at least one)
)

// Neighbour is an entry of a Cache. Any goroutine may read Addr and Hop; the other fields
// belong to the goroutine that changes the cache.
type Neighbour struct {
	Addr header.Word6
	Hop  atomic.Uint64 // the outer address, and MayPass

	State    State
	Link     uint32    // outer address; 0: not known
	Deadline time.Time // when the state ends or the next solicitation is due; zero: never
	Tries    int       // solicitations that were sent
	Unsent   int       // solicitations that our limits did not allow
	proven   bool      // it was reachable once
	Touched  time.Time // when it was last heard of, or a packet was sent to it
	Queue    [][]byte  // packets that wait for it
	Leaving  int       // how many times the queue was handed over and is not sent yet
}

// MayPass is the bit in Neighbour.Hop that is set when packets need not wait.
const MayPass = 1 << 32

// Enter changes the state, and publishes it for packets.
func (n *Neighbour) Enter(s State, link uint32, deadline time.Time) {
	n.State, n.Link, n.Deadline, n.Tries, n.Unsent = s, link, deadline, 0, 0
	n.proven = n.proven || s == Reachable
	n.Publish()
}

// Publish updates what packets read of the neighbour. Packets must wait as long as
// earlier packets wait for the neighbour, or are being sent.
func (n *Neighbour) Publish() {
	hop := uint64(n.Link)
	if (n.State == Reachable || n.State == Delay || n.State == Probe) && len(n.Queue) == 0 && n.Leaving == 0 {
		hop |= MayPass
	}
	n.Hop.Store(hop)
}

// The size of the cache: the number of sets, and of entries in a set. In a set, the
// entry that was unused for the longest time is replaced by a new one, so a flood of
// addresses takes no more memory, and no more time to find an entry.
const (
	setBits = 9
	Ways    = 8
)

// Cache is a neighbour cache of bounded size. The hash has random factors, so that nobody can
// choose addresses that evict each other. One goroutine at a time may change it.
type Cache struct {
	sets   [1 << setBits][Ways]atomic.Pointer[Neighbour]
	Factor [2]uint64 // of the hash
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{Factor: [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1}}
}

// golden is 2^64 divided by the golden ratio: multiples of it are spread evenly.
const golden = 0x9e3779b97f4a7c15

// set returns the entries for an address. The factors alone would put consecutive addresses into
// few sets if one of them were near a simple fraction of 2^64.
func (c *Cache) set(a header.Word6) *[Ways]atomic.Pointer[Neighbour] {
	h := a.Hi*c.Factor[0] + a.Lo*c.Factor[1]
	return &c.sets[(h^h>>32)*golden>>(64-setBits)]
}

// Find returns a neighbour's entry, or nil. Any goroutine may call it.
func (c *Cache) Find(a header.Word6) *Neighbour {
	set := c.set(a)
	for i := range set {
		if n := set[i].Load(); n != nil && n.Addr == a {
			return n
		}
	}
	return nil
}

// Add creates an entry, and returns it and the entry that it replaced, if any.
func (c *Cache) Add(a header.Word6, now time.Time) (n, gone *Neighbour) {
	set := c.set(a)
	n = &Neighbour{Addr: a, Touched: now}
	at, oldest := 0, (*Neighbour)(nil)
	for i := range set {
		other := set[i].Load()
		if other == nil {
			set[i].Store(n)
			return n, nil
		}
		if oldest == nil || other.less(oldest) {
			at, oldest = i, other
		}
	}
	set[at].Store(n)
	return n, oldest
}

// less reports whether an entry is less useful than another: entries in use stay as long
// as there are others, and so do neighbours that were reachable before (RFC 6583 section
// 7.1).
func (n *Neighbour) less(m *Neighbour) bool {
	if a, b := n.Hop.Load()&MayPass, m.Hop.Load()&MayPass; a != b {
		return a == 0
	}
	if n.proven != m.proven {
		return !n.proven
	}
	return n.Touched.Before(m.Touched)
}

// Remove removes an entry.
func (c *Cache) Remove(n *Neighbour) {
	set := c.set(n.Addr)
	for i := range set {
		if set[i].Load() == n {
			set[i].Store(nil)
		}
	}
}

// All calls do with every entry. It may remove the entry.
func (c *Cache) All(do func(n *Neighbour)) {
	for s := range c.sets {
		for i := range c.sets[s] {
			if n := c.sets[s][i].Load(); n != nil {
				do(n)
			}
		}
	}
}

// Bucket is a token bucket, which limits messages. The zero value is full.
type Bucket struct {
	left int
	at   time.Time // when it was full, or the last token was added
}

// Take reports whether a message may be sent. It allows perSecond messages in a second,
// and as many at once.
func (b *Bucket) Take(now time.Time, perSecond int) bool {
	each := time.Second / time.Duration(perSecond)
	if n := now.Sub(b.at) / each; n >= time.Duration(perSecond) {
		b.left, b.at = perSecond, now
	} else if n > 0 {
		b.left, b.at = min(b.left+int(n), perSecond), b.at.Add(n*each)
	}
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}
