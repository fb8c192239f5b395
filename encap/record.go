package encap

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Record is what outlives a Stack. When the path to a peer changes, its stack is
// replaced, but identifications must go on, lest one is used twice while packets
// with it are still on their way (RFC 6864 section 4.3), and counts must not
// begin anew. The stacks that share a Record may be used by any number of
// goroutines.
type Record struct {
	id6    atomic.Uint32
	id4    atomic.Uint32
	epoch  atomic.Int64 // when id4 was last at a multiple of 65536, in seconds since begun; 0: never
	wraps  atomic.Uint64
	oddECN atomic.Uint64

	sent     atomic.Uint32 // GRE packets with a sequence number
	sequence sequence      // of those that come

	narrow narrow
}

// NewRecord begins at random identifications.
func NewRecord() *Record {
	r := new(Record)
	r.id4.Store(rand.Uint32())
	r.id6.Store(rand.Uint32())
	return r
}

// Wraps is how often IPv4 identifications have come round within the time in
// which a fragment may live: then fragments of different packets can be mixed up.
func (r *Record) Wraps() uint64 { return r.wraps.Load() }

// OddECN is how many packets came with a combination of inner and outer ECN
// field that no sound path makes (RFC 6040 section 4.2).
func (r *Record) OddECN() uint64 { return r.oddECN.Load() }

// fragmentLife is how long a fragment may live in the network (RFC 6864 section
// 3: the maximum datagram lifetime).
const fragmentLife = 120 // seconds

// begun is a moment from which the times of wraps are counted.
var begun = time.Now()

// nextID4 is the identification of a packet that may be fragmented: never twice
// the same for as long as a 16-bit counter allows (RFC 6864 section 4.3), and
// never 0, which the kernel would replace. Atomic packets, with DF, have 0.
func (r *Record) nextID4() uint16 {
	for {
		id := uint16(r.id4.Add(1))
		if id != 0 {
			return id
		}
		now := int64(time.Since(begun)/time.Second) + 1 // a clock on the wall may be set; 0 is never
		if last := r.epoch.Swap(now); last != 0 && now-last < fragmentLife {
			r.wraps.Add(1)
		}
	}
}

// nextID6 is the identification of the next IPv6 packet that is fragmented, which
// has 32 bits for it (RFC 8200 section 4.5).
func (r *Record) nextID6() uint32 { return r.id6.Add(1) }

// recentID4 reports whether a packet with the identification may still be on
// its way.
func (r *Record) recentID4(id uint16) bool {
	const window = 1 << 13 // packets back
	return id != 0 && uint16(r.id4.Load())-id < window
}

// nextSequence is the number of the next GRE packet; the first has 0 (RFC 2890
// section 2.2).
func (r *Record) nextSequence() uint32 { return r.sent.Add(1) - 1 }

// sequence is what is known of the GRE packets that came.
type sequence struct {
	mu    sync.Mutex // of one goroutine, unless the configuration changes
	next  uint32     // the least number that is not old
	at    time.Time  // of the last packet that was taken; zero: there was none
	other uint32     // what would go on with those that were refused, in turn
	run   int        // how many these are
}

// A number is taken if it is at most sequenceAhead in front of the last one: a single
// packet with another, which anybody may have forged, must not make the peer's own
// packets old ones. If the peer really is elsewhere, because more were lost or because it
// counts from 0 again, sequenceRun packets that follow each other, with none in between
// that continues what was before, show it.
//
// Numbers just behind the last one are such of packets that were overtaken or doubled on
// the way, which also follow each other. They begin a run only when none was taken for
// longer than packets overtake each other by.
const (
	sequenceAhead  = 1 << 10
	sequenceBehind = 1 << 15
	sequenceRun    = 4
	overtaking     = time.Second
)

// restartSilence is after how long without a packet that was taken any number is the
// first after a restart, so that a peer that seldom sends is believed at once.
const restartSilence = 10 * time.Second

// inSequence reports whether a GRE packet is not older than one that came before
// (RFC 2890 section 2.2). Nothing waits for numbers that are missing.
func (r *Record) inSequence(n uint32) bool {
	s := &r.sequence
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	silence := now.Sub(s.at)
	if n-s.next >= sequenceAhead && silence < restartSilence && !s.elsewhere(n, silence) {
		return false
	}
	s.next, s.at, s.run = n+1, now, 0
	return true
}

// elsewhere notes a number that does not continue the sequence, and reports whether it
// completes a run that does.
func (s *sequence) elsewhere(n uint32, silence time.Duration) bool {
	if s.next-n <= sequenceBehind && silence < overtaking {
		return false
	}
	if n-s.other >= sequenceAhead {
		s.run = 0
	}
	s.run++
	s.other = n + 1
	return s.run == sequenceRun
}
