package e2e

import (
	"fmt"
	"testing"

	"sixfour/internal/rig"
)

// The path is narrow, routers send no errors, and the peer starts after the search has
// ended: its first packet starts the search again.
func TestLatePeer(t *testing.T) {
	t.Parallel()
	n := newRouted(t)
	n.dropLarge(t, 1404)
	a := start(t, n.a, configA())
	eventually(t, "three rounds without an answer", func() error {
		if _, s := a.status(t); s.Probes.Sent < 6 {
			return fmt.Errorf("%+v", s.Probes)
		}
		return nil
	})
	start(t, n.b, configB())
	pings(t, n.b, inA, rig.PingOptions{})
	eventually(t, "the path MTU is found", func() error {
		if _, s := a.status(t); s.State.PathMTU < 1400 || s.State.PathMTU > 1404 {
			return fmt.Errorf("%+v", s.State)
		}
		return nil
	})
}
