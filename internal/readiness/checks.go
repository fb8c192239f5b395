package readiness

import (
	"context"
	"errors"
	"time"
)

// Checks are health checks of a loop. The loop receives from the channel whenever it waits.
type Checks chan struct{}

// Alive returns nil when the loop has answered, or an error if it has not when ctx ends. Any
// goroutine may call it.
func (c Checks) Alive(ctx context.Context) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.New("the control loop does not respond: tunnels still carry packets, but the daemon does not notice changes of addresses, routes and interfaces: if this continues, restart the daemon")
	}
}

// Sleep makes the loop sleep while it still answers health checks, at most until ctx ends.
func (c Checks) Sleep(ctx context.Context, d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-c:
		}
	}
}
