package config

import (
	"net/netip"
	"runtime"
	"testing"

	"sixfour/encap"
)

func TestQueuesOf(t *testing.T) {
	for _, c := range []struct {
		what string
		t    Tunnel
		n    int
		want int
	}{
		{"configured", Tunnel{Interface: Interface{Queues: 7}}, 100, 7},
		{"many tunnels", Tunnel{}, runtime.NumCPU() + 1, 1},
		{"one tunnel", Tunnel{}, 1, max(1, min(runtime.NumCPU()/2, MaxQueues))},
	} {
		c.t.Layers = make([]Layer, 1)
		c.t.Peers = []Peer{{Paths: make([]Path, 1)}}
		c.t.Mode.Layers = []encap.Kind{encap.SixInFour}
		if got := c.t.QueuesOf(c.n); got != c.want {
			t.Errorf("%s: %d queues, not %d", c.what, got, c.want)
		}
	}
}

func TestHasIPv6(t *testing.T) {
	only6, both := []encap.Kind{encap.SixInFour}, []encap.Kind{encap.GREInFour}
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	for _, c := range []struct {
		what string
		t    Tunnel
		want bool
	}{
		{"carries only IPv6", Tunnel{Mode: encap.Mode{Layers: only6}}, true},
		{"no address", Tunnel{Mode: encap.Mode{Layers: both}}, false},
		{"IPv4 only", Tunnel{Mode: encap.Mode{Layers: both}, Interface: Interface{Address: prefix("10.0.0.1/24"), Routes: prefix("10.1.0.0/16")}}, false},
		{"an address", Tunnel{Mode: encap.Mode{Layers: both}, Interface: Interface{Address: prefix("2001:db8::1/64")}}, true},
		{"a route", Tunnel{Mode: encap.Mode{Layers: both}, Interface: Interface{Routes: prefix("::/0")}}, true},
	} {
		if got := c.t.HasIPv6(); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
