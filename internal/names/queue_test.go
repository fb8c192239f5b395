package names

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// A hub's names resolve one after the other: many results are one change, and a result that is
// no longer needed is none.
func TestManyNamesAreOneChange(t *testing.T) {
	const n = 2000
	q := NewQueue(nil)
	got := make([]netip.Addr, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for i := range n {
			found := q.found(func(addrs []netip.Addr) bool {
				got[i] = addrs[0]
				return i%2 == 0
			})
			found(ctx, []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
		}
	}()
	rounds := 0
	for !got[n-1].IsValid() {
		if !q.Apply(ctx, <-q.C(), 50*time.Millisecond) {
			t.Error("nothing has changed")
		}
		rounds++
	}
	if rounds > n/10 {
		t.Errorf("%d names are %d changes", n, rounds)
	}
	for i, a := range got {
		if !a.IsValid() {
			t.Fatalf("name %d has no address", i)
		}
	}
	over := make(chan struct{})
	close(over)
	if q.Apply(ctx, Result{use: func([]netip.Addr) bool { t.Error("it was used"); return true }, over: over}, 0) {
		t.Error("a result that is not needed is a change")
	}
}
