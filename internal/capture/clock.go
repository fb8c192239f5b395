package capture

import (
	"slices"
	"sync"
	"time"
)

// Clock puts in order what several goroutines show. A packet is shown only when its fate
// is known, after it was sent, and its answer may have been shown by then. So whoever is
// about to send notes the time before, and readers get nothing later than that until the
// packet was shown. The zero Clock is ready.
type Clock struct {
	mu   sync.Mutex
	held []time.Time
}

// patience is how long readers wait for packets that are being sent: a socket may have
// no room for a long time, and a goroutine may never come to show what it sent.
const patience = time.Second

// leftAgain is how soon what had to wait is looked at again.
const leftAgain = 5 * time.Millisecond

// Hold is the time, of which something will be shown. Release must follow.
func (c *Clock) Hold() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.held = append(c.held, now)
	return now
}

// Release says that nothing more of that time will be shown.
func (c *Clock) Release(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.held, at); i >= 0 {
		c.held = slices.Delete(c.held, i, i+1)
	}
}

// settled is the time before which nothing will be shown any more.
func (c *Clock) settled() time.Time {
	now := time.Now()
	if c == nil {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was not released by then never will be.
	c.held = slices.DeleteFunc(c.held, func(at time.Time) bool { return now.Sub(at) > patience })
	first := time.Now()
	for _, at := range c.held {
		if at.Before(first) {
			first = at
		}
	}
	return first
}
