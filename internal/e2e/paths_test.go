package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// uplinks is the network of tests with two paths:
//
//	namespace a                                namespace b
//	203.0.113.10/24  va ──────────────────── vb  203.0.113.20/24
//	198.51.100.10/24 wa ──────────────────── wb  198.51.100.20/24
func newUplinks(t *testing.T) hosts {
	t.Helper()
	h := newHosts(t, 1500)
	must(t, rig.Veth(h.a, "wa", h.b, "wb", 1500))
	must(t, h.a.AddAddr("wa", netip.MustParsePrefix("198.51.100.10/24")))
	must(t, h.b.AddAddr("wb", netip.MustParsePrefix("198.51.100.20/24")))
	must(t, h.a.LinkUp("wa"))
	must(t, h.b.LinkUp("wb"))
	return h
}

// twoPaths are lines of a configuration with two paths.
func twoPaths(self, other int) string {
	return fmt.Sprintf("keepalive = \"1s\"\ndead_after = 2\nselect = \"preferred\"\n[[tunnel.path]]\n[[tunnel.path]]\nlocal = \"198.51.100.%d0\"\nremote = \"198.51.100.%d0\"\n", self, other)
}

// notUp stands for any phase but up: a peer that has never answered a probe becomes suspect
// only, where one that has becomes down.
const notUp api.Phase = "not up"

// usesPath waits until packets use only the path of the given index, and the states of all
// paths are as given.
func (d *daemon) usesPath(t *testing.T, used int, phases ...api.Phase) {
	t.Helper()
	eventually(t, fmt.Sprintf("packets use path %d", used+1), func() error {
		_, s := d.status(t)
		if len(s.Paths) != len(phases) {
			return fmt.Errorf("paths: %+v", s.Paths)
		}
		for i, p := range s.Paths {
			if p.Used != (i == used) || p.State.Phase != phases[i] && (phases[i] != notUp || p.State.Phase == api.Up) {
				return fmt.Errorf("path %d is used: %v, and %s", i+1, p.Used, p.State.Phase)
			}
		}
		return nil
	})
}

// With select = "preferred", packets go the second way while the first is down, without an
// answer or without a link, and back when it has been up for a while. No packet is lost when
// they go back.
func TestPreferredPath(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	a := start(t, h.a, configA(twoPaths(1, 2)))
	b := start(t, h.b, configB(twoPaths(2, 1)))
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})

	macs := map[*rig.Namespace]net.HardwareAddr{}
	for _, n := range []*rig.Namespace{h.a, h.b} {
		mac, err := n.MAC("v" + n.Name())
		must(t, err)
		macs[n] = mac
	}
	silence := func(on bool) {
		t.Helper()
		toA, toB := macs[h.a], macs[h.b]
		if on { // to a station that is not on the link
			toA, toB = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
		}
		must(t, h.a.AddNeighbour("va", outerB, toB))
		must(t, h.b.AddNeighbour("vb", outerA, toA))
	}
	silence(true)
	a.usesPath(t, 1, notUp, api.Up)
	b.usesPath(t, 1, notUp, api.Up)
	_, before := a.status(t)
	pings(t, h.a, inB, rig.PingOptions{Count: 20})
	_, after := a.status(t)
	if n := after.Paths[1].Out.Packets - before.Paths[1].Out.Packets; n < 20 {
		t.Errorf("the second path has carried %d packets, want 20 at least", n)
	}

	done := make(chan rig.PingResult)
	silence(false)
	go func() {
		res, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Count: 700, Interval: 20 * time.Millisecond, Timeout: 2 * time.Second})
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	if res := <-done; res.Received != res.Sent || res.Sent == 0 {
		t.Errorf("on the way back: %+v", res)
	}

	must(t, h.b.LinkDown("vb"))
	a.usesPath(t, 1, notUp, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
	must(t, h.b.LinkUp("vb"))
	must(t, h.b.AddNeighbour("vb", outerA, macs[h.a]))
	a.usesPath(t, 0, api.Up, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}
