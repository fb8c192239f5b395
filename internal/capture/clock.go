package capture

import (
	"slices"
	"sync"
	"time"
)

// Clock orders the packets of several goroutines. A packet is shown after it was sent, when
// the result is known, and the reply to it may be shown earlier. So a goroutine holds the
// present time before it sends, and readers get no later packet until the goroutine
// releases that time. The zero Clock is ready for use.
type Clock struct {
	mu   sync.Mutex
	held []time.Time
}

// maxHold limits how long readers wait for packets that are being sent: a socket may be
// full for a long time, and a goroutine may fail before it shows its packets.
const maxHold = time.Second

// recheckAfter is the time after which packets that were held back are checked again.
const recheckAfter = 5 * time.Millisecond

// Hold returns the present time for packets that will be shown. Release must follow.
func (c *Clock) Hold() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.held = append(c.held, now)
	return now
}

// Release ends a Hold: nothing more will be shown with that time.
func (c *Clock) Release(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.held, at); i >= 0 {
		c.held = slices.Delete(c.held, i, i+1)
	}
}

// earliestHold returns the time before which no more packets will be shown.
func (c *Clock) earliestHold() time.Time {
	now := time.Now()
	if c == nil {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A time that was not released for so long is not released any more.
	c.held = slices.DeleteFunc(c.held, func(at time.Time) bool { return now.Sub(at) > maxHold })
	first := time.Now()
	for _, at := range c.held {
		if at.Before(first) {
			first = at
		}
	}
	return first
}
