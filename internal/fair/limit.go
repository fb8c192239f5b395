// Package fair limits what a server does at the same time, so that no client can exclude
// the others: if there is no room, a request or connection of the client with the most
// is ended.
package fair

import (
	"context"
	"sync"
	"time"
)

// Limit is a number of places. Each request or connection takes one. Its methods may be
// called concurrently.
type Limit struct {
	most  int
	grace time.Duration

	mu      sync.Mutex
	holds   []*Hold // oldest first
	queues  map[string]*clientQueue
	changed chan struct{} // closed when a place becomes free
}

// Hold is a place that is taken.
type Hold struct {
	limit     *Limit
	client    string
	since     time.Time // when its present state began, or it last made progress
	until     time.Time // no progress counts after this
	cut       func()
	idle      bool // ended before others of its client
	protected bool // must not be ended
}

// clientQueue makes the requests of a client look for a place one after the other.
type clientQueue struct {
	next  chan struct{}
	users int
}

// NewLimit returns a limit with most places. A place that was held for longer than grace
// may be taken from a client even if the client that needs it has as many; with grace 0
// it may not.
func NewLimit(most int, grace time.Duration) *Limit {
	return &Limit{most: most, grace: grace, queues: make(map[string]*clientQueue), changed: make(chan struct{})}
}

// Take takes a place for a client, if there is one, or if a client with more places can
// lose one. Cut, which must not block, is called when this place is given to another
// client.
func (l *Limit) Take(client string, cut func()) (h *Hold, ok bool) {
	h, displaced, _ := l.try(client, cut)
	if displaced != nil {
		displaced.cut()
	}
	return h, h != nil
}

// Wait is Take, but waits for a place until ctx ends. The requests of a client are
// served in order.
func (l *Limit) Wait(ctx context.Context, client string, cut func()) (*Hold, error) {
	t := l.enter(client)
	defer l.leave(client, t)
	select {
	case t.next <- struct{}{}:
		defer func() { <-t.next }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		h, displaced, retry := l.try(client, cut)
		if displaced != nil {
			displaced.cut()
		}
		if h != nil {
			return h, nil
		}
		timer := time.NewTimer(retry)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

func (l *Limit) enter(client string) *clientQueue {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.queues[client]
	if t == nil {
		t = &clientQueue{next: make(chan struct{}, 1)}
		l.queues[client] = t
	}
	t.users++
	return t
}

func (l *Limit) leave(client string, t *clientQueue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(l.queues, client)
	}
}

// waiting returns how many requests of a client, and of all clients, wait for a place.
func (l *Limit) waiting(client string) (own, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, t := range l.queues {
		all += t.users
		if name == client {
			own = t.users
		}
	}
	return own, all
}

// maxRetry is how long a request waits before it tries again, if nothing happens before.
const maxRetry = time.Second

// try takes a place, possibly that of displaced. If it fails, it returns when to try again.
func (l *Limit) try(client string, cut func()) (h, displaced *Hold, retry time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.holds) >= l.most {
		if displaced, retry = l.choose(client, now); displaced == nil {
			return nil, nil, retry
		}
		l.remove(displaced)
	}
	h = &Hold{limit: l, client: client, since: now, until: now.Add(mostGraces * l.grace), cut: cut, idle: true}
	l.holds = append(l.holds, h)
	return h, displaced, 0
}

// choose returns the hold whose place a client gets, or how long the client should wait.
func (l *Limit) choose(client string, now time.Time) (*Hold, time.Duration) {
	count := make(map[string]int)
	for _, h := range l.holds {
		count[h.client]++
	}
	var largest, old *Hold
	retry := maxRetry
	for _, h := range l.holds {
		n := count[h.client]
		if h.protected || n < count[client] {
			continue
		}
		if n > count[client]+1 && (largest == nil || n > count[largest.client] || n == count[largest.client] && h.isEndedBefore(largest)) {
			largest = h
		}
		if l.grace == 0 {
			continue
		}
		if left := l.grace - now.Sub(h.since); left > 0 {
			retry = min(retry, left)
		} else if old == nil || h.isEndedBefore(old) {
			old = h
		}
	}
	if largest != nil {
		return largest, 0
	}
	return old, retry
}

// isEndedBefore reports whether h is ended before another hold.
func (h *Hold) isEndedBefore(other *Hold) bool {
	if h.idle != other.idle {
		return h.idle
	}
	return h.since.Before(other.since)
}

func (l *Limit) remove(h *Hold) {
	for i, other := range l.holds {
		if other == h {
			l.holds = append(l.holds[:i], l.holds[i+1:]...)
			close(l.changed)
			l.changed = make(chan struct{})
			return
		}
	}
}

// Release frees the place, if it was not taken away.
func (h *Hold) Release() {
	h.limit.mu.Lock()
	defer h.limit.mu.Unlock()
	h.limit.remove(h)
}

// mostGraces is how many times grace a client may keep a place that others need, if it
// makes progress all the time.
const mostGraces = 20

// Progress reports that the client has taken a part of its answer: grace begins anew.
func (h *Hold) Progress() {
	h.limit.mu.Lock()
	defer h.limit.mu.Unlock()
	if now := time.Now(); now.Before(h.until) {
		h.since = now
	}
}

// Begin marks the place as in use until end is called: other places of the client are
// taken away before it. If keep is true, it is not taken away at all meanwhile; use that
// only for work that ends soon whatever the client does.
func (h *Hold) Begin(keep bool) (end func()) {
	h.set(false, keep)
	return func() { h.set(true, false) }
}

func (h *Hold) set(idle, protected bool) {
	h.limit.mu.Lock()
	defer h.limit.mu.Unlock()
	h.idle, h.protected, h.since = idle, protected, time.Now()
}
