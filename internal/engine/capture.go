package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/internal/capture"
)

// captures are those that run, immutable: a change replaces them. Nil: none, which is
// all that the goroutines that carry packets look at, once for each batch.
type captures struct {
	list []captured
}

// captured is one capture, of the tunnel of a name. That stays when the tunnel's
// section changes.
type captured struct {
	tunnel string
	tap    *capture.Tap
}

// show shows a packet to those who capture a tunnel. What belongs to none, "", all
// see.
func (c *captures) show(tunnel string, p *capture.Packet) {
	if c == nil {
		return
	}
	p.ID = capture.NextID()
	for _, one := range c.list {
		if tunnel == "" || one.tunnel == tunnel {
			one.tap.Show(p)
		}
	}
}

// capturing is where captures begin and end.
type capturing struct {
	mu    sync.Mutex
	now   atomic.Pointer[captures]
	ended error // there are no more
	clock capture.Clock
}

// moment is the time of what is about to be sent, or has arrived, for captures.
type moment struct {
	at    time.Time      // zero: nobody captures
	clock *capture.Clock // nil: likewise
}

// moment is now. What is shown with its time is in order with what others show, which
// waits for end.
func (c *capturing) moment() moment {
	if c == nil || c.now.Load() == nil {
		return moment{}
	}
	return moment{c.clock.Hold(), &c.clock}
}

// end must be called when all of that moment was shown.
func (m *moment) end() {
	if m.clock != nil {
		m.clock.Release(m.at)
	}
	*m = moment{}
}

// ErrTooMany means that as many captures run as there may.
var ErrTooMany = fmt.Errorf("%d captures run already: end one of them", capture.MaxTaps)

func (c *capturing) begin(tunnel string, tap *capture.Tap) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	var list []captured
	if old := c.now.Load(); old != nil {
		list = old.list
	}
	tap.Await(&c.clock)
	if len(list) >= capture.MaxTaps {
		return ErrTooMany
	}
	c.now.Store(&captures{append(slices.Clone(list), captured{tunnel, tap})})
	return nil
}

// end takes away the captures that are to end, and tells their readers why.
func (c *capturing) end(why error, which func(captured) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.now.Load()
	if old == nil {
		return
	}
	next := new(captures)
	for _, one := range old.list {
		if which(one) {
			one.tap.End(why)
		} else {
			next.list = append(next.list, one)
		}
	}
	if len(next.list) == 0 {
		next = nil
	}
	c.now.Store(next)
}

// close ends all captures, for good.
func (c *capturing) close(why error) {
	c.mu.Lock()
	c.ended = why
	c.mu.Unlock()
	c.end(why, func(captured) bool { return true })
}

var errDaemonEnds = errors.New("the daemon ends")

// Capture writes what goes through a tunnel as pcapng, until ctx ends, or as many
// packets are written as were asked for, or the tunnel is no more, which is an error
// then. An error before the first byte is about the request. Any goroutine may call it.
func (e *Engine) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	tap, err := capture.New(r)
	if err == nil {
		err = e.beginCapture(r.Tunnel, tap)
	}
	if err != nil {
		return err
	}
	defer e.captures.end(nil, func(c captured) bool { return c.tap == tap })
	return tap.Stream(ctx, out)
}

// beginCapture begins one of a tunnel that there is, which a reload does not take away
// meanwhile.
func (e *Engine) beginCapture(tunnel string, tap *capture.Tap) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var names []string
	for _, t := range e.tunnels {
		if t.cfg.Name == tunnel {
			return e.captures.begin(tunnel, tap)
		}
		names = append(names, t.cfg.Name)
	}
	return fmt.Errorf("there is no tunnel %q: there is %s", tunnel, anyOf(names))
}

// endCaptures ends those of a tunnel that is taken out of the configuration.
func (e *Engine) endCaptures(tunnel string) {
	e.captures.end(fmt.Errorf("tunnel %s was removed", tunnel), func(c captured) bool { return c.tunnel == tunnel })
}
