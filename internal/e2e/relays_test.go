package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// twoRelays is the network of a tunnel with two ways out:
//
//	namespace a                                    namespace b, and c likewise
//	203.0.113.10/24 va ───────────────────────── vb 203.0.113.20/24
//	198.51.100.10/24 wa ── wc 198.51.100.30/24     lo 3fff::1/128
func twoRelays(t *testing.T) (h hosts, c *rig.Namespace) {
	t.Helper()
	h, c = newHosts(t, 1500), newNamespace(t, "c")
	must(t, rig.Veth(h.a, "wa", c, "wc", 1500))
	must(t, h.a.AddAddr("wa", netip.MustParsePrefix("198.51.100.10/24")))
	must(t, c.AddAddr("wc", netip.MustParsePrefix("198.51.100.30/24")))
	must(t, h.a.LinkUp("wa"))
	must(t, c.LinkUp("wc"))
	must(t, c.AddRoute(netip.PrefixFrom(outerA, 32), netip.MustParseAddr("198.51.100.10"), ""))
	for _, ns := range []*rig.Namespace{h.b, c} {
		must(t, ns.AddAddr("lo", netip.MustParsePrefix("3fff::1/128")))
		must(t, ns.Forward())
	}
	return h, c
}

// A CE uses its second border relay when the first one does not return its packets,
// although its host answers pings, and the first one again when that returns packets.
func TestBorderRelayFailsOver(t *testing.T) {
	t.Parallel()
	h, c := twoRelays(t)
	there := netip.MustParseAddr("3fff::1")
	relay := func(local, own string) string {
		return "[[tunnel]]\nname = \"six0\"\nmode = \"6rd\"\nrole = \"br\"\nprefix = \"2001:db8::/32\"\nlocal = \"" + local + "\"\naddress = [\"2001:db8:" + own + "::1/32\"]\n"
	}
	b := start(t, h.b, relay("203.0.113.20", "cb00:7114"))
	start(t, c, relay("198.51.100.30", "c633:641e"))
	a := start(t, h.a, "[[tunnel]]\nname = \"six0\"\nmode = \"6rd\"\nprefix = \"2001:db8::/32\"\nlocal = \"203.0.113.10\"\nborder_relay = [\"203.0.113.20\", \"198.51.100.30\"]\n"+
		"routes = [\"3fff::/16\"]\naddress = [\"2001:db8:cb00:710a::1/32\"]\n"+often+"\n")
	s := a.phase(t, api.Up)
	reachable(t, h.a, there)
	if s.Liveness.RTT <= 0 {
		t.Errorf("%+v", s.Liveness)
	}
	carries := func(by string, d *daemon) {
		t.Helper()
		eventually(t, "packets go through "+by, func() error {
			_, before := d.status(t)
			res, err := rig.Ping(t.Context(), h.a, there, rig.PingOptions{Count: 20, Interval: 1, Timeout: 200e6})
			if err != nil || res.Received != 20 {
				return errors.Join(fmt.Errorf("%+v", res), err)
			}
			if _, after := d.status(t); after.In.Packets < before.In.Packets+20 {
				return errors.New("they do not")
			}
			return nil
		})
	}
	carries("b", b)
	waitReturned(t, a)
	b.freeze(t)
	a.wait(t, `"packets_go_to": "198.51.100.30"`)
	reachable(t, h.a, there)
	a.phase(t, api.Up)
	must(t, b.cmd.Process.Signal(syscall.SIGCONT))
	carries("b", b)
	if _, s := a.status(t); len(s.In.Drops) > 0 {
		t.Errorf("%v", s.In.Drops)
	}
}

// waitReturned waits until packets that a daemon has sent to itself have come back: from then
// on a ping of the relay's host is not enough.
func waitReturned(t *testing.T, d *daemon) {
	t.Helper()
	_, s := d.status(t)
	first := s.Liveness.Sent
	eventually(t, "some more probes", func() error {
		if _, s := d.status(t); s.Liveness.Sent < first+4 {
			return fmt.Errorf("%+v", s.Liveness)
		}
		return nil
	})
}

// Of ISATAP's potential routers, the first one that answers is used.
func TestPotentialRouters(t *testing.T) {
	t.Parallel()
	h, c := twoRelays(t)
	router := func(local string) string {
		return "[[tunnel]]\nname = \"six0\"\nmode = \"isatap\"\nrouter = true\nprefix = \"2001:db8:5efe:1::/64\"\nlocal = \"" + local + "\"\naddress = [\"2001:db8:5efe:1:200:5efe:" + local + "/64\"]\n"
	}
	b := start(t, h.b, router("203.0.113.20"))
	start(t, c, router("198.51.100.30"))
	a := start(t, h.a, "[[tunnel]]\nname = \"six0\"\nmode = \"isatap\"\nlocal = \"203.0.113.10\"\nrouters = [\"203.0.113.20\", \"198.51.100.30\"]\n"+often+"\n")
	there := netip.MustParseAddr("3fff::1")
	a.phase(t, api.Up)
	reachable(t, h.a, there)
	must(t, h.b.LinkDown("vb"))
	a.wait(t, `"packets_go_to": "198.51.100.30"`)
	reachable(t, h.a, there)
	must(t, h.b.LinkUp("vb"))
	eventually(t, "the first is the way out again", func() error {
		_, before := b.status(t)
		res, err := rig.Ping(t.Context(), h.a, there, rig.PingOptions{Count: 20, Interval: 1, Timeout: 200e6})
		if err != nil || res.Received != 20 {
			return errors.Join(fmt.Errorf("%+v", res), err)
		}
		if _, after := b.status(t); after.In.Packets < before.In.Packets+20 {
			return errors.New(strings.TrimSpace(a.log.String()))
		}
		return nil
	})
}
