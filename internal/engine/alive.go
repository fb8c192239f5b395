package engine

import (
	"context"
	"errors"
	"time"
)

// Alive returns nil when the control loop has answered, or an error if it has not when ctx
// ends. Without the control loop, no change is followed and nothing is repaired. The loop
// answers while Run runs, except while it opens interfaces. Any goroutine may call Alive.
func (e *Engine) Alive(ctx context.Context) error {
	select {
	case e.healthChecks <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.New("the control loop does not respond: tunnels still carry packets, but the daemon does not notice changes of addresses, routes and interfaces: if this continues, restart the daemon")
	}
}

// pause makes the control loop sleep while it still answers health checks.
func (e *Engine) pause(ctx context.Context, d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-e.healthChecks:
		}
	}
}
