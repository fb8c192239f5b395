package leases

import (
	"context"
	"sync"
)

// events is a queue, so that those that report an event never wait for the one that is
// notified.
type events struct {
	mu    sync.Mutex
	queue []Event
	wake  chan struct{} // has a token if the queue may have events
}

func (q *events) add(e Event) {
	q.mu.Lock()
	q.queue = append(q.queue, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *events) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.queue
	q.queue = nil
	return all
}

func (q *events) run(ctx context.Context, notify func(Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		for _, e := range q.take() {
			notify(e)
		}
	}
}
