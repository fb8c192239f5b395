package keepalive

import (
	"testing"
	"time"

	"sixfour/internal/liveness"
	"sixfour/internal/probing"
)

// A peer that does not answer any more in the one way in which it did is asked in all of
// those that go through the tunnel, and no answer of its host makes it up.
func TestProofIsForgotten(t *testing.T) {
	set := liveness.Settings{Every: time.Second, After: 2}
	for _, c := range []struct{ proven, want probing.Way }{{probing.Inside, probing.Self}, {probing.AllNodes, probing.Self}, {probing.Self, probing.Self}, {probing.Outside, probing.Outside}, {probing.NoWay, probing.NoWay}} {
		one := &session{of: newOwner(nil).s, target: target{set: set}, life: liveness.New(set, 0, 0), proven: probing.Proof{Way: c.proven}}
		one.of.echo.SetProof(one.proven)
		now := time.Duration(0)
		for missed := 0; missed < set.After; _, missed = one.life.State() {
			if one.resetMethod(); one.proven.Way != c.proven {
				t.Fatalf("%v: forgotten after %d probes", c.proven, missed)
			}
			now += time.Second
			one.life.Next(now)
		}
		one.resetMethod()
		if forgotten := c.want != c.proven; one.proven.Way != c.want || (one.of.echo.Proof() == probing.Unproven) != (forgotten || c.proven == probing.NoWay) {
			t.Errorf("%v: %v, want %v", c.proven, one.proven.Way, c.want)
		}
	}
}
