package e2e

import (
	"strings"
	"syscall"
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

// A path in a connection, without inner addresses that could be probed, is up as long as the
// connection is there. When it has ended, the path waits, and says why.
func TestConnectionWithoutProbes(t *testing.T) {
	for _, kind := range []string{"wireguard", "https"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			var listens, arrives string
			if kind == "https" {
				listens, arrives = newWeb(t, 0).lines(t)
			} else {
				listens, arrives = meetingLines(t, kind, newKey(t))
			}
			config := func(ends, own, peer, path string) string {
				return "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\n" + ends + "address = [\"" + own + "/32\"]\nroutes = [\"" + peer + "/32\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n" + path
			}
			a := start(t, h.a, config("local = \"auto\"\nremote = \"203.0.113.20\"\n", "10.0.0.1", "10.0.0.2", arrives))
			b := start(t, h.b, config("local = \"203.0.113.20\"\n", "10.0.0.2", "10.0.0.1", listens))
			for _, d := range []*daemon{a, b} {
				d.phase(t, api.Up)
			}
			reachable(t, h.a, inB)
			for _, d := range []*daemon{a, b} {
				if _, s := d.status(t); s.State.Phase != api.Up || s.State.Detail != "" || s.Liveness.Sent != 0 || s.LastError != nil {
					t.Errorf("%+v, liveness %+v, last error %+v", s.State, s.Liveness, s.LastError)
				}
			}
			if kind == "wireguard" {
				return // its connections end after three minutes (transport/wireguard)
			}
			a.end(t, syscall.SIGTERM)
			b.wait(t, "the peer")
			start(t, h.a, config("local = \"auto\"\nremote = \"203.0.113.20\"\n", "10.0.0.1", "10.0.0.2", arrives))
			b.phase(t, api.Up)
			reachable(t, h.b, inA)
		})
	}
}
