package engine

import (
	"sync"

	"sixfour/internal/ports"
)

// Keep makes the engine store the descriptors of what it makes, and adopt those that the
// previous process passed on, given by name. The engine owns these and closes the ones
// that it cannot use. Call Keep before Run. Run then does not remove interfaces when its
// ctx ends: the kernel removes them when the last copy of their descriptors is closed.
func (e *Engine) Keep(s ports.Store, passed map[string][]int) {
	e.arrivals.Sockets.Kept = ports.NewKept(s, passed, e.log)
}

// handOver stops the goroutines that carry packets without losing a packet that was
// already read from a queue or a socket. Packets still in them are for the next process.
func (e *Engine) handOver() {
	e.arrivals.StopReceiving()
	var all sync.WaitGroup
	for _, t := range e.tunnels {
		all.Go(t.Drain)
	}
	all.Wait()
}
