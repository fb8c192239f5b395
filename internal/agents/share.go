package agents

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// shares limits the messages of each source, so that one that sends many does not use up what
// the agent accepts from all. It needs the same memory for any number of sources: each has two
// places, chosen by a secret hash, that it may have in common with others. A source can be shut
// out only by sources that have both its places.
type shares struct {
	seed   maphash.Seed
	start  time.Time
	every  int64 // nanoseconds between two messages of a source, in the long run
	burst  int64 // nanoseconds by which a source may be ahead of that
	places [sharePlaces]atomic.Int64
}

const (
	// sharePlaces is how many places there are.
	sharePlaces = 1 << 12
	// sharesOfBusy is how many sources together use up what a resolve.Busy agent accepts.
	sharesOfBusy = 20
)

// newShares returns limits of a number of messages in a second for each source. It may send as
// many at once.
func newShares(perSecond int, now time.Time) *shares {
	return &shares{seed: maphash.MakeSeed(), start: now, every: int64(time.Second) / int64(perSecond), burst: int64(time.Second)}
}

// allow reports whether a message of a source is within its limit at a time. A nil shares
// allows all.
func (s *shares) allow(from netip.Addr, at time.Time) bool {
	if s == nil {
		return true
	}
	h := maphash.Comparable(s.seed, from)
	a, b := &s.places[h%sharePlaces], &s.places[h>>32%sharePlaces]
	now := int64(at.Sub(s.start))
	for {
		// Each place has the time until which what was sent is paid for.
		place, paid := a, a.Load()
		if other := b.Load(); other < paid {
			place, paid = b, other
		}
		next := max(paid, now) + s.every
		if next-now > s.burst {
			return false
		}
		if place.CompareAndSwap(paid, next) {
			return true
		}
	}
}
