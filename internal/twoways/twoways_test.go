package twoways

import (
	"testing"
	"time"
)

// Outer fragments come through a socket though a filter takes the peer's packets. All packets
// then use the socket, for longer and longer times.
func TestParted(t *testing.T) {
	var w Ways
	told := 0
	several := func(n int) {
		for range n {
			if w.Note() {
				told++
			}
		}
	}
	parts := func(now time.Time) bool {
		changed, _ := w.Part(now)
		return changed
	}
	long := -int64(time.Hour)

	several(strays)
	if w.Parted() || told != 0 {
		t.Fatal("nothing is taken yet, and something is wrong with the way")
	}
	w.SetTaken(true)
	w.taken.Store(int64(time.Since(epoch))) // just now: what arrives may have waited
	several(strays)
	now := time.Now()
	if told != 0 || parts(now) {
		t.Error("what waited in the socket is believed to be fragments")
	}
	for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		w.taken.Store(long)
		several(2 * strays)
		if told != i+1 || !parts(now) || !w.Parted() {
			t.Fatalf("told %d times, parted: %v", told, w.Parted())
		}
		w.SetTaken(false)
		several(strays)
		if told != i+1 || parts(now.Add(pause-time.Second)) || !w.Parted() {
			t.Errorf("it does not last %v", pause)
		}
		now = now.Add(pause + time.Second)
		if !parts(now) || w.Parted() {
			t.Errorf("after %v it is not tried again", pause)
		}
	}
	w.taken.Store(long)
	several(strays - 1)
	if told != 3 || parts(now) {
		t.Error("a few packets change the way")
	}
	now = now.Add(quiet)
	several(strays)
	if told != 4 || !parts(now) || w.until.Sub(now) != leastPause {
		t.Errorf("told %d times; after a quiet time the pause is %v", told, w.pause)
	}
}
