package report

import (
	"testing"

	"sixfour/internal/api"
)

// The loss of a hub is that of its peers' last probes, weighted by their number.
func TestLoss(t *testing.T) {
	peer := func(sent uint64, loss float64) api.PeerStatus {
		return api.PeerStatus{Liveness: api.Liveness{Sent: sent, Loss: loss}}
	}
	for _, c := range []struct {
		peers []api.PeerStatus
		want  float64
	}{
		{nil, 0},
		{[]api.PeerStatus{peer(0, 0)}, 0},
		{[]api.PeerStatus{peer(2, 0), peer(4, 1)}, 4. / 6},
		{[]api.PeerStatus{peer(1000, 0.5), peer(20, 1), peer(0, 0)}, 0.75},
	} {
		if got := Loss(c.peers); got != c.want {
			t.Errorf("%v: %v, want %v", c.peers, got, c.want)
		}
	}
}

// Counts of removed paths change until more paths are removed, and those before stay as they
// are if a reload fails.
func TestPast(t *testing.T) {
	counts := func(n *int) func() api.PeerStatus {
		return func() api.PeerStatus { return api.PeerStatus{Out: api.Traffic{Packets: uint64(*n)}} }
	}
	a, b := 3, 10
	var none *Past
	first := none.And([]func() api.PeerStatus{counts(&a)})
	check := func(p *Past, want uint64) {
		t.Helper()
		s := api.PeerStatus{Out: api.Traffic{Packets: 100}}
		if p.AddTo(&s); s.Out.Packets != 100+want {
			t.Errorf("%d packets, want %d", s.Out.Packets, 100+want)
		}
	}
	check(none, 0)
	check(first, 3)
	a++ // a packet in flight
	check(first, 4)
	check(first.And(nil), 4)
	second := first.And([]func() api.PeerStatus{counts(&b)})
	check(second, 14)
	b++
	check(second, 15)
	check(first, 4)
}
