// Package capture shows what goes through a tunnel: copies of packets, inner and
// outer, carried or not, as pcapng.
//
// A Tap is one capture that somebody reads. The goroutines that carry packets give it
// copies and never wait for it: what does not fit is counted, and the reader is told.
// Filters are run, and pcapng is made, by who reads.
package capture

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/drop"
	"sixfour/internal/pcapfilter"
	"sixfour/internal/pcapng"
)

// Sides says which packets of a tunnel are wanted.
type Sides int

// Of a packet that is carried there are two: the outer one, as it is on the wire, and
// the inner one.
const (
	Both Sides = iota
	Inner
	Outer
)

// Request is what somebody wants to see.
type Request struct {
	Tunnel string
	Sides  Sides
	Filter string // as package pcapfilter understands it; "": everything
	Snap   int    // bytes that are kept of a packet; 0: all
	Count  uint64 // packets, inner and outer counted as one, after which it ends; 0: never
}

// Sink is who reads.
type Sink interface {
	io.Writer
	// Flush hands over what was written.
	Flush() error
}

// Packet is something that was seen.
type Packet struct {
	ID        uint64    // of the packet, in all captures; 0: it gets one
	At        time.Time // from Clock.Hold; zero: now
	Direction pcapng.Direction
	Outer     Bytes
	Inner     Bytes
	Fragments [][]byte    // instead of Outer: the inner packet went in these
	Reason    drop.Reason // why it was not carried; None: it was
	Err       error       // what the kernel said, or nil
	Count     int         // how many packets it stands for, if not for one
	Note      string      // what else there is to know
}

// Bytes is a packet in two pieces; there is none if both are empty.
type Bytes struct{ Head, Body []byte }

// Len is the packet's length in bytes.
func (b *Bytes) Len() int { return len(b.Head) + len(b.Body) }

// room is how many bytes of packets wait for the reader at most. There are two
// buffers of this size: one is read while the other is filled.
const room = 4 << 20

// MaxTaps is how many captures there may be at a time.
const MaxTaps = 8

// Tap is one capture.
type Tap struct {
	request Request
	filter  *pcapfilter.Filter
	begun   time.Time // and how the clock goes from there
	wake    chan struct{}
	clock   *Clock // nil: what is shown is in order

	mu      sync.Mutex
	waiting batch
	lost    uint64 // since the last batch was taken
	ended   bool
	why     error         // why it was ended
	taken   time.Duration // the time of the last packet that the reader took
}

// batch is what has been seen since the reader looked.
type batch struct {
	seen  []sight
	bytes []byte
	lost  uint64 // that came after these
}

// sight is a packet of a batch: its bytes lie in the batch's.
type sight struct {
	at        time.Duration // since the capture began
	id        uint64
	direction pcapng.Direction
	reason    drop.Reason
	count     int
	err       error
	note      string
	from      int // where its bytes begin in the batch's
	inner     int // bytes
	outer     int // bytes
}

// sightCost is what a sight takes beside its bytes, roughly.
const sightCost = 128

// add adds a packet, if there is something of it.
func (b *batch) add(s sight, inner, outer Bytes) {
	if s.inner, s.outer = inner.Len(), outer.Len(); s.inner+s.outer == 0 {
		return
	}
	s.from = len(b.bytes)
	b.bytes = append(append(b.bytes, inner.Head...), inner.Body...)
	b.bytes = append(append(b.bytes, outer.Head...), outer.Body...)
	b.seen = append(b.seen, s)
}

// split sorts what was seen by its time, which is no earlier than the given one, and
// moves what is later than another to rest.
func (b *batch) split(earliest, until time.Duration, rest *batch) {
	for i := range b.seen {
		b.seen[i].at = max(b.seen[i].at, earliest)
	}
	byTime := func(x, y sight) int { return cmp.Compare(x.at, y.at) }
	if !slices.IsSortedFunc(b.seen, byTime) {
		slices.SortStableFunc(b.seen, byTime)
	}
	n := len(b.seen)
	for n > 0 && b.seen[n-1].at > until {
		n--
	}
	for _, s := range b.seen[n:] {
		inner, outer := b.of(&s)
		rest.add(s, Bytes{Head: inner}, Bytes{Head: outer})
	}
	b.seen = b.seen[:n]
}

// of are the bytes of one that was seen.
func (b *batch) of(s *sight) (inner, outer []byte) {
	all := b.bytes[s.from : s.from+s.inner+s.outer]
	return all[:s.inner], all[s.inner:]
}

var ids atomic.Uint64

// NextID is one for a packet.
func NextID() uint64 { return ids.Add(1) }

// New begins a capture. The error is about what was asked for.
func New(r Request) (*Tap, error) {
	filter, err := pcapfilter.Compile(r.Filter)
	if err != nil {
		return nil, err
	}
	if r.Snap < 0 || r.Snap > pcapng.MaxSnap {
		return nil, fmt.Errorf("a snap length of %d: give 1 to %d bytes, or 0 for all", r.Snap, pcapng.MaxSnap)
	}
	return &Tap{request: r, filter: filter, begun: time.Now(), wake: make(chan struct{}, 1)}, nil
}

// Await makes the reader wait for what is being sent by a clock. It is called before
// anything is shown.
func (t *Tap) Await(c *Clock) { t.clock = c }

// Show gives the tap copies of a packet. Any goroutine may call it; it does not wait
// for the reader.
func (t *Tap) Show(p *Packet) {
	id := p.ID
	if id == 0 {
		id = NextID()
	}
	s := sight{id: id, direction: p.Direction, reason: p.Reason, count: p.Count, err: p.Err, note: p.Note}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	b := &t.waiting
	size := sightCost + p.Inner.Len() + p.Outer.Len()
	for _, f := range p.Fragments {
		size += len(f) + sightCost
	}
	if len(b.bytes)+len(b.seen)*sightCost+size > room {
		t.lost++
		return
	}
	if p.At.IsZero() {
		s.at = time.Since(t.begun) // under the lock: no packet is earlier than the one before
	} else {
		s.at = max(0, p.At.Sub(t.begun))
	}
	var inner, outer Bytes
	if t.request.Sides != Outer {
		inner = p.Inner
	}
	if t.request.Sides != Inner {
		outer = p.Outer
	}
	b.add(s, inner, outer)
	if t.request.Sides != Inner {
		for _, f := range p.Fragments {
			b.add(s, Bytes{}, Bytes{Head: f})
		}
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// End ends the capture: its reader gets what was seen until now, and then the reason.
// It may be called more than once; the first reason counts.
func (t *Tap) End(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.why = true, why
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// take exchanges what was seen, as far as nothing earlier can come, for an empty batch,
// and reports whether something is left.
func (t *Tap) take(empty batch) (b batch, left, ended bool, why error) {
	until := t.clock.settled().Sub(t.begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		until = math.MaxInt64
	}
	b = t.waiting
	b.lost, t.lost = t.lost, 0
	clear(empty.seen)
	t.waiting = batch{seen: empty.seen[:0], bytes: empty.bytes[:0]}
	b.split(t.taken, until, &t.waiting)
	if n := len(b.seen); n > 0 {
		t.taken = b.seen[n-1].at
	}
	return b, len(t.waiting.seen) > 0, t.ended, t.why
}
