package probing

import (
	"net/netip"
	"testing"

	"sixfour/internal/probe"
)

// A better way of answering takes the place of a worse one, and none the other way round.
func TestProofImproves(t *testing.T) {
	pair := probe.Pair{Local: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr("10.0.0.2")}
	pr := Unproven
	for _, c := range []struct {
		by       Way
		pair     int
		improves bool
		want     Way
	}{
		{Outside, 0, true, Outside}, {Between, 1, false, Outside}, {Between, 0, true, Between},
		{AllNodes, 0, false, Between}, {Inside, 0, true, Inside}, {Between, 0, false, Inside},
	} {
		if got := pr.Improve(c.by, c.pair, []probe.Pair{pair}); got != c.improves || pr.Way != c.want || (pr.Way == Between) != (pr.between == pair) {
			t.Errorf("%v %d: %v, %+v", c.by, c.pair, got, pr)
		}
	}
}
