package node

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Times and limits of peers (RFC 4380 sections 5.2 and 5.4).
const (
	peerLife      = 30 * time.Second // after the last packet from a peer, its mapping is not used any more
	peerRenew     = 20 * time.Second // after which the mapping is confirmed if it is in use
	bubblePause   = 2 * time.Second  // between two bubbles to a peer
	bubbleTries   = 3                // for one held packet
	bubbleMost    = 4                // bubbles without an answer
	bubbleWindow  = 300 * time.Second
	testPause     = 2 * time.Second // between two connectivity tests
	maxQueue      = 8               // packets that are held for a peer
	maxHeld       = 512             // packets that are held for all peers
	sweepInterval = time.Second
)

// peer is another Teredo node, or a native host behind a relay. What To and From use is
// atomic.
type peer struct {
	addr  header.Word6
	link  atomic.Uint64 // the mapping to which packets go, packed; 0: the peer is not trusted
	near  near
	heard atomic.Bool // packets have arrived since the last sweep
	used  atomic.Bool // packets were sent, or wanted to be sent, since the last sweep
	moved atomic.Bool // packets have come from another mapping since the last sweep

	// Used only by the methods of Agent.
	last    time.Time // when the peer was last heard of, or was made
	nonce   uint64    // in the source of bubbles to the peer
	test    [16]byte  // nonce of the connectivity test
	echo    echo      // for the answer to the peer's last bubble
	asking  bool      // bubbles or tests are sent until next, of which there are tries
	tries   int
	next    time.Time
	bubbles bubbles

	queue [][]byte
}

// near is where a peer on our link has answered.
type near struct {
	at    atomic.Uint64 // packed; 0: it has not
	until time.Time     // when that is forgotten
	next  time.Time     // when it may be asked again
}

// bubbles are those that were sent to a peer without an answer.
type bubbles struct {
	sent int
	last time.Time
}

// echo is the nonce in a bubble, if it has one.
type echo struct {
	nonce uint32
	ok    bool
}

func pack(m header.Mapping) uint64 { return uint64(m.Addr)<<16 | uint64(m.Port) }

func unpack(v uint64) header.Mapping { return header.Mapping{Addr: uint32(v >> 16), Port: uint16(v)} }

// is reports whether the peer is trusted at a mapping.
func (p *peer) is(at header.Mapping) bool { return p.link.Load() == pack(at) }

// isNear reports whether the peer has answered at an address on our link.
func (p *peer) isNear(at header.Mapping) bool { return p.near.at.Load() == pack(at) }

// trust makes packets to the peer go to a mapping.
func (p *peer) trust(at header.Mapping, now time.Time) {
	p.link.Store(pack(at))
	p.last, p.asking, p.tries, p.bubbles.sent = now, false, 0, 0
	p.moved.Store(false)
}

// spent reports whether as many bubbles were sent to the peer without an answer as may be: four
// in 300 s (RFC 4380 section 5.2.6).
func (p *peer) spent(now time.Time) bool {
	if p.bubbles.sent >= bubbleMost && now.Sub(p.bubbles.last) >= bubbleWindow {
		p.bubbles.sent = 0
	}
	return teredo.Is(p.addr) && p.bubbles.sent >= bubbleMost
}

func (p *peer) sending(now time.Time) { p.bubbles.sent, p.bubbles.last = p.bubbles.sent+1, now }

// table has a bounded number of peers.
type table struct {
	*agent.Table[peer]
	held int // packets in all queues
	lost int // packets that were given up since the last Next
}

// newTable returns a table for n peers, a power of two.
func newTable(n int) *table { return &table{Table: agent.NewTable[peer](n)} }

// add returns a peer, and makes it if it is not known. A new one takes the place of the one
// that was not heard of for longest, if that is neither in use nor trusted; otherwise the
// result is nil.
func (t *table) add(a header.Word6, now time.Time) *peer {
	if p := t.Find(a); p != nil {
		return p
	}
	begin := func(p *peer) {
		p.addr, p.last, p.nonce = a, now, agent.Nonce()
		binary.NativeEndian.PutUint64(p.test[:], agent.Nonce())
		binary.NativeEndian.PutUint64(p.test[8:], agent.Nonce())
	}
	return t.Add(a, begin, func(p *peer) bool {
		return p.link.Load() == 0 && !p.asking && len(p.queue) == 0 && p.bubbles.sent < bubbleMost
	}, func(p, q *peer) bool { return p.last.Before(q.last) })
}

// all calls f for each peer; if f returns false, the peer is removed.
func (t *table) all(f func(p *peer) (keep bool)) {
	t.All(func(p *peer) bool {
		keep := f(p)
		if !keep {
			t.giveUp(p)
		}
		return keep
	})
}

// hold keeps a copy of a packet for a peer, and reports whether there was room.
func (t *table) hold(p *peer, pkt []byte) bool {
	if len(p.queue) >= maxQueue || t.held >= maxHeld {
		return false
	}
	p.queue = append(p.queue, append([]byte(nil), pkt...))
	t.held++
	return true
}

// take returns the packets that are held for a peer.
func (t *table) take(p *peer) [][]byte {
	q := p.queue
	p.queue = nil
	t.held -= len(q)
	return q
}

// giveUp drops the packets that are held for a peer.
func (t *table) giveUp(p *peer) { t.lost += len(t.take(p)) }
