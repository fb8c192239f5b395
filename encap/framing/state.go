package framing

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is what the framings of one peer remember of its packets. It outlives codecs, and
// may be used concurrently.
type State struct {
	sent     atomic.Uint32 // GRE packets with a sequence number
	sealed   atomic.Uint32 // identification of the last SEAL packet
	sequence sequence      // of received packets
}

// nextSequence returns the number of the next GRE packet; the first has 0 (RFC 2890
// section 2.2).
func (s *State) nextSequence() uint32 { return s.sent.Add(1) - 1 }

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
func (s *State) inSequence(n uint32) bool {
	q := &s.sequence
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	silence := now.Sub(q.at)
	if n-q.next >= sequenceAhead && silence < restartSilence && !q.elsewhere(n, silence) {
		return false
	}
	q.next, q.at, q.run = n+1, now, 0
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
