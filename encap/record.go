package encap

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Record is the state that outlives a Stack. When the path to a peer changes, its stack
// is replaced. Identifications must continue then, so that none is used twice while
// packets with it are still in the network (RFC 6864 section 4.3), and counters must not
// start again. The stacks that share a Record may be used concurrently.
type Record struct {
	id6    atomic.Uint32
	id4    atomic.Uint32
	epoch  atomic.Int64 // when id4 was last at a multiple of 65536, in seconds since begun; 0: never
	wraps  atomic.Uint64
	oddECN atomic.Uint64

	sent     atomic.Uint32 // GRE packets with a sequence number
	sequence sequence      // of received packets

	destMTUs destMTUs
}

// NewRecord returns a Record that begins at random identifications.
func NewRecord() *Record {
	r := new(Record)
	r.id4.Store(rand.Uint32())
	r.id6.Store(rand.Uint32())
	return r
}

// Wraps returns how often IPv4 identifications have wrapped around within the lifetime
// of a fragment. Fragments of different packets can then be mixed up.
func (r *Record) Wraps() uint64 { return r.wraps.Load() }

// OddECN returns how many packets came with a combination of inner and outer ECN field
// that no correct path produces (RFC 6040 section 4.2).
func (r *Record) OddECN() uint64 { return r.oddECN.Load() }

// fragmentLife is how long a fragment may live in the network (RFC 6864 section
// 3: the maximum datagram lifetime).
const fragmentLife = 120 // seconds

// begun is the reference point for the times of wraps.
var begun = time.Now()

// nextID4 returns the identification for a packet that may be fragmented. It does not
// repeat for as long as a 16-bit counter allows (RFC 6864 section 4.3), and is never 0,
// which the kernel would replace. Atomic packets, with DF, have 0.
func (r *Record) nextID4() uint16 {
	for {
		id := uint16(r.id4.Add(1))
		if id != 0 {
			return id
		}
		now := int64(time.Since(begun)/time.Second) + 1 // monotonic, because the wall clock may be set; 0 means never
		if last := r.epoch.Swap(now); last != 0 && now-last < fragmentLife {
			r.wraps.Add(1)
		}
	}
}

// nextID6 returns the identification for the next IPv6 packet that is fragmented. It has
// 32 bits (RFC 8200 section 4.5).
func (r *Record) nextID6() uint32 { return r.id6.Add(1) }

// recentID4 reports whether a packet with the identification may still be in the
// network.
func (r *Record) recentID4(id uint16) bool {
	const window = 1 << 13 // packets back
	return id != 0 && uint16(r.id4.Load())-id < window
}

// nextSequence returns the number of the next GRE packet; the first has 0 (RFC 2890
// section 2.2).
func (r *Record) nextSequence() uint32 { return r.sent.Add(1) - 1 }

// sequence is the state of the sequence numbers of received GRE packets.
type sequence struct {
	mu    sync.Mutex // contended only while the configuration changes
	next  uint32     // the smallest number that is not old
	at    time.Time  // when the last packet was accepted; zero: none was
	other uint32     // the number that would continue the run of refused packets
	run   int        // length of that run
}

// A number is accepted if it is at most sequenceAhead after the last one: a single
// packet with a number further away may be forged, and must not make the peer's own
// packets old. If the peer really is at other numbers, because more packets were lost or
// because it counts from 0 again, sequenceRun consecutive packets prove it, if no packet
// between them continues the old sequence.
//
// Numbers shortly before the last one belong to packets that were overtaken or
// duplicated on the way; these are consecutive too. They begin a run only if no packet
// was accepted for longer than reordering can take.
const (
	sequenceAhead  = 1 << 10
	sequenceBehind = 1 << 15
	sequenceRun    = 4
	overtaking     = time.Second
)

// restartSilence is how long no packet must have been accepted for any number to be
// accepted as the first after a restart. It lets a peer that seldom sends resume at
// once.
const restartSilence = 10 * time.Second

// inSequence reports whether a GRE packet is not older than an earlier one (RFC 2890
// section 2.2). It does not wait for missing numbers.
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

// elsewhere records a number that does not continue the sequence. It reports whether the
// number completes a run of sequenceRun packets, which then replaces the sequence.
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
