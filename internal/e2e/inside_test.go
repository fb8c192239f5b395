package e2e

import (
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// Out of the port of a connection goes nothing but the connection: a path in WireGuard, in a
// mode without an IPv6 layer whose ends answer, is probed between inner addresses only, for
// liveness and to find the path MTU.
func TestProbesInsideConnection(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	listens, arrives := meetingLines(t, "wireguard", newKey(t))
	b := start(t, h.b, strings.Replace(plainB(), "remote = \"203.0.113.10\"\n", "", 1)+"[[tunnel.path]]\n"+listens)
	a := start(t, h.a, plainA()+"[[tunnel.path]]\n"+arrives)
	for _, d := range []*daemon{a, b} {
		d.phase(t, api.Up)
	}
	pings(t, h.a, in6B, rig.PingOptions{Size: 1440 - 48})
	pings(t, h.b, in6A, rig.PingOptions{Size: 1440 - 48})
	for _, d := range []*daemon{a, b} {
		found, err := client.New(d.socket).ProbeMTU(t.Context(), "six0", func(api.MTUProbe) error { return nil })
		if err != nil || found.PathMTU != 1500 {
			t.Errorf("%+v, %v", found, err)
		}
		if _, s := d.status(t); s.State.PathMTU != 1500 || s.State.TunnelMTU != 1440 || s.LastError != nil {
			t.Errorf("%+v, last error %+v", s.State, s.LastError)
		}
	}
}
