package engine

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"

	"golang.org/x/time/rate"
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

func newGossip(learnt func()) (*speaker, *gossip) {
	g := new(gossip)
	p := tunnelOf(config.Tunnel{}).only.paths[0]
	p.publish(pathTo("198.51.100.1"))
	p.Listening.Store(true)
	return &speaker{p: p, s: g, wake: make(chan struct{}, 1), learnt: learnt, limit: rate.NewLimiter(hearPerSecond, hearPerSecond)}, g
}

var advertisement = header.IPv6(nd.Append(nil, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"), &nd.Message{Type: nd.RouterAdvertisement}))

// Only some of a flood of neighbours' messages are handled; the rest are counted.
func TestFloodOfNeighbours(t *testing.T) {
	s, g := newGossip(nil)
	const flood = 100 * hearPerSecond
	refused := 0
	for range flood {
		if _, r := s.Receive(header.Outer{}, advertisement); r == drop.Limited {
			refused++
		}
	}
	if g.heard < hearPerSecond || g.heard > flood/2 || g.heard+refused != flood {
		t.Errorf("%d heard, %d refused", g.heard, refused)
	}
}

// Of a flood of advertisements, the interface gets some updates, and finally the last one.
func TestFloodOfAdvertisements(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	times := make(chan time.Time, hearPerSecond)
	s, g := newGossip(func() { times <- time.Now() })
	done := make(chan struct{})
	go func() { s.run(ctx); close(done) }()
	for range hearPerSecond {
		s.Receive(header.Outer{}, advertisement)
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

// The status shows what the mechanism knows of other nodes.
func TestNeighboursInStatus(t *testing.T) {
	router := resolve.Host{Addr: netip.MustParseAddr("192.0.2.1")}
	r, err := resolve.ISATAP{Routers: []resolve.Host{router}}.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.9")})
	if err != nil {
		t.Fatal(err)
	}
	tn := tunnelOf(config.Tunnel{Name: "isatap0"})
	if s := tn.status(); s.Neighbours != nil {
		t.Errorf("without a mechanism: %v", s.Neighbours)
	}
	tn.setSpeaker(&speaker{p: tn.only.paths[0], s: r.(resolve.Agent), failed: func() { t.Error("it failed") }})
	want := []api.Neighbour{{Address: "fe80::200:5efe:c000:201", Outer: "192.0.2.1", State: "silent"}}
	if s := tn.status(); !slices.Equal(s.Neighbours, want) {
		t.Errorf("got  %v\nwant %v", s.Neighbours, want)
	}
}
