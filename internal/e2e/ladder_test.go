package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// load sends datagrams at a rate to an inner address of b, and returns the result when it
// ends.
func (h hosts) load(t *testing.T, to netip.Addr, rate int, d time.Duration) (end func() rig.LoadResult) {
	t.Helper()
	if rig.Race {
		rate /= 10
	}
	done := make(chan rig.LoadResult, 1)
	go func() {
		r, err := rig.Load(t.Context(), h.a, h.b, netip.AddrPortFrom(to, 5000), rig.LoadOptions{UDP: true, Duration: d, Size: 100, Rate: rate, Drain: time.Second})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	return func() rig.LoadResult { return <-done }
}

// drops makes a host drop packets that arrive, by the rules of an nftables chain; none: it
// drops none any more.
func drops(t *testing.T, ns *rig.Namespace, rules string) {
	t.Helper()
	command(t, ns, "nft", "table inet e2e { chain in { type filter hook input priority 0; }; }\nflush chain inet e2e in\n"+
		"table inet e2e { chain in { "+rules+" }; }")
}

// A filter on the first path is put in under traffic: packets use the second path, in both
// directions. When it is taken out, they go back to the first one, and none is lost.
func TestFilteredUnderTraffic(t *testing.T) {
	const fou = "[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\n"
	for _, c := range []struct {
		name, a, b string
		to         netip.Addr
		atA, atB   string // rules
		back       bool
	}{
		{"protocol 41, then fou", configA(fou), configB(fou), inB, "ip protocol ipv6 drop;", "ip protocol ipv6 drop;", true},
		{"one direction", configA(secondUplink(1, 2)), configB(secondUplink(2, 1)), inB, "", "iifname \"vb\" ip protocol ipv6 drop;", false},
		{"the other direction", configA(secondUplink(1, 2)), configB(secondUplink(2, 1)), inB, "iifname \"va\" ip protocol ipv6 drop;", "", false},
		{"hosts that answer by another path", kind4in4.atA() + secondUplink(1, 2), kind4in4.atB() + secondUplink(2, 1), kind4in4.toB[0], "iifname \"va\" drop;", "iifname \"vb\" drop;", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newUplinks(t)
			a, b := start(t, h.a, c.a), start(t, h.b, c.b)
			a.bothAnswer(t)
			b.bothAnswer(t)

			_, before := a.status(t)
			end := h.load(t, c.to, 4000, 6*time.Second)
			eventually(t, "packets are sent", func() error { return a.hasSent(t, before.Out.Packets+1000) })
			drops(t, h.a, c.atA)
			drops(t, h.b, c.atB)
			a.usesPath(t, 1, notUp, api.Up)
			r := end()
			t.Logf("outage %v, %d of %d lost, %d reordered", r.Gap.Round(time.Millisecond), r.Lost(), r.Sent, r.Reordered)
			reachable(t, h.a, c.to) // the other end notices a failure of its path when it sends packets
			pings(t, h.a, c.to, rig.PingOptions{Count: 5})
			if !c.back {
				return
			}
			counted := readLosses(t, h, a, b)
			end = h.load(t, c.to, 500, 25*time.Second)
			drops(t, h.a, "")
			drops(t, h.b, "")
			a.usesPath(t, 0, api.Up, api.Up)
			b.usesPath(t, 0, api.Up, api.Up)
			checkPlanned(t, end(), counted, readLosses(t, h, a, b))
		})
	}
}

// secondUplink are lines of a configuration with two paths.
func secondUplink(self, other int) string {
	return fmt.Sprintf("[[tunnel.path]]\n[[tunnel.path]]\nlocal = \"198.51.100.%d0\"\nremote = \"198.51.100.%d0\"\n", self, other)
}

// bothAnswer waits until the first of two paths is used, and the peer has answered on both.
func (d *daemon) bothAnswer(t *testing.T) {
	t.Helper()
	d.usesPath(t, 0, api.Up, api.Up)
	eventually(t, "answers on both paths", func() error {
		_, s := d.status(t)
		for i, p := range s.Paths {
			if p.Liveness.RTT == 0 {
				return fmt.Errorf("path %d: %+v", i+1, p.Liveness)
			}
		}
		return nil
	})
}

// checkPlanned checks that a load has lost no packet because packets have changed their path,
// and that at most those under way at that moment were overtaken.
func checkPlanned(t *testing.T, r rig.LoadResult, before, after losses) {
	t.Helper()
	t.Logf("%d of %d lost, %d reordered, longest gap %v", r.Lost(), r.Sent, r.Reordered, r.Gap.Round(time.Millisecond))
	if r.Reordered > 200 {
		t.Errorf("%d packets reordered", r.Reordered)
	}
	r.Reordered = 0
	after.check(t, before, r)
}

// The order of the paths changes by a reload, to and fro, under traffic: packets use the other
// path at once, and none is lost.
func TestOrderChangedUnderTraffic(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	const first, second = "[[tunnel.path]]\n", "[[tunnel.path]]\nlocal = \"198.51.100.10\"\nremote = \"198.51.100.20\"\n"
	a, b := start(t, h.a, configA(first, second)), start(t, h.b, configB(secondUplink(2, 1)))
	a.bothAnswer(t)
	_, before := a.status(t)
	counted := readLosses(t, h, a, b)
	end := h.load(t, inB, 4000, 5*time.Second)
	eventually(t, "packets are sent", func() error { return a.hasSent(t, before.Out.Packets+1000) })
	for i := range 6 {
		order, local := [2]string{second, first}, "198.51.100.10"
		if i%2 != 0 {
			order, local = [2]string{first, second}, "203.0.113.10"
		}
		a.mustReload(t, configA(order[:]...))
		a.usesPath(t, 0, api.Up, api.Up)
		_, s := a.status(t)
		if s.Paths[0].State.Local != local {
			t.Errorf("reload %d: the first path is from %s, want %s", i, s.Paths[0].State.Local, local)
		}
		eventually(t, "packets use the first path", func() error {
			if _, now := a.status(t); now.Paths[0].Out.Packets < s.Paths[0].Out.Packets+100 {
				return fmt.Errorf("%d packets, before %d", now.Paths[0].Out.Packets, s.Paths[0].Out.Packets)
			}
			return nil
		})
	}
	checkPlanned(t, end(), counted, readLosses(t, h, a, b))
}

// When the link of the path in use goes down, packets use the other one.
func TestLinkDownUnderTraffic(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	a, b := start(t, h.a, configA(secondUplink(1, 2))), start(t, h.b, configB(secondUplink(2, 1)))
	a.bothAnswer(t)
	b.bothAnswer(t)
	_, before := a.status(t)
	end := h.load(t, inB, 4000, 4*time.Second)
	eventually(t, "packets are sent", func() error { return a.hasSent(t, before.Out.Packets+1000) })
	must(t, h.a.LinkDown("va"))
	a.usesPath(t, 1, api.Waiting, api.Up)
	r := end()
	t.Logf("outage %v, %d of %d lost, %d reordered", r.Gap.Round(time.Millisecond), r.Lost(), r.Sent, r.Reordered)
	_, s := a.status(t)
	if why := s.Paths[0].Why; !strings.HasPrefix(why, "it cannot send: it waits for ") || s.Paths[1].Why != "used" {
		t.Errorf("reasons %q and %q", why, s.Paths[1].Why)
	}
	b.usesPath(t, 1, notUp, api.Up)
	pings(t, h.a, inB, rig.PingOptions{Count: 5})
}

// With select = "balance", the flows are divided among the paths, and each stays on its path.
// When a path fails, the other one carries all of them.
func TestBalancedFlows(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	lines := func(self, other int) string {
		return "select = \"balance\"\n" + secondUplink(self, other) + "weight = 2\n"
	}
	a, b := start(t, h.a, configA(lines(1, 2))), start(t, h.b, configB(lines(2, 1)))
	for _, d := range []*daemon{a, b} {
		eventually(t, "both paths are used", func() error {
			_, s := d.status(t)
			if len(s.Paths) != 2 || s.Paths[0].Share < 0.3 || s.Paths[0].Share > 0.4 || s.Paths[1].Share < 0.6 {
				return fmt.Errorf("%+v", s.Paths)
			}
			return nil
		})
	}
	sent := func() (n [2]uint64) {
		_, s := a.status(t)
		return [2]uint64{s.Paths[0].Out.Packets, s.Paths[1].Out.Packets}
	}
	const flows, each = 60, 20
	both := 0 // paths that carry flows
	for flow := range flows {
		before := sent()
		exchangeFrom(t, h, 20000+flow, each)
		carried := 0 // paths of this flow
		eventually(t, "the flow's packets are counted", func() error {
			carried = 0
			after := sent()
			for i := range after {
				if after[i]-before[i] > each/2 { // answers to probes are few
					carried |= 1 << i
				}
			}
			if n := after[0] - before[0] + after[1] - before[1]; n < each {
				return fmt.Errorf("%d packets", n)
			}
			return nil
		})
		if carried != 1 && carried != 2 {
			t.Errorf("flow %d uses the paths %b", flow, carried)
		}
		both |= carried
	}
	if both != 3 {
		t.Errorf("the flows use the paths %b", both)
	}
	must(t, h.a.LinkDown("wa"))
	a.usesPath(t, 0, api.Up, api.Waiting)
	must(t, h.b.LinkDown("wb"))
	b.usesPath(t, 0, api.Up, api.Waiting)
	for flow := range flows / 4 {
		exchangeFrom(t, h, 20000+flow, 2)
	}
	must(t, h.a.LinkUp("wa"))
	must(t, h.b.LinkUp("wb"))
	eventually(t, "both paths are used again", func() error {
		if _, s := a.status(t); !s.Paths[0].Used || !s.Paths[1].Used {
			return fmt.Errorf("%+v", s.Paths)
		}
		return nil
	})
}

// exchangeFrom sends datagrams from a port of a to one of b, each of which must arrive.
func exchangeFrom(t *testing.T, h hosts, port, n int) {
	t.Helper()
	sink, err := h.b.ListenUDP(netip.AddrPortFrom(inB, 0))
	must(t, err)
	defer sink.Close()
	source, err := h.a.ListenUDP(netip.AddrPortFrom(inA, uint16(port)))
	must(t, err)
	defer source.Close()
	b := make([]byte, 100)
	must(t, sink.SetReadDeadline(time.Now().Add(patience)))
	for range n {
		_, err := source.WriteTo(b, sink.LocalAddr())
		must(t, err)
		_, _, err = sink.ReadFrom(b)
		must(t, err)
	}
}

// hasSent returns an error as long as the daemon has sent fewer packets.
func (d *daemon) hasSent(t *testing.T, packets uint64) error {
	if _, s := d.status(t); s.Out.Packets < packets {
		return fmt.Errorf("%d packets", s.Out.Packets)
	}
	return nil
}
