package tally

import (
	"testing"

	"sixfour/encap/drop"
)

// A peer's drop counters take memory only after the first drop, and many goroutines can add
// to them.
func TestDropCounts(t *testing.T) {
	var c Counters
	if got := c.Traffic(); len(got.Drops) != 0 || c.drops.Load() != nil {
		t.Errorf("%+v", got)
	}
	done := make(chan struct{})
	for range 4 {
		go func() {
			for range 1000 {
				c.Dropped(drop.Spoof, 2)
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	if got := c.Traffic().Drops; got["spoof"] != 8000 || len(got) != 1 {
		t.Errorf("%v", got)
	}
}
