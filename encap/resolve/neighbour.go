package resolve

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// state is the state of a neighbour (RFC 4861 section 7.3.2).
type state uint8

const (
	incomplete state = iota // its address is being resolved
	reachable               // confirmed recently
	stale                   // not confirmed recently
	delay                   // a packet was sent to it, which it may confirm
	probe                   // it is being asked whether it is still there
)

// String returns the word for the state in RFC 4861.
func (s state) String() string {
	return [...]string{incomplete: "incomplete", reachable: "reachable", stale: "stale", delay: "delay", probe: "probe"}[s]
}

// Times and counts of RFC 4861 section 10.
const (
	retransTimer    = time.Second
	solicitTries    = 3                // MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT
	mostTries       = 2 * solicitTries // including those that our limits did not allow
	reachableTime   = 30 * time.Second
	delayFirstProbe = 5 * time.Second
	queueLen        = 3 // packets that wait for one neighbour (section 7.2.2 requires at least one)
)

// neighbour is an entry of the neighbour cache. Any goroutine may read addr and hop; the
// other fields belong to the Agent.
type neighbour struct {
	addr word6
	hop  atomic.Uint64 // the outer address, and mayPass

	state    state
	link     uint32    // outer address; 0: not known
	deadline time.Time // when the state ends or the next solicitation is due; zero: never
	tries    int       // solicitations that were sent
	unsent   int       // solicitations that our limits did not allow
	proven   bool      // it was reachable once
	touched  time.Time
	queue    [][]byte
	leaving  int // how many times the queue was handed over and is not sent yet
}

// mayPass is set when packets need not wait for the Agent.
const mayPass = 1 << 32

// enter changes the state, and publishes it for packets.
func (n *neighbour) enter(s state, link uint32, deadline time.Time) {
	n.state, n.link, n.deadline, n.tries, n.unsent = s, link, deadline, 0, 0
	n.proven = n.proven || s == reachable
	n.publish()
}

// publish updates what packets read of the neighbour. Packets must wait as long as
// earlier packets wait for the neighbour, or are being sent by the Agent.
func (n *neighbour) publish() {
	hop := uint64(n.link)
	if (n.state == reachable || n.state == delay || n.state == probe) && len(n.queue) == 0 && n.leaving == 0 {
		hop |= mayPass
	}
	n.hop.Store(hop)
}

// The size of the cache: the number of sets, and of entries in a set. In a set, the
// entry that was unused for the longest time is replaced by a new one, so a flood of
// addresses takes no more memory, and no more time to find an entry.
const (
	setBits = 9
	ways    = 8
)

// neighbours is the cache. The hash has random factors, so that nobody can choose
// addresses that evict each other.
type neighbours struct {
	sets   [1 << setBits][ways]atomic.Pointer[neighbour]
	factor [2]uint64
}

func newNeighbours() *neighbours {
	return &neighbours{factor: [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1}}
}

func (c *neighbours) set(a word6) *[ways]atomic.Pointer[neighbour] {
	return &c.sets[(a.hi*c.factor[0]+a.lo*c.factor[1])>>(64-setBits)]
}

// find returns a neighbour's entry, or nil. Any goroutine may call it.
func (c *neighbours) find(a word6) *neighbour {
	set := c.set(a)
	for i := range set {
		if n := set[i].Load(); n != nil && n.addr == a {
			return n
		}
	}
	return nil
}

// add creates an entry, and returns it and the entry that it replaced, if any.
func (c *neighbours) add(a word6, now time.Time) (n, gone *neighbour) {
	set := c.set(a)
	n = &neighbour{addr: a, touched: now}
	at, oldest := 0, (*neighbour)(nil)
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
func (n *neighbour) less(m *neighbour) bool {
	if a, b := n.hop.Load()&mayPass, m.hop.Load()&mayPass; a != b {
		return a == 0
	}
	if n.proven != m.proven {
		return !n.proven
	}
	return n.touched.Before(m.touched)
}

func (c *neighbours) remove(n *neighbour) {
	set := c.set(n.addr)
	for i := range set {
		if set[i].Load() == n {
			set[i].Store(nil)
		}
	}
}

// all calls do with every entry. do may remove the entry.
func (c *neighbours) all(do func(n *neighbour)) {
	for s := range c.sets {
		for i := range c.sets[s] {
			if n := c.sets[s][i].Load(); n != nil {
				do(n)
			}
		}
	}
}
