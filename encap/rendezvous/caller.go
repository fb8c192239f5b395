package rendezvous

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"sixfour/encap/header"
)

const (
	// outstanding is how many hellos wait for an answer at the same time, so that a round
	// trip may be longer than the pause between the first hellos.
	outstanding = 4
	// firstRetry is the pause before a hello without an answer is repeated. It doubles up to
	// lastRetry.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// leastPause is the shortest pause between hellos that Wake causes.
	leastPause = 200 * time.Millisecond
	// ahead is how far a caller that is refused as stale sets its time before the listener's:
	// an earlier hello was accepted with a time up to Window later than the listener's, from a
	// clock that was set back since.
	ahead = Window - 10*time.Second
	// atOnce is how many refusals in a row are each followed by a hello at once.
	atOnce = 3
)

// Caller is the end that connects. It must not be used concurrently. Times are those of the
// host's clock.
type Caller struct {
	key      *Key
	interval time.Duration

	cookie  [cookieLen]byte
	counter uint32
	last    time.Time     // of the last hello, as it was written
	offset  time.Duration // what is added to the host's clock
	sent    [outstanding]struct {
		stamp stamp
		at    time.Time // zero: answered, or nothing was sent
	}

	next, before time.Time // of the next hello and of the one before
	tries        int       // hellos since the last accepted answer
	refused      int       // refusals since then
}

// NewCaller returns a Caller that sends a hello after each interval. Next returns the first
// one at once.
func NewCaller(key *Key, interval time.Duration) *Caller {
	c := &Caller{key: key, interval: max(interval, firstRetry)}
	var b [4]byte
	rand.Read(b[:])
	c.counter = binary.BigEndian.Uint32(b[:])
	return c
}

// Answer is what a Caller learns from an answer of the listener.
type Answer struct {
	Outcome Outcome
	// Seen is the address and port from which the hello came at the listener. It is valid if
	// the outcome is one of those that are sent in answers.
	Seen netip.AddrPort
	// NAT reports that Seen is not the address and port at which the answer arrived.
	NAT bool
	// Ahead is the listener's time less ours.
	Ahead time.Duration
	RTT   time.Duration // from the hello to the answer
}

// Wake requests a hello soon, because our address or that of the listener has changed, or
// because the listener seems to have lost ours. Call Next afterwards.
func (c *Caller) Wake(now time.Time) {
	c.tries, c.refused = 0, 0
	if due := c.before.Add(leastPause); now.Before(due) {
		now = due
	}
	if now.Before(c.next) {
		c.next = now
	}
}

// Next returns the hello to send to the listener now, nil if there is none, and the time by
// which to call Next again. Call it at the start and after each Receive and Wake.
func (c *Caller) Next(now time.Time) (hello []byte, again time.Time) {
	// If the clock was set back, the time of the next hello may be far away.
	if now.Before(c.next) && c.next.Sub(now) <= max(c.interval, lastRetry) {
		return nil, c.next
	}
	pause := min(firstRetry<<min(c.tries, 8), lastRetry, c.interval)
	c.tries++
	c.before, c.next = now, now.Add(pause)
	return c.hello(now), c.next
}

// hello returns the next hello.
func (c *Caller) hello(now time.Time) []byte {
	t := now.Add(c.offset)
	// Stamps increase, even if the clock is set back a little. After more than Window, the
	// listener refuses the old time anyway.
	if back := c.last.Sub(t); back >= 0 && back <= Window {
		t = c.last.Add(1)
	}
	c.last = t
	c.counter++

	b := begin(typeHello, c.key)
	putTime(b[atTime:], t)
	binary.BigEndian.PutUint32(b[atCounter:], c.counter)
	lifetime := min(max(4*c.interval, shortestLifetime), longestLifetime)
	binary.BigEndian.PutUint16(b[atLifetime:], uint16(lifetime/lifetimeUnit))
	copy(b[atCookie:], c.cookie[:])
	c.key.seal(b)

	copy(c.sent[1:], c.sent[:])
	c.sent[0].stamp, c.sent[0].at = stampOf(b), now
	return b
}

// Receive handles the payload of a datagram from the listener, for which IsMessage is true.
// Only an answer with an Outcome up to Stale is from the listener.
func (c *Caller) Receive(o header.Outer, b []byte, now time.Time) Answer {
	a := Answer{Outcome: check(b, typeAnswer)}
	if a.Outcome != Accepted {
		return a
	}
	if id(b[atID:atTime]) != c.key.id {
		a.Outcome = Stranger
		return a
	}
	if !c.key.valid(b) {
		a.Outcome = Forged
		return a
	}
	a.Outcome = Outcome(b[atOutcome])
	sentAt, ok := c.answered(stampOf(b))
	if !ok || a.Outcome > Stale {
		a.Outcome = Unasked
		return a
	}
	a.Seen = endpointOf(b)
	a.NAT = a.Seen != netip.AddrPortFrom(o.At.Addr().Unmap().WithZone(""), o.At.Port())
	a.RTT = max(now.Sub(sentAt), 0)
	listeners := readTime(int64(binary.BigEndian.Uint64(b[atListenersTime:])), binary.BigEndian.Uint32(b[atListenersTime+8:]))
	a.Ahead = listeners.Sub(now.Add(-a.RTT / 2).Round(0))
	copy(c.cookie[:], b[atCookie:])
	c.follow(a, now)
	return a
}

// answered reports whether a hello with a stamp waits for an answer, and returns when it was
// sent. The answer to one hello is the answer to the earlier ones, too, and to those that were
// sent in the meantime, before its cookie was known.
func (c *Caller) answered(s stamp) (at time.Time, ok bool) {
	for _, h := range c.sent {
		if !h.at.IsZero() && h.stamp == s {
			clear(c.sent[:])
			return h.at, true
		}
	}
	return time.Time{}, false
}

// follow sets the time of the next hello.
func (c *Caller) follow(a Answer, now time.Time) {
	if a.Outcome == Accepted {
		c.tries, c.refused = 0, 0
		c.next = now.Add(c.interval)
		return
	}
	switch a.Outcome {
	case Clock:
		c.offset = a.Ahead
	case Stale:
		c.offset = a.Ahead + ahead
	}
	if c.refused++; c.refused <= atOnce {
		c.next = now
	}
}
