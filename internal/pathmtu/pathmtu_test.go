package pathmtu

import (
	"math/rand/v2"
	"testing"
	"time"
)

// network simulates a path.
type network struct {
	mtu     int // of the link with the smallest MTU
	rtt     time.Duration
	deaf    bool // the far end does not answer
	loss    float64
	random  *rand.Rand
	traffic bool
	now     time.Time
	flight  []flight
	probes  int
}

type flight struct {
	seq uint16
	at  time.Time
}

func newNetwork(mtu int) *network {
	return &network{mtu: mtu, rtt: 20 * time.Millisecond, traffic: true, now: time.Unix(1e9, 0), random: rand.New(rand.NewPCG(1, 2))}
}

// run simulates time in the steps of the engine.
func (n *network) run(p *Path, d time.Duration) {
	const step = 10 * time.Millisecond
	for end := n.now.Add(d); n.now.Before(end); n.now = n.now.Add(step) {
		if n.traffic {
			p.Sent(1, n.now)
		}
		rest := n.flight[:0]
		for _, f := range n.flight {
			if f.at.After(n.now) {
				rest = append(rest, f)
			} else {
				p.Answer(f.seq, n.now)
			}
		}
		n.flight = rest
		probes, _ := p.Next(n.now)
		n.probes += len(probes)
		for _, q := range probes {
			if q.Size <= n.mtu && !n.deaf && n.random.Float64() >= n.loss {
				n.flight = append(n.flight, flight{q.Seq, n.now.Add(n.rtt)})
			}
		}
	}
}

// until returns how long it takes to find an MTU, at most a minute.
func (n *network) until(p *Path, mtu int) time.Duration {
	start := n.now
	for n.now.Sub(start) < time.Minute {
		if got, _ := p.MTU(); got == mtu {
			break
		}
		n.run(p, 10*time.Millisecond)
	}
	return n.now.Sub(start)
}

func want(t *testing.T, p *Path, mtu int, by Source) {
	t.Helper()
	if got, from := p.MTU(); got != mtu || from != by {
		t.Errorf("path MTU %d by %s, want %d by %s", got, from, mtu, by)
	}
}

// A black hole is located exactly within ten seconds of simulated time, for any size and
// any round-trip time; and an increase of the path MTU is detected.
func TestBlackHole(t *testing.T) {
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond} {
		for _, mtu := range []int{1499, 1492, 1400, 1399, 1337, 1281, 1280, 1279, 600, 577, 300, 200, 129} {
			n := newNetwork(1500)
			n.rtt = rtt
			p := New(1500)
			n.run(p, 10*time.Second)
			want(t, p, 1500, Route)
			n.mtu = mtu
			limit := 10 * time.Second
			if rtt > 500*time.Millisecond || mtu < 1280 {
				limit = 15 * time.Second // still finite
			}
			if took := n.until(p, mtu); took > limit {
				t.Errorf("MTU %d at a round trip of %v: %v", mtu, rtt, took)
			}
			want(t, p, mtu, Probe)
			n.run(p, 5*time.Second)
			want(t, p, mtu, Probe)
			n.mtu = 1500
			if took := n.until(p, 1500); took > 65*time.Second {
				t.Errorf("back to 1500 from %d: %v", mtu, took)
			}
			want(t, p, 1500, Route)
		}
	}
}

// The path MTU is small from the beginning, and no router reports it: this is known
// before there is traffic.
func TestNarrowFromTheStart(t *testing.T) {
	n := newNetwork(1400)
	n.traffic = false
	p := New(1500)
	n.run(p, 5*time.Second)
	want(t, p, 1400, Probe)
	sent := n.probes
	n.run(p, time.Hour)
	if n.probes > sent {
		t.Errorf("%d probes without traffic", n.probes-sent)
	}
	// The peer starts late.
	n = newNetwork(1400)
	n.traffic, n.deaf = false, true
	p = New(1500)
	n.run(p, 3*time.Second)
	n.deaf = false
	n.run(p, 10*time.Second)
	want(t, p, 1400, Probe)
}

// The peer starts late and sends first: then it is probed. A peer that sends but never
// answers is probed less and less often.
func TestHeard(t *testing.T) {
	n := newNetwork(1400)
	n.traffic, n.deaf = false, true
	p := New(1500)
	n.run(p, 10*time.Minute)
	if !p.Unknown() {
		t.Error("known")
	}
	n.deaf = false
	p.Received(n.now)
	n.run(p, 5*time.Second)
	want(t, p, 1400, Probe)
	if p.Unknown() {
		t.Error("unknown")
	}
	n = newNetwork(1500)
	n.traffic, n.deaf = false, true
	p = New(1500)
	for range 3600 {
		p.Received(n.now)
		n.run(p, time.Second)
	}
	if n.probes > 60 {
		t.Errorf("%d probes in an hour", n.probes)
	}
}

// The path MTU increases, but not up to the link's MTU.
func TestWidens(t *testing.T) {
	n := newNetwork(1300)
	p := New(1500)
	n.run(p, 10*time.Second)
	want(t, p, 1300, Probe)
	n.mtu = 1433
	n.run(p, 65*time.Second)
	want(t, p, 1433, Probe)
}

// Loss of packets of all sizes does not decrease the path MTU.
func TestLoss(t *testing.T) {
	n := newNetwork(1500)
	n.loss = 0.1
	p := New(1500)
	for range 600 {
		n.run(p, time.Second)
		if mtu, _ := p.MTU(); mtu != 1500 {
			t.Fatalf("path MTU %d after %v", mtu, n.now.Sub(time.Unix(1e9, 0)))
		}
	}
}

// If probes are answered, a router is believed if they agree.
func TestTooBigVerified(t *testing.T) {
	n := newNetwork(1500)
	p := New(1500)
	n.run(p, 5*time.Second)
	for _, lie := range []int{68, 576, 1280, 1499} {
		if p.TooBig(lie, false, n.now) {
			t.Errorf("%d is believed at once", lie)
		}
		want(t, p, 1500, Route)
		n.run(p, 2*time.Second)
		want(t, p, 1500, Route)
	}
	if p.RefutedReports() != 4 {
		t.Errorf("%d forged", p.RefutedReports())
	}
	n.mtu = 1400
	p.TooBig(1400, false, n.now)
	n.run(p, time.Second)
	want(t, p, 1400, ICMP)
	n.mtu = 1390
	p.TooBig(1390, false, n.now)
	p.TooBig(1390, true, n.now) // the report quotes a probe
	want(t, p, 1390, ICMP)
	// True, but incomplete: a later link has a smaller MTU.
	n.mtu = 1310
	p.TooBig(1350, false, n.now)
	n.run(p, 3*time.Second)
	want(t, p, 1310, Probe)
	// The same without traffic.
	n.traffic = false
	n.run(p, 10*time.Second)
	n.mtu = 1290
	p.TooBig(1290, false, n.now)
	n.run(p, time.Second)
	want(t, p, 1290, ICMP)
}

// A false report arrives before it is known whether the peer answers: it has no lasting
// effect.
func TestTooBigFirst(t *testing.T) {
	n := newNetwork(1500)
	n.traffic = false
	p := New(1500)
	n.run(p, 10*time.Millisecond) // the first probes are in flight
	if !p.TooBig(1300, false, n.now) {
		t.Error("not believed")
	}
	want(t, p, 1300, ICMP)
	n.run(p, time.Second)
	want(t, p, 1500, Route)
	n.mtu = 1300
	n.now = n.now.Add(time.Hour)
	p.TooBig(1300, false, n.now)
	n.run(p, 10*time.Second)
	want(t, p, 1300, ICMP)
}

// Two false reports in succession, before it is known whether the peer answers, and
// after; and false reports on a path with some loss.
func TestLies(t *testing.T) {
	n := newNetwork(1500)
	n.traffic = false
	p := New(1500)
	p.TooBig(1000, false, n.now)
	p.TooBig(999, false, n.now)
	n.run(p, time.Second)
	want(t, p, 1500, Route)
	p.TooBig(1000, false, n.now)
	p.TooBig(999, false, n.now)
	n.run(p, 10*time.Second)
	want(t, p, 1500, Route)
	n.loss = 0.01
	for range 3000 {
		p.TooBig(600, false, n.now)
		n.run(p, 200*time.Millisecond)
		if mtu, _ := p.MTU(); mtu != 1500 {
			t.Fatalf("%d after %d lies", mtu, p.RefutedReports())
		}
	}
}

// Next never asks to be called again at once: the caller would loop.
func TestNextRests(t *testing.T) {
	n := newNetwork(1400)
	p := New(1500)
	n.run(p, 10*time.Second)
	p.TooBig(1390, true, n.now)
	n.traffic = false
	for range 100 {
		n.run(p, 20*time.Second)
		if probes, again := p.Next(n.now); len(probes) == 0 && !again.IsZero() && !again.After(n.now) {
			t.Fatalf("at %v: again at %v", n.now, again)
		}
	}
}

// A peer answered once and never again: the result is forgotten.
func TestFallsSilent(t *testing.T) {
	n := newNetwork(1400)
	p := New(1500)
	n.run(p, 10*time.Second)
	want(t, p, 1400, Probe)
	n.deaf = true
	n.run(p, 15*time.Minute)
	want(t, p, 1500, Route)
}

// If probes are not answered, a router is believed, and forgotten after ten minutes.
func TestTooBigAlone(t *testing.T) {
	n := newNetwork(1500)
	n.deaf = true
	p := New(1500)
	n.run(p, 20*time.Second)
	want(t, p, 1500, Route)
	if !p.TooBig(1400, false, n.now) {
		t.Error("not believed")
	}
	want(t, p, 1400, ICMP)
	if p.TooBig(1400, false, n.now) || p.TooBig(1450, false, n.now) {
		t.Error("no less than before")
	}
	n.run(p, 9*time.Minute)
	want(t, p, 1400, ICMP)
	n.run(p, 2*time.Minute)
	want(t, p, 1500, Route)
}

// A peer that does not answer is not probed further, and neither is a path without large
// packets.
func TestQuiet(t *testing.T) {
	n := newNetwork(1500)
	n.deaf = true
	p := New(1500)
	n.run(p, time.Hour)
	if n.probes > 60 {
		t.Errorf("%d probes in an hour to a peer that does not answer", n.probes)
	}
	n = newNetwork(1500)
	n.traffic = false
	p = New(1500)
	n.run(p, time.Minute)
	p.Sent(2, n.now)
	n.run(p, time.Minute)
	if n.probes > 2 { // the first round
		t.Errorf("%d probes without traffic", n.probes)
	}
	if _, again := p.Next(n.now); !again.IsZero() {
		t.Errorf("asks to be called at %v", again)
	}
}

// The peer fails during a search: only the router's report is left.
func TestPeerDiesInSearch(t *testing.T) {
	n := newNetwork(1500)
	p := New(1500)
	n.run(p, 5*time.Second)
	p.TooBig(1400, false, n.now)
	n.deaf = true
	n.run(p, 10*time.Second)
	want(t, p, 1400, ICMP)
}

// Answers to probes that were never sent, or repeated answers, have no effect.
func TestForgedAnswers(t *testing.T) {
	n := newNetwork(1300)
	p := New(1500)
	for range 1000 {
		p.Answer(uint16(n.random.Uint32()), n.now)
		n.run(p, 20*time.Millisecond)
	}
	want(t, p, 1300, Probe)
}

// An attacker who forges a hundred reports per second, each with another size, causes few
// probes. A true report among them is found by confirmations.
func TestForgeriesAreNotAmplified(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		n := newNetwork(1500)
		n.traffic, n.deaf = false, deaf
		p := New(1500)
		n.run(p, 10*time.Second)
		before := n.probes
		for i := range 6000 {
			p.TooBig(1499-i%1300, false, n.now)
			n.run(p, 10*time.Millisecond)
		}
		if sent := n.probes - before; sent > 24 { // one large and one small probe for each check
			t.Errorf("silent %v: %d probes for 6000 reports", deaf, sent)
		}
		if deaf {
			continue
		}
		want(t, p, 1500, Route)
		n.mtu, n.traffic = 1400, true
		for range 1000 {
			p.TooBig(1300, false, n.now)
			n.run(p, 10*time.Millisecond)
		}
		want(t, p, 1400, Probe)
	}
}

// A true report ends the pause that earlier false ones have caused.
func TestTrustReturns(t *testing.T) {
	n := newNetwork(1500)
	n.traffic = false
	p := New(1500)
	n.run(p, 5*time.Second)
	for range 20 {
		p.TooBig(1400, false, n.now)
		n.run(p, 2*time.Minute)
	}
	if p.RefutedReports() != 20 {
		t.Errorf("%d forged", p.RefutedReports())
	}
	n.mtu = 1400
	p.TooBig(1400, false, n.now)
	n.run(p, time.Second)
	want(t, p, 1400, ICMP)
	n.mtu = 1300
	p.TooBig(1300, false, n.now)
	n.run(p, time.Second)
	want(t, p, 1300, ICMP)
}
