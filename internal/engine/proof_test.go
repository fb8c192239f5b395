package engine

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/liveness"
	"sixfour/internal/probe"
)

// A better way of answering takes the place of a worse one, and none the other way round.
func TestProofImproves(t *testing.T) {
	pair := probe.Pair{Local: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr("10.0.0.2")}
	pr := unproven
	for _, c := range []struct {
		by       way
		pair     int
		improves bool
		want     way
	}{
		{wayOutside, 0, true, wayOutside}, {wayBetween, 1, false, wayOutside}, {wayBetween, 0, true, wayBetween},
		{wayAllNodes, 0, false, wayBetween}, {wayInside, 0, true, wayInside}, {wayBetween, 0, false, wayInside},
	} {
		if got := pr.improve(c.by, c.pair, []probe.Pair{pair}); got != c.improves || pr.way != c.want || (pr.way == wayBetween) != (pr.between == pair) {
			t.Errorf("%v %d: %v, %+v", c.by, c.pair, got, pr)
		}
	}
}

// A peer that does not answer any more in the one way in which it did is asked in all of
// those that go through the tunnel, and no answer of its host makes it up.
func TestProofIsForgotten(t *testing.T) {
	set := liveness.Settings{Every: time.Second, After: 2}
	for _, c := range []struct{ proven, want way }{{wayInside, waySelf}, {wayAllNodes, waySelf}, {waySelf, waySelf}, {wayOutside, wayOutside}, {noWay, noWay}} {
		pl := &session{p: new(path), target: target{set: set}, life: liveness.New(set, 0, 0), proven: proof{way: c.proven}}
		pl.p.proven.Store(&pl.proven)
		now := time.Duration(0)
		for missed := 0; missed < set.After; _, missed = pl.life.State() {
			if pl.resetMethod(); pl.proven.way != c.proven {
				t.Fatalf("%v: forgotten after %d probes", c.proven, missed)
			}
			now += time.Second
			pl.life.Next(now)
		}
		pl.resetMethod()
		if forgotten := c.want != c.proven; pl.proven.way != c.want || (pl.p.proven.Load() == nil) != forgotten {
			t.Errorf("%v: %v, want %v", c.proven, pl.proven.way, c.want)
		}
	}
}
