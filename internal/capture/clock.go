package capture

import (
	"slices"
	"sync"
	"time"
)

// Clock puts packets shown by several goroutines in order. A packet can be shown only after
// it was sent, when its outcome is known; its answer may be shown before that. A goroutine
// that is about to send therefore holds the present time, and readers get nothing later
// until it is released. The zero Clock is ready for use.
type Clock struct {
	mu   sync.Mutex
	held []time.Time
}

// patience limits how long readers wait for packets that are being sent: a socket may be
// full for a long time, and a goroutine may fail before it shows its packets.
const patience = time.Second

// leftAgain is how soon packets that were held back are checked again.
const leftAgain = 5 * time.Millisecond

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

// settled returns the time before which nothing more will be shown.
func (c *Clock) settled() time.Time {
	now := time.Now()
	if c == nil {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was not released for so long never will be.
	c.held = slices.DeleteFunc(c.held, func(at time.Time) bool { return now.Sub(at) > patience })
	first := time.Now()
	for _, at := range c.held {
		if at.Before(first) {
			first = at
		}
	}
	return first
}
