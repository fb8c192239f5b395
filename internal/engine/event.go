package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sixfour/internal/api"
)

// history is how many events a new reader is told of, backlog how many it may be
// behind before it misses some.
const (
	history = 100
	backlog = 1024
)

// events are the last ones that happened. A reader costs nothing but a place to read
// from: there is no queue that a slow one could fill.
type events struct {
	mu    sync.Mutex
	ring  [backlog]api.Event
	next  uint64        // how many there have been
	fresh chan struct{} // closed with the next one; nil: nobody waits
}

// add notes an event. Any goroutine may call it.
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

// read appends the events from one on, after how many were missed, and returns the
// number of the next one and what is closed when it is there.
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

// Events are the last hundred events, and those that happen until ctx ends, when the
// channel is closed. Who reads so slowly that more than a thousand wait misses the
// oldest of them, and is told how many by an event of the kind "lost".
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

// event notes what has happened to a peer.
func (p *peer) event(kind, text string) {
	p.t.events.add(api.Event{At: time.Now(), Tunnel: p.t.cfg.Name, Peer: p.cfg.Name, Kind: kind, Text: text})
}

// event notes what has happened to a tunnel.
func (t *tunnel) event(kind, text string) {
	t.events.add(api.Event{At: time.Now(), Tunnel: t.cfg.Name, Kind: kind, Text: text})
}
