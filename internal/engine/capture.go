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

// captures is the immutable list of running captures; a change replaces it. Nil means none:
// goroutines that carry packets check only that, once for each batch.
type captures struct {
	list []captured
}

// captured is one capture of a tunnel, given by name. It continues when the tunnel's
// configuration changes.
type captured struct {
	tunnel string
	tap    *capture.Tap
}

// show passes a packet to the captures of a tunnel. If tunnel is "", the packet belongs to
// none, and all captures get it.
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

// capturing starts and ends captures.
type capturing struct {
	mu    sync.Mutex
	now   atomic.Pointer[captures]
	ended error // why no capture can start any more; nil: it can
	clock capture.Clock
}

// moment is the time of packets that are about to be sent, or have arrived, for captures.
type moment struct {
	at    time.Time      // zero: no captures
	clock *capture.Clock // nil: no captures
}

// moment returns the present time. Captures put packets in the order of their moments, and
// hold back later packets until end is called.
func (c *capturing) moment() moment {
	if c == nil || c.now.Load() == nil {
		return moment{}
	}
	return moment{c.clock.Hold(), &c.clock}
}

// end must be called when all packets of the moment were shown.
func (m *moment) end() {
	if m.clock != nil {
		m.clock.Release(m.at)
	}
	*m = moment{}
}

// ErrTooMany means that the maximum number of captures is running.
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

// end ends the captures for which which returns true, and gives their readers the reason.
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

// close ends all captures, and lets no new one start.
func (c *capturing) close(why error) {
	c.mu.Lock()
	c.ended = why
	c.mu.Unlock()
	c.end(why, func(captured) bool { return true })
}

var errDaemonEnds = errors.New("the daemon ends")

// Capture writes a tunnel's packets to out as pcapng. It ends when ctx ends, when the
// requested number of packets is written, or with an error when the tunnel is removed. An
// error before the first byte concerns the request. Any goroutine may call it.
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

// beginCapture starts a capture of an existing tunnel. The lock keeps a reload from
// removing the tunnel meanwhile.
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

// endCaptures ends the captures of a tunnel that was removed from the configuration.
func (e *Engine) endCaptures(tunnel string) {
	e.captures.end(fmt.Errorf("tunnel %s was removed", tunnel), func(c captured) bool { return c.tunnel == tunnel })
}
