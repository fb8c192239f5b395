package tsp

import (
	"hash/maphash"
	"time"
)

// Times of a client that waits for an answer over UDP: the first one, which doubles with each
// repetition, and how often a message is sent again.
const (
	FirstWait = time.Second
	Repeats   = 5
)

// Exchange is a client's side of messages over UDP: one is under way at a time, and is sent
// again until its answer comes.
type Exchange struct {
	start    time.Time
	sequence uint32
	text     []byte
	waiting  bool
	sent     int // how often the message was sent
	wait     time.Duration
	again    time.Time
	first    time.Duration // the first wait
}

// NewExchange begins with a sequence number. Timestamps count from start, in milliseconds.
// Messages are sent again after first, at first.
func NewExchange(start time.Time, sequence uint32, first time.Duration) *Exchange {
	return &Exchange{start: start, sequence: sequence, first: first}
}

// Send returns the datagram of the next message.
func (x *Exchange) Send(text []byte, now time.Time) []byte {
	if x.sent > 0 {
		x.sequence = x.sequence&^0xf | (x.sequence+1)&0xf
	}
	x.text, x.waiting, x.sent, x.wait = text, true, 0, x.first
	return x.datagram(now)
}

// datagram is the message with the present time.
func (x *Exchange) datagram(now time.Time) []byte {
	x.sent++
	x.again = now.Add(x.wait)
	x.wait *= 2
	h := Header{x.sequence, uint32(now.Sub(x.start).Milliseconds())}
	return append(h.Append(make([]byte, 0, HeaderLen+len(x.text))), x.text...)
}

// Due returns when to call Repeat. Ok is false if no message is under way.
func (x *Exchange) Due() (at time.Time, ok bool) { return x.again, x.waiting }

// Repeat returns the datagram to send again. It is nil if the message was sent often enough:
// there is no answer.
func (x *Exchange) Repeat(now time.Time) []byte {
	if !x.waiting || x.sent > Repeats {
		x.waiting = false
		return nil
	}
	return x.datagram(now)
}

// Answers reports whether a datagram with a header is the answer to the message under way. A
// later one is not.
func (x *Exchange) Answers(h Header) bool {
	ok := x.waiting && h.Sequence == x.sequence
	x.waiting = x.waiting && !ok
	return ok
}

// Reset reports whether a header is that of a server which does not know the client: such a
// server in the field answers to no message in particular.
func Reset(h Header) bool { return h.Sequence == 0xffffffff }

// kept is how many answers a Cache keeps.
const kept = 8

// Cache keeps the last answers of a server to one client, for messages that come twice. The
// zero value is empty.
type Cache struct {
	answers [kept]cached
	next    int
	repeats int
}

type cached struct {
	used     bool
	sequence uint32
	sum      uint64 // of the message
	answer   []byte
}

// maxRepeats is how many answers a client gets a second time in a dialogue.
const maxRepeats = 32

var seed = maphash.MakeSeed()

// Find returns the answer that was given to a message with a sequence number. Known is false if
// there was none. The answer is nil if it was given too often.
func (c *Cache) Find(sequence uint32, text []byte) (answer []byte, known bool) {
	for i := range c.answers {
		a := &c.answers[i]
		if a.used && a.sequence == sequence && a.sum == maphash.Bytes(seed, text) {
			if c.repeats++; c.repeats > maxRepeats {
				return nil, true
			}
			return a.answer, true
		}
	}
	return nil, false
}

// Keep notes the answer to a message.
func (c *Cache) Keep(sequence uint32, text, answer []byte) {
	if answer == nil {
		answer = []byte{}
	}
	c.answers[c.next] = cached{true, sequence, maphash.Bytes(seed, text), answer}
	c.next = (c.next + 1) % kept
}
