package engine

import (
	"testing"
	"time"

	"sixfour/transport/xdp"

	"go.uber.org/zap"
)

// Outer fragments come through a socket though a filter takes the peer's packets. All packets
// then use the socket, for longer and longer times.
func TestTwoWays(t *testing.T) {
	e, _, p, to := lab(t)
	to.hop.port = new(xdp.Port)
	e.table.Store(e.newTable(e.started))
	in := e.newInbound(0, zap.NewNop(), batch{})
	told := 0
	in.changed = func() { told++ }
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
	if !p.mayBeTaken() || told != 0 {
		t.Fatal("nothing is taken yet, and something is wrong with the way")
	}
	p.isTaken(true)
	p.ways.taken.Store(int64(time.Since(epoch))) // just now: what arrives may have waited
	arrives()
	now := time.Now()
	if told != 0 || p.parted(now) {
		t.Error("what waited in the socket is believed to be fragments")
	}
	for i, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		p.ways.taken.Store(long)
		arrives()
		arrives()
		if told != i+1 || !p.parted(now) || p.mayBeTaken() {
			t.Fatalf("told %d times, may be taken: %v", told, p.mayBeTaken())
		}
		p.isTaken(false)
		arrives()
		if told != i+1 || p.parted(now.Add(pause-time.Second)) || p.mayBeTaken() {
			t.Errorf("it does not last %v", pause)
		}
		now = now.Add(pause + time.Second)
		if !p.parted(now) || !p.mayBeTaken() {
			t.Errorf("after %v it is not tried again", pause)
		}
	}
	p.ways.taken.Store(long)
	several(strays - 1)
	forged := make([][]byte, strays)
	for i := range forged { // from the peer's address, but with a source that is not valid
		forged[i] = tunnelled("198.51.100.1", "127.0.0.1", 30)
	}
	in.carry(put(in, forged...))
	if told != 3 || p.parted(now) {
		t.Error("a few packets, and packets that are not valid, change the way")
	}
	now = now.Add(quiet)
	arrives()
	if told != 4 || !p.parted(now) || p.ways.until.Sub(now) != leastPause {
		t.Errorf("told %d times; after a quiet time the pause is %v", told, p.ways.pause)
	}
	now = now.Add(leastPause + time.Second)
	p.parted(now)
	in.socket = false // received at the port itself
	p.ways.taken.Store(long)
	arrives()
	static := *to
	static.options.StaticMTU = true
	p.registered = &static
	if told != 4 || p.mayBeTaken() {
		t.Errorf("told %d times; with a static path MTU it may be taken: %v", told, p.mayBeTaken())
	}
}
