package engine

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/config"
)

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
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tn.agent.Run(ctx, &wg, tn.only.paths[0].Path, r, func(context.Context) {}, func() { t.Error("it failed") })
	want := []api.Neighbour{{Address: "fe80::200:5efe:c000:201", Outer: "192.0.2.1", State: "silent"}}
	if s := tn.status(); !slices.Equal(s.Neighbours, want) {
		t.Errorf("got  %v\nwant %v", s.Neighbours, want)
	}
}
