package e2e

import (
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// A provider filters protocol 41, then UDP as well, under traffic: packets use UDP, and then
// HTTPS over TCP. When it filters nothing any more, they return to protocol 41, and none is
// lost.
func TestLadderToHTTPS(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	listens, arrives := newWeb(t, 0).lines(t)
	const lines = "[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nport = 5555\n[[tunnel.path]]\n"
	a := start(t, h.a, configA(lines+arrives))
	b := start(t, h.b, configB(lines+listens))
	a.usesPath(t, 0, api.Up, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up, api.Up)
	for used, rules := range []string{"", "ip protocol ipv6 drop;", "iifname { va, vb } ip protocol ipv6 drop; iifname { va, vb } ip protocol udp drop;"} {
		end := h.load(t, inB, 1000, 6*time.Second)
		drops(t, h.a, rules)
		drops(t, h.b, rules)
		want := []api.Phase{api.Up, api.Up, api.Up}
		for i := range used {
			want[i] = notUp
		}
		a.usesPath(t, used, want...)
		r := end()
		t.Logf("path %d: outage %v, %d of %d lost, %d reordered", used+1, r.Gap.Round(time.Millisecond), r.Lost(), r.Sent, r.Reordered)
		reachable(t, h.a, inB)
		pings(t, h.a, inB, rig.PingOptions{Count: 5})
		transfer(t, h.a, h.b, inB, 1<<20)
	}
	counted := readLosses(t, h, a, b)
	end := h.load(t, inB, 500, 25*time.Second)
	drops(t, h.a, "")
	drops(t, h.b, "")
	a.usesPath(t, 0, api.Up, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up, api.Up)
	checkPlanned(t, end(), counted, readLosses(t, h, a, b))
}
