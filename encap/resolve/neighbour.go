package resolve

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// state is a neighbour's (RFC 4861 section 7.3.2).
type state uint8

const (
	incomplete state = iota // is being asked for its address
	reachable               // has confirmed it lately
	stale                   // has not
	delay                   // was sent something: perhaps it confirms
	probe                   // is being asked whether it is still there
)

// Times and counts of RFC 4861 section 10.
const (
	retransTimer    = time.Second
	solicitTries    = 3 // MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT
	reachableTime   = 30 * time.Second
	delayFirstProbe = 5 * time.Second
	queueLen        = 3 // packets that wait for one neighbour (section 7.2.2 asks for one)
)

// neighbour is an entry of the cache. What a packet asks of it, addr and hop, may
// be read by anybody; the rest is the Speaker's.
type neighbour struct {
	addr word6
	hop  atomic.Uint64 // the outer address, and mayPass

	state    state
	link     uint32    // outer address; 0: not known
	deadline time.Time // when the state ends, or the next question is due; zero: never
	tries    int
	touched  time.Time
	queue    [][]byte
	leaving  int // times that the queue was handed over to be sent, and is not sent yet
}

// mayPass is set where packets need not wait for the Speaker.
const mayPass = 1 << 32

// enter changes the state, and what packets see of it.
func (n *neighbour) enter(s state, link uint32, deadline time.Time) {
	n.state, n.link, n.deadline, n.tries = s, link, deadline, 0
	n.publish()
}

// publish says what packets see of the neighbour. They do not pass as long as others,
// which came before, wait for it, or are being sent by the Speaker.
func (n *neighbour) publish() {
	hop := uint64(n.link)
	if (n.state == reachable || n.state == delay || n.state == probe) && len(n.queue) == 0 && n.leaving == 0 {
		hop |= mayPass
	}
	n.hop.Store(hop)
}

// The cache's size: sets of so many ways. In a set the entry that was of no use
// for longest makes room for a new one, so that no flood of addresses takes more
// memory, nor time to find one.
const (
	setBits = 9
	ways    = 8
)

// neighbours is the cache. The hash has random factors, so that nobody can choose
// addresses that push each other out.
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

// find is a neighbour's entry, or nil. Anybody may call it.
func (c *neighbours) find(a word6) *neighbour {
	set := c.set(a)
	for i := range set {
		if n := set[i].Load(); n != nil && n.addr == a {
			return n
		}
	}
	return nil
}

// add makes an entry; the one that had to go, if any, is returned.
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

// less reports whether an entry is of less use than another: those in use stay
// as long as there are others (RFC 6583 section 7.1).
func (n *neighbour) less(m *neighbour) bool {
	if a, b := n.hop.Load()&mayPass, m.hop.Load()&mayPass; a != b {
		return a == 0
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

// all calls do with every entry; it may remove it.
func (c *neighbours) all(do func(n *neighbour)) {
	for s := range c.sets {
		for i := range c.sets[s] {
			if n := c.sets[s][i].Load(); n != nil {
				do(n)
			}
		}
	}
}
