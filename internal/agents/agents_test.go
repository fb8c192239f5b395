package agents

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/internal/datapath"
	"sixfour/internal/recovery"
)

// gossip is a resolver that learns something new each time.
type gossip struct {
	datapath.StaticHop
	heard int
}

func (*gossip) Wants([]byte) bool                              { return true }
func (g *gossip) Receive(header.Outer, []byte, time.Time) bool { g.heard++; return true }
func (*gossip) Hold([]byte, time.Time) bool                    { return false }
func (*gossip) Next(time.Time) ([]resolve.Message, int, time.Time) {
	return nil, 0, time.Time{}
}
func (*gossip) Entries(time.Time) []resolve.Entry { return nil }
func (g *gossip) Learnt() resolve.Learnt          { return resolve.Learnt{MTU: 1280 + g.heard} }

func newRunner(learnt func()) (*Runner, *gossip) {
	g := new(gossip)
	return NewRunner(testPath(), g, Events{Learnt: learnt}), g
}

// testPath returns a path with a wire, at which packets are received.
func testPath() *datapath.Path {
	p := &datapath.Path{PathOf: datapath.PathOf{Tunnel: &datapath.Tunnel{Log: zap.NewNop()}}}
	p.Wire.Store(new(datapath.Wire))
	p.Listening.Store(true)
	return p
}

var advertisement = header.IPv6(nd.Append(nil, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"), &nd.Message{Type: nd.RouterAdvertisement}))

// Only some of a flood of neighbours' messages are handled; the rest are counted.
func TestFloodOfNeighbours(t *testing.T) {
	r, g := newRunner(nil)
	const flood = 100 * hearPerSecond
	refused := 0
	for range flood {
		if _, why := r.Receive(header.Outer{}, advertisement); why == drop.Limited {
			refused++
		}
	}
	if g.heard < hearPerSecond || g.heard > flood/2 || g.heard+refused != flood {
		t.Errorf("%d heard, %d refused", g.heard, refused)
	}
}

// A message that is not encapsulated has the TTL that the agent gives it, or the tunnel's.
func TestDatagramTTL(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.1")
	s, err := encap.New([]encap.Layer{{Kind: encap.InSixBed4, Local: local, Resolver: new(datapath.StaticHop)}}, 1500, encap.DefaultOptions, nil, encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	for ttl, want := range map[byte]byte{0: byte(encap.DefaultOptions.TTL), 3: 3} {
		m := resolve.Message{To: resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.20:25790")), Raw: true, TTL: ttl}
		pkt, why := datagram(s, make([]byte, encap.Headroom), encap.Headroom, &m)
		if why != drop.None || header.IPv4(pkt).TTL() != want || header.Sum(pkt[:header.IPv4Len], 0) != 0xffff {
			t.Errorf("TTL %d: %x, %v", ttl, pkt, why)
		}
	}
	m := resolve.Message{To: resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.20:0")), Raw: true, TTL: 3}
	if _, why := datagram(s, make([]byte, encap.Headroom), encap.Headroom, &m); why == drop.None {
		t.Error("sent to port 0")
	}
}

// Of a flood of advertisements, the interface gets some updates, and finally the last one.
func TestFloodOfAdvertisements(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	times := make(chan time.Time, hearPerSecond)
	r, g := newRunner(func() { times <- time.Now() })
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	for range hearPerSecond {
		r.Receive(header.Outer{}, advertisement)
		time.Sleep(100 * time.Microsecond)
	}
	last := g.Learnt()
	var learnt []time.Time
	for deadline := time.After(10 * time.Second); ; {
		select {
		case at := <-times:
			learnt = append(learnt, at)
			continue
		case <-time.After(5 * learnPause): // the last update
		case <-deadline:
			t.Fatal("there is no end to it")
		}
		break
	}
	cancel()
	<-done
	if len(learnt) < 2 || !slices.IsSortedFunc(learnt, time.Time.Compare) || last.MTU != 1280+hearPerSecond {
		t.Fatalf("%d times, %+v", len(learnt), last)
	}
	for i := range learnt[1:] {
		if between := learnt[i+1].Sub(learnt[i]); between < learnPause/2 {
			t.Errorf("again after %v", between)
		}
	}
}

// A panic of an agent leaves neither the agent nor a lock behind.
func TestAgentPanic(t *testing.T) {
	failed := false
	r := NewRunner(testPath(), nil, Events{Failed: func() { failed = true }}) // using the nil agent panics
	if !recovery.Guard(nil, "", func() { r.Hold(nil) }) || !failed || !r.mu.TryLock() {
		t.Error("a Runner whose agent panics keeps it, or its lock")
	}
}
