package capture

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Taps is the immutable list of running captures; a change replaces it. Nil means none:
// goroutines that carry packets check only that, once for each batch.
type Taps struct {
	list []tapped
}

// tapped is one capture of a tunnel, given by name. It continues when the tunnel's
// configuration changes.
type tapped struct {
	tunnel string
	tap    *Tap
}

// Show passes a packet to the captures of a tunnel. If tunnel is "", the packet belongs to
// none, and all captures get it.
func (c *Taps) Show(tunnel string, p *Packet) {
	if c == nil {
		return
	}
	p.ID = NextID()
	for _, one := range c.list {
		if tunnel == "" || one.tunnel == tunnel {
			one.tap.Show(p)
		}
	}
}

// Len returns how many captures run.
func (c *Taps) Len() int {
	if c == nil {
		return 0
	}
	return len(c.list)
}

// Set starts and ends captures.
type Set struct {
	// Changed is called when another capture runs, or one has ended, before Begin, EndTap,
	// EndTunnel or Close returns; nil: nobody is told.
	Changed func()

	mu    sync.Mutex
	taps  atomic.Pointer[Taps]
	ended error // the cause of Close; nil: captures can start
	clock Clock
}

// Taps returns the running captures; nil: none, also of a nil set.
func (c *Set) Taps() *Taps {
	if c == nil {
		return nil
	}
	return c.taps.Load()
}

// Captures reports whether a capture of a tunnel runs.
func (c *Set) Captures(tunnel string) bool {
	t := c.Taps()
	return t != nil && slices.ContainsFunc(t.list, func(one tapped) bool { return one.tunnel == tunnel })
}

// Moment is the time of packets that are about to be sent, or have arrived, for captures.
type Moment struct {
	At    time.Time // zero: no captures
	clock *Clock    // nil: no captures
}

// Now returns the present time. Captures put packets in the order of their moments, and
// hold back later packets until end is called.
func (c *Set) Now() Moment {
	if c.Taps() == nil {
		return Moment{}
	}
	return Moment{c.clock.Hold(), &c.clock}
}

// End must be called when all packets of the moment were shown.
func (m *Moment) End() {
	if m.clock != nil {
		m.clock.Release(m.At)
	}
	*m = Moment{}
}

// ErrTooMany means that the maximum number of captures is running.
var ErrTooMany = fmt.Errorf("%d captures are already running: end one of them", MaxTaps)

// Begin starts a capture of a tunnel. The error is ErrTooMany, or the cause of Close.
func (c *Set) Begin(tunnel string, tap *Tap) error {
	defer c.changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	var list []tapped
	if old := c.taps.Load(); old != nil {
		list = old.list
	}
	tap.UseClock(&c.clock)
	if len(list) >= MaxTaps {
		return ErrTooMany
	}
	c.taps.Store(&Taps{append(slices.Clone(list), tapped{tunnel, tap})})
	return nil
}

func (c *Set) changed() {
	if c.Changed != nil {
		c.Changed()
	}
}

// end ends the captures for which ends returns true, and tells their readers the cause.
func (c *Set) end(cause error, ends func(tapped) bool) {
	defer c.changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.taps.Load()
	if old == nil {
		return
	}
	next := new(Taps)
	for _, one := range old.list {
		if ends(one) {
			one.tap.End(cause)
		} else {
			next.list = append(next.list, one)
		}
	}
	if len(next.list) == 0 {
		next = nil
	}
	c.taps.Store(next)
}

// EndTap ends one capture.
func (c *Set) EndTap(tap *Tap) {
	c.end(nil, func(one tapped) bool { return one.tap == tap })
}

// EndTunnel ends the captures of a tunnel, and tells their readers the cause.
func (c *Set) EndTunnel(tunnel string, cause error) {
	c.end(cause, func(one tapped) bool { return one.tunnel == tunnel })
}

// Close ends all captures, and lets no new one start.
func (c *Set) Close(cause error) {
	c.mu.Lock()
	c.ended = cause
	c.mu.Unlock()
	c.end(cause, func(tapped) bool { return true })
}
