package engine

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Errors to inner senders: RFC 4443 section 2.4 f wants a limit, and so does RFC 1812
// section 4.3.2.8. One sender that ignores what it is told, and one network that makes
// up senders, must not use up what others need.
const (
	repliesPerSender  = 10 // a second, and at once
	repliesPerNetwork = 50
	repliesPerSecond  = 100
)

// errorLimit bounds errors of one kind to inner senders: to each of them, to each
// network of them, and to all. Its size does not depend on how many there are. Any
// goroutine may use it.
type errorLimit struct {
	once     sync.Once
	begun    time.Time
	seed     maphash.Seed
	total    *rate.Limiter
	senders  *shares
	networks *shares
}

// allow reports whether a sender may be told of an error now.
func (l *errorLimit) allow(to netip.Addr, at time.Time) bool {
	l.once.Do(func() {
		l.begun, l.seed = at, maphash.MakeSeed()
		l.total = rate.NewLimiter(repliesPerSecond, repliesPerSecond)
		l.senders, l.networks = newShares(repliesPerSender), newShares(repliesPerNetwork)
	})
	now := at.Sub(l.begun)
	return l.senders.take(maphash.Comparable(l.seed, to), now) &&
		l.networks.take(maphash.Comparable(l.seed, networkOf(to)), now) &&
		l.total.AllowN(at, 1)
}

// networkOf is the network in which one host may have every address.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// shares are limits of the same rate for as many as there may be: those with the same
// hash have one together.
type shares struct {
	every time.Duration
	burst time.Duration
	until [256]atomic.Int64 // when all that was taken will have been earned, in ns
}

// newShares is for so many a second, and as many at once.
func newShares(perSecond int) *shares {
	return &shares{every: time.Second / time.Duration(perSecond), burst: time.Second}
}

// take takes one, if there is one.
func (s *shares) take(hash uint64, now time.Duration) bool {
	at := &s.until[hash%uint64(len(s.until))]
	for {
		old := at.Load()
		until := max(old, int64(now)) + int64(s.every)
		if until > int64(now+s.burst) {
			return false
		}
		if at.CompareAndSwap(old, until) {
			return true
		}
	}
}
