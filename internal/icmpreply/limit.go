package icmpreply

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits of errors to inner senders, required by RFC 4443 section 2.4 f and RFC 1812
// section 4.3.2.8. A sender that ignores the errors, or a network that forges senders, must
// not use up what the others need.
const (
	PerSender  = 10 // per second, and burst
	perNetwork = 50
	perSecond  = 100
)

// errorLimit limits errors of one kind to inner senders: to each sender, to each network,
// and in total. Its size does not depend on their number. Any goroutine may use it.
type errorLimit struct {
	once     sync.Once
	begun    time.Time
	seed     maphash.Seed
	total    *rate.Limiter
	senders  *shares
	networks *shares
}

// allow reports whether an error may be sent to a sender now.
func (l *errorLimit) allow(to netip.Addr, at time.Time) bool {
	l.once.Do(func() {
		l.begun, l.seed = at, maphash.MakeSeed()
		l.total = rate.NewLimiter(perSecond, perSecond)
		l.senders, l.networks = newShares(PerSender), newShares(perNetwork)
	})
	now := at.Sub(l.begun)
	return l.senders.take(maphash.Comparable(l.seed, to), now) &&
		l.networks.take(maphash.Comparable(l.seed, networkOf(to)), now) &&
		l.total.AllowN(at, 1)
}

// networkOf returns the prefix in which one host may have every address.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// shares holds rate limits for any number of keys. Keys with the same hash share a limit.
type shares struct {
	every time.Duration
	burst time.Duration
	until [256]atomic.Int64 // when the whole burst is available again, in ns since begun
}

// newShares makes limits of perSecond per second, with an equal burst.
func newShares(perSecond int) *shares {
	return &shares{every: time.Second / time.Duration(perSecond), burst: time.Second}
}

// take takes one from the limit of a hash, and reports whether there was one.
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
