package engine

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/discovery"
)

// A hub's names resolve one after the other: all peers are evaluated once for many names, not
// once for each.
func TestManyNamesAreOneChange(t *testing.T) {
	const names = 2000
	e := &Engine{signals: signals{names: make(chan resolution)}, finder: discovery.New(zap.NewNop())}
	tun := tunnelOf(config.Tunnel{Hub: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var peers []*path
	for range names {
		peers = append(peers, addPath(tun, config.Peer{}))
	}
	go func() {
		for i, p := range peers {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			select {
			case e.names <- resolution{t: tun, p: p, name: fmt.Sprint(i), addrs: []netip.Addr{addr}}:
			case <-ctx.Done():
				return
			}
		}
	}()
	rounds := 0
	for !peers[names-1].far.Addr().IsValid() {
		e.wait(ctx, nil)
		rounds++
	}
	if rounds > names/10 {
		t.Errorf("%d names are %d changes", names, rounds)
	}
	for i, p := range peers {
		if !p.far.Addr().IsValid() {
			t.Fatalf("peer %d has no address", i)
		}
	}
}
