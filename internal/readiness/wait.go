package readiness

import (
	"sync"
	"time"
)

// Await waits for a group, and calls beat at every Interval meanwhile.
func Await(all *sync.WaitGroup, beat func()) {
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			beat()
		}
	}
}
