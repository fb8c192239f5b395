package keepalive

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/probe"
	"sixfour/internal/probing"
)

// A connection is checked if probes can go through it, between inner addresses or the ends of
// an inner layer, and not otherwise.
func TestChecksOfConnections(t *testing.T) {
	v4 := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	v6 := func(last byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfc, 15: last}) }
	connection := encap.Layer{Kind: encap.FourInFour.With(framing.InSession{Local: 6080, Remote: 6080}), Local: v4(1), Remote: v4(2)}
	carries6 := connection
	carries6.Kind = encap.SixInFour.With(framing.InSession{Local: 6080, Remote: 6080})
	pair := probe.Pair{Local: v4(11), Remote: v4(12)}
	set := liveness.Settings{Every: time.Second, After: 2}
	for _, c := range []struct {
		name string
		wire datapath.Wire
		want bool
	}{
		{"nothing to probe", datapath.Wire{Layers: []encap.Layer{connection}, Life: set}, false},
		{"nothing to probe, IPv6", datapath.Wire{Layers: []encap.Layer{carries6}, Life: set}, false},
		{"inner addresses", datapath.Wire{Layers: []encap.Layer{connection}, Life: set, Between: []probe.Pair{pair}}, true},
		{"inner addresses, but no probes", datapath.Wire{Layers: []encap.Layer{connection}, Between: []probe.Pair{pair}}, false},
		{"an inner layer", datapath.Wire{Layers: []encap.Layer{{Kind: encap.FourInSix, Local: v6(1), Remote: v6(2)}, carries6}, Life: set}, true},
		{"no connection", datapath.Wire{Layers: []encap.Layer{{Kind: encap.FourInFour, Local: v4(1), Remote: v4(2)}}, Life: set}, true},
	} {
		s := newOwner(nil).s
		s.Wire.Store(&c.wire)
		if got := s.HasChecks(&c.wire); got != c.want || len(s.targets()) > 0 != c.want {
			t.Errorf("%s: checked %v, %d targets, want %v", c.name, got, len(s.targets()), c.want)
		}
	}
}

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
