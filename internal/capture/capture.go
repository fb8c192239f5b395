// Package capture shows the packets of a tunnel, inner and outer, carried or dropped, as
// pcapng.
//
// A Tap is one capture with one reader. The goroutines that carry packets copy them to the
// tap, and never wait for the reader: packets for which there is no room are counted, and
// the capture reports the count. The goroutine of the reader runs the filter and writes
// pcapng.
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

// Sides selects packets of a tunnel.
type Sides int

// A packet that is carried exists twice: the outer packet is the one on the wire, the inner
// packet is the one inside it.
const (
	Both Sides = iota
	Inner
	Outer
)

// sidesNames are the names of Sides in the control API.
var sidesNames = [...]string{Both: "both", Inner: "inner", Outer: "outer"}

// String returns the name of s in the control API.
func (s Sides) String() string { return sidesNames[s] }

// SidesNamed returns the Sides with a name; "" means Both.
func SidesNamed(name string) (s Sides, ok bool) {
	if name == "" {
		return Both, true
	}
	i := slices.Index(sidesNames[:], name)
	return Sides(i), i >= 0
}

// Request describes a capture.
type Request struct {
	Tunnel string
	Sides  Sides
	Filter string // in the language of package pcapfilter; "": everything
	Snap   int    // bytes stored of each packet; 0: all
	Count  uint64 // packets after which it ends, inner and outer counted as one; 0: never
}

// Sink is the destination of a capture.
type Sink interface {
	io.Writer
	// Flush delivers what was written.
	Flush() error
}

// Packet is a captured packet.
type Packet struct {
	ID        uint64    // the same in all captures; 0: a new one
	At        time.Time // from Clock.Hold; zero: now
	Direction pcapng.Direction
	Outer     Bytes
	Inner     Bytes
	Fragments [][]byte    // instead of Outer: the outer packets of the inner packet
	Reason    drop.Reason // why it was dropped; None: it was carried
	Err       error       // the kernel's error, or nil
	Count     int         // number of packets that this one stands for, if more than one
	Note      string      // further explanation
	Path      int         // which of several paths to the peer it uses, from 1; 0: the only one, or none
}

// Bytes is a packet in two parts; if both are empty, there is no packet.
type Bytes struct{ Head, Body []byte }

// Whole returns a packet that is in one part.
func Whole(b []byte) Bytes { return Bytes{Head: b} }

// Len is the packet's length in bytes.
func (b *Bytes) Len() int { return len(b.Head) + len(b.Body) }

// maxWaiting is the most bytes that wait for the reader. There are two buffers of this size: one
// is read while the other is filled.
const maxWaiting = 4 << 20

// MaxTaps limits concurrent captures.
const MaxTaps = 8

// Tap is one capture.
type Tap struct {
	request Request
	filter  *pcapfilter.Filter
	start   time.Time // with the monotonic clock
	wake    chan struct{}
	clock   *Clock // nil: packets are shown in order

	mu        sync.Mutex
	waiting   batch
	lost      uint64 // since the last batch was taken
	ended     bool
	cause     error         // why the capture ended
	lastTaken time.Duration // time of the last packet taken by the reader
}

// batch holds the packets that wait for the reader.
type batch struct {
	records []record
	bytes   []byte
	lost    uint64 // packets lost after these
}

// record is a packet of a batch; its bytes are in batch.bytes.
type record struct {
	at        time.Duration // since the capture began
	id        uint64
	direction pcapng.Direction
	reason    drop.Reason
	count     int
	err       error
	note      string
	path      int
	offset    int // offset of its bytes in batch.bytes
	inner     int // length in bytes
	outer     int // length in bytes
}

// recordCost is about what a record takes beside the bytes of the packet.
const recordCost = 128

// add adds a packet unless it is empty.
func (b *batch) add(s record, inner, outer Bytes) {
	if s.inner, s.outer = inner.Len(), outer.Len(); s.inner+s.outer == 0 {
		return
	}
	s.offset = len(b.bytes)
	b.bytes = append(append(b.bytes, inner.Head...), inner.Body...)
	b.bytes = append(append(b.bytes, outer.Head...), outer.Body...)
	b.records = append(b.records, s)
}

// split sorts the packets by time, after raising earlier times to earliest, and moves those
// later than until to rest.
func (b *batch) split(earliest, until time.Duration, rest *batch) {
	for i := range b.records {
		b.records[i].at = max(b.records[i].at, earliest)
	}
	byTime := func(x, y record) int { return cmp.Compare(x.at, y.at) }
	if !slices.IsSortedFunc(b.records, byTime) {
		slices.SortStableFunc(b.records, byTime)
	}
	n := len(b.records)
	for n > 0 && b.records[n-1].at > until {
		n--
	}
	for _, s := range b.records[n:] {
		inner, outer := b.packets(&s)
		rest.add(s, Bytes{Head: inner}, Bytes{Head: outer})
	}
	b.records = b.records[:n]
}

// packets returns the bytes of a record.
func (b *batch) packets(s *record) (inner, outer []byte) {
	all := b.bytes[s.offset : s.offset+s.inner+s.outer]
	return all[:s.inner], all[s.inner:]
}

var ids atomic.Uint64

// NextID returns a new packet ID.
func NextID() uint64 { return ids.Add(1) }

// New starts a capture. An error means that the request is invalid.
func New(r Request) (*Tap, error) {
	filter, err := pcapfilter.Compile(r.Filter)
	if err != nil {
		return nil, err
	}
	if r.Snap < 0 || r.Snap > pcapng.MaxSnap {
		return nil, fmt.Errorf("a snap length of %d: give 1 to %d bytes, or 0 for all", r.Snap, pcapng.MaxSnap)
	}
	return &Tap{request: r, filter: filter, start: time.Now(), wake: make(chan struct{}, 1)}, nil
}

// UseClock makes the reader wait for packets whose times the clock holds. It must be called
// before Show.
func (t *Tap) UseClock(c *Clock) { t.clock = c }

// Show gives the tap copies of a packet. It does not wait for the reader. Any goroutine may
// call it.
func (t *Tap) Show(p *Packet) {
	id := p.ID
	if id == 0 {
		id = NextID()
	}
	s := record{id: id, direction: p.Direction, reason: p.Reason, count: p.Count, err: p.Err, note: p.Note, path: p.Path}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	b := &t.waiting
	size := recordCost + p.Inner.Len() + p.Outer.Len()
	for _, f := range p.Fragments {
		size += len(f) + recordCost
	}
	if len(b.bytes)+len(b.records)*recordCost+size > maxWaiting {
		t.lost++
		return
	}
	if p.At.IsZero() {
		s.at = time.Since(t.start) // under the lock, so that times never decrease
	} else {
		s.at = max(0, p.At.Sub(t.start))
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

// End ends the capture: its reader gets the packets so far, and then the cause. It may be
// called more than once; the first cause counts.
func (t *Tap) End(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.cause = true, cause
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// take exchanges the packets before which nothing can be inserted any more for an empty
// batch, and reports whether any are left.
func (t *Tap) take(empty batch) (b batch, left, ended bool, cause error) {
	until := t.clock.earliestHold().Sub(t.start)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		until = math.MaxInt64
	}
	b = t.waiting
	b.lost, t.lost = t.lost, 0
	clear(empty.records)
	t.waiting = batch{records: empty.records[:0], bytes: empty.bytes[:0]}
	b.split(t.lastTaken, until, &t.waiting)
	if n := len(b.records); n > 0 {
		t.lastTaken = b.records[n-1].at
	}
	return b, len(t.waiting.records) > 0, t.ended, t.cause
}
