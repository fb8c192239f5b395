package broker

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/text"
	"sixfour/transport/access"
)

// refusal is a kind of refusals that are counted together.
type refusal struct {
	protocol string
	reason   access.Reason
}

// refusals counts refused clients. The kinds are few: servers give the protocols and reasons.
type refusals struct {
	mu     sync.Mutex
	counts map[refusal]uint64
	told   limiter
}

// Refuse implements access.Authority.
func (a *Authority) Refuse(protocol string, from netip.AddrPort, account string, why *access.Refusal) {
	r := &a.refusals
	r.mu.Lock()
	r.counts[refusal{protocol, why.Reason}]++
	r.mu.Unlock()
	more, ok := r.told.allow(a.config.Now())
	if !ok {
		return
	}
	a.config.Log.Warn("broker: a client was refused", zap.String("protocol", protocol), zap.Stringer("from", from),
		zap.String("account", account), zap.String("reason", string(why.Reason)), zap.String("because", why.Text), zap.Int("others", more))
	a.event(api.EventRefused, account, fmt.Sprintf("%s from %s: %s: %s", protocol, text.Outer(from), why.Reason, why.Text))
}

// limiter lets some lines of each second pass. The zero value may be used.
type limiter struct {
	mu     sync.Mutex
	second int64
	n      int
	more   int // not passed since
}

// perSecond is how many lines pass.
const perSecond = 10

// allow reports whether a line passes, and how many did not since the last one.
func (l *limiter) allow(now time.Time) (more int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.n = s, 0
	}
	if l.n >= perSecond {
		l.more++
		return 0, false
	}
	l.n++
	more, l.more = l.more, 0
	return more, true
}

// rates limits attempts by their sources. It forgets sources of which it has not heard for a
// while, and those that are too many.
type rates struct {
	mu       sync.Mutex
	now, old map[netip.Addr]attempts
	turned   time.Time
}

// attempts is how many attempts a source may make, at a time.
type attempts struct {
	left float32
	at   time.Time
}

const (
	// A source may be a NAT with many clients behind it, all of which come at once when a
	// server begins. An attempt that succeeds does not count.
	burstAttempts     = 1000
	attemptsPerSecond = 50
	maxSources        = 1 << 15 // in each of the two generations
)

// source returns the source of an address: of IPv6 a /64, which one host may have.
func source(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// Allow implements access.Authority.
func (a *Authority) Allow(from netip.Addr) bool { return a.rates.take(source(from), a.config.Now()) }

func (r *rates) take(from netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.get(from)
	if !ok {
		s = attempts{burstAttempts, now}
	}
	s.left = min(burstAttempts, s.left+float32(now.Sub(s.at).Seconds()*attemptsPerSecond))
	s.at = now
	allowed := s.left >= 1
	if allowed {
		s.left--
	}
	r.put(from, s, now)
	return allowed
}

// giveBack undoes take for an attempt that has succeeded.
func (r *rates) giveBack(from netip.Addr) {
	from = source(from)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.get(from); ok {
		s.left = min(burstAttempts, s.left+1)
		r.put(from, s, s.at)
	}
}

// get returns what is known of a source. The caller holds mu.
func (r *rates) get(from netip.Addr) (attempts, bool) {
	if s, ok := r.now[from]; ok {
		return s, true
	}
	s, ok := r.old[from]
	return s, ok
}

// put records a source. What has not been put for one or two generations is forgotten: by
// then it may make a burst of attempts anyway. The caller holds mu.
func (r *rates) put(from netip.Addr, s attempts, now time.Time) {
	const generation = burstAttempts / attemptsPerSecond * time.Second
	if r.now == nil || len(r.now) >= maxSources || now.Sub(r.turned) > generation {
		r.old, r.now, r.turned = r.now, map[netip.Addr]attempts{}, now
	}
	r.now[from] = s
}
