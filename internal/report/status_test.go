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
