package engine

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

// events stores the most recent events in a ring. A reader costs nothing but its position:
// there is no queue that a slow reader could fill.
type events struct {
	mu    sync.Mutex
	ring  [backlog]api.Event
	next  uint64        // number of events so far
	fresh chan struct{} // closed when the next event is added; nil: no reader waits
}

// add adds an event. Any goroutine may call it.
func (e *events) add(ev api.Event) {
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
func (e *events) read(into []api.Event, from uint64) (list []api.Event, missed, next uint64, fresh <-chan struct{}) {
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

// Events delivers the last hundred events, and new ones until ctx ends, when the channel is
// closed. A reader that falls more than a thousand events behind misses the oldest of them;
// an event of the kind "lost" then says how many.
func (e *Engine) Events(ctx context.Context) <-chan api.Event {
	out := make(chan api.Event)
	go func() {
		defer close(out)
		e.events.mu.Lock()
		at := e.events.next - min(e.events.next, history)
		e.events.mu.Unlock()
		var list []api.Event
		for {
			var missed uint64
			var fresh <-chan struct{}
			list, missed, at, fresh = e.events.read(list[:0], at)
			if missed > 0 {
				list = append([]api.Event{{At: time.Now(), Kind: api.EventLost, Text: fmt.Sprintf("%d events were not read in time", missed)}}, list...)
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

// event adds an event about a peer.
func (p *path) event(kind, text string) {
	p.t.events.add(api.Event{At: time.Now(), Tunnel: p.t.cfg.Name, Peer: p.cfg.Name, Kind: kind, Text: text})
}

// event adds an event about a tunnel.
func (t *tunnel) event(kind, text string) {
	t.events.add(api.Event{At: time.Now(), Tunnel: t.cfg.Name, Kind: kind, Text: text})
}
