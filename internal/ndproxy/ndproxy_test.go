package ndproxy

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// A router that has a network on its link finds the addresses of it that are behind this host,
// and no others.
func TestProxy(t *testing.T) {
	//	router                               host
	//	2001:db8:5::1/64 down ──────── up 2001:db8:5::2/64, 2001:db8:5:0:a::/80 behind it
	router := rigtest.Namespace(t, "router")
	host := rigtest.Enter(t, "host")
	must := func(err error) { t.Helper(); rigtest.Must(t, err) }
	behind := netip.MustParsePrefix("2001:db8:5:0:a::/80")
	p, err := Open("up", behind.Contains, zap.NewNop())
	must(err)
	defer p.Close()
	must(rig.Veth(router, "down", host, "up", 1500))
	must(router.AddAddr("down", netip.MustParsePrefix("2001:db8:5::1/64")))
	must(host.AddAddr("up", netip.MustParsePrefix("2001:db8:5::2/64")))
	must(host.AddAddr("lo", netip.MustParsePrefix("2001:db8:5:0:a::7/128")))
	must(host.AddAddr("lo", netip.MustParsePrefix("2001:db8:5:0:b::7/128")))
	must(router.LinkUp("down"))
	must(host.LinkUp("up"))
	must(host.Forward())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = host.Do(func() error { p.Run(ctx); return nil })
	}()
	ping := func(to string) int {
		res, err := rig.Ping(t.Context(), router, netip.MustParseAddr(to), rig.PingOptions{Count: 1, Timeout: time.Second})
		must(err)
		return res.Received
	}
	for deadline := time.Now().Add(20 * time.Second); ping("2001:db8:5:0:a::8") == 0; {
		// The host has no such address, but answers with an error or routes it: only the
		// neighbour entry tells.
		if ping("2001:db8:5:0:a::7") == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody answers for an address behind the host")
		}
	}
	neighbours, err := router.Handle().NeighList(0, 10) // AF_INET6
	must(err)
	for _, n := range neighbours {
		a, _ := netip.AddrFromSlice(n.IP)
		if n.HardwareAddr != nil && a.IsGlobalUnicast() && !behind.Contains(a) && a != netip.MustParseAddr("2001:db8:5::2") {
			t.Errorf("the router knows %v at %v", a, n.HardwareAddr)
		}
	}
	for _, other := range []string{"2001:db8:5:0:b::7", "2001:db8:5:0:c::7"} {
		if ping(other) != 0 {
			t.Errorf("somebody answers for %s", other)
		}
	}
	cancel()
	<-done
}
