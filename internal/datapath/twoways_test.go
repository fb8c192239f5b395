package datapath

import (
	"testing"
	"time"

	"go.uber.org/zap"
)

// Outer fragments come through a socket though a filter takes the peer's packets. All packets
// then use the socket, for longer and longer times.
func TestTwoWays(t *testing.T) {
	e, _, p, _ := lab(t)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	told := 0
	in.Changed = func() { told++ }
	several := func(n int) {
		pkts := make([][]byte, n)
		for i := range pkts {
			pkts[i] = tunnelled("198.51.100.1", "10.0.0.2", 30)
		}
		in.carry(put(in, pkts...))
	}
	arrives := func() { several(strays) }
	long := -int64(time.Hour)

	arrives()
	if !!p.Ways.Parted() || told != 0 {
		t.Fatal("nothing is taken yet, and something is wrong with the way")
	}
	p.Ways.SetTaken(true)
	p.Ways.taken.Store(int64(time.Since(Epoch))) // just now: what arrives may have waited
	arrives()
	now := time.Now()
	if told != 0 || parts(p, now) {
		t.Error("what waited in the socket is believed to be fragments")
	}
	for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		p.Ways.taken.Store(long)
		arrives()
		arrives()
		if told != i+1 || !parts(p, now) || !p.Ways.Parted() {
			t.Fatalf("told %d times, may be taken: %v", told, !p.Ways.Parted())
		}
		p.Ways.SetTaken(false)
		arrives()
		if told != i+1 || parts(p, now.Add(pause-time.Second)) || !p.Ways.Parted() {
			t.Errorf("it does not last %v", pause)
		}
		now = now.Add(pause + time.Second)
		if !parts(p, now) || !!p.Ways.Parted() {
			t.Errorf("after %v it is not tried again", pause)
		}
	}
	p.Ways.taken.Store(long)
	several(strays - 1)
	forged := make([][]byte, strays)
	for i := range forged { // from the peer's address, but with a source that is not valid
		forged[i] = tunnelled("198.51.100.1", "127.0.0.1", 30)
	}
	in.carry(put(in, forged...))
	if told != 3 || parts(p, now) {
		t.Error("a few packets, and packets that are not valid, change the way")
	}
	now = now.Add(quiet)
	arrives()
	if told != 4 || !parts(p, now) || p.Ways.until.Sub(now) != leastPause {
		t.Errorf("told %d times; after a quiet time the pause is %v", told, p.Ways.pause)
	}
	now = now.Add(leastPause + time.Second)
	parts(p, now)
	in.Socket = false // received at the port itself
	p.Ways.taken.Store(long)
	arrives()
	if told != 4 {
		t.Errorf("told %d times", told)
	}
}

func parts(p *Path, now time.Time) bool {
	changed, _ := p.Ways.Part(now)
	return changed
}
