package engine

import (
	"context"
	"errors"
	"time"
)

// Alive returns nil once the control loop, without which nothing is followed or
// repaired, has answered, and an error if it does not until ctx ends. It answers
// while Run runs, but not while it opens interfaces. Any goroutine may call it.
func (e *Engine) Alive(ctx context.Context) error {
	select {
	case e.pulse <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.New("the control loop does not answer: tunnels carry packets as they are, and what changes around them is not followed: restart the daemon if it stays so")
	}
}

// pause lets a time pass in the control loop, which lives meanwhile.
func (e *Engine) pause(ctx context.Context, d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-e.pulse:
		}
	}
}
