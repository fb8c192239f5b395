// Package events stores the most recent events of the daemon for its readers.
package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sixfour/internal/api"
)

// history is how many past events a new reader gets; backlog is how many events a reader
// may be behind before it misses some.
const (
	history = 100
	backlog = 1024
)

// Log stores the most recent events in a ring. A reader costs nothing but its position:
// there is no queue that a slow reader could fill.
type Log struct {
	mu    sync.Mutex
	ring  [backlog]api.Event
	next  uint64        // number of events so far
	fresh chan struct{} // closed when the next event is added; nil: no reader waits
}

// Add adds an event. Any goroutine may call it.
func (e *Log) Add(ev api.Event) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.next%backlog] = ev
	e.next++
	if e.fresh != nil {
		close(e.fresh)
		e.fresh = nil
	}
}

// read appends to into the events that start with number from. It returns them, how many
// were missed, the number of the next event, and a channel that is closed when it is added.
func (e *Log) read(into []api.Event, from uint64) (list []api.Event, missed, next uint64, fresh <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if oldest := e.next - min(e.next, backlog); from < oldest {
		missed, from = oldest-from, oldest
	}
	for ; from < e.next; from++ {
		into = append(into, e.ring[from%backlog])
	}
	if e.fresh == nil {
		e.fresh = make(chan struct{})
	}
	return into, missed, from, e.fresh
}

// Follow delivers the last hundred events, and new ones until ctx ends, when the channel is
// closed. A reader that falls more than a thousand events behind misses the oldest of them;
// an event of the kind "lost" then says how many.
func (e *Log) Follow(ctx context.Context) <-chan api.Event {
	out := make(chan api.Event)
	go func() {
		defer close(out)
		e.mu.Lock()
		at := e.next - min(e.next, history)
		e.mu.Unlock()
		var list []api.Event
		for {
			var missed uint64
			var fresh <-chan struct{}
			list, missed, at, fresh = e.read(list[:0], at)
			if missed > 0 {
				list = append([]api.Event{{At: time.Now(), Kind: api.EventLost, Text: fmt.Sprintf("%d events were lost, because they were not read in time", missed)}}, list...)
			}
			for _, ev := range list {
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-fresh:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
