package engine

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/netcfg"
	"sixfour/internal/site"
)

// Outer packets of a hub's second peer enter a tunnel whose outer packets go to that peer: a
// loop, although those of the first peer leave the host at once.
func TestDepthThroughHub(t *testing.T) {
	remote := func(a string) config.Peer {
		return config.Peer{Paths: []config.Path{{Remote: config.Host{Addr: netip.MustParseAddr(a)}}}}
	}
	const uplink, ofHub, ofOther = 2, 3, 4 // indexes of devices
	hub, other := tunnelOf(config.Tunnel{Hub: true, Layers: make([]config.Layer, 1)}), tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	near, far := addPath(hub, remote("198.51.100.1")), addPath(hub, remote("203.0.113.1"))
	behind, err := newBehind(hub.peers, []config.Peer{
		{Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Allowed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	hub.Peers.Table.Store(behind)
	for _, c := range []struct {
		name, to string // of the other tunnel
		want     int    // layers of packets to the far peer
	}{
		{"in a circle", "192.0.2.9", encap.MaxDepth + 1},
		{"through the hub's first peer", "10.0.0.9", 3},
		{"to nobody behind the hub", "172.16.0.9", 3},
	} {
		other.peers = nil
		p := addPath(other, remote(c.to))
		other.only, other.Peers.Only = p.peer, p.Peer
		e := &Engine{host: host{byIndex: map[int]*tunnel{ofHub: hub, ofOther: other}}}
		for range 2 { // until all know through which tunnel they go
			e.depth(near, netcfg.Route{Index: uplink})
			e.depth(p, netcfg.Route{Index: ofHub})
			if got := min(e.depth(far, netcfg.Route{Index: ofOther}), encap.MaxDepth+1); got < 2 {
				t.Errorf("%s: %d layers", c.name, got)
			}
		}
		if got := min(e.depth(far, netcfg.Route{Index: ofOther}), encap.MaxDepth+1); got != c.want {
			t.Errorf("%s: %d layers, want %d", c.name, got, c.want)
		}
	}
}

// No other mechanism may send to the prefix that 6rd currently delegates to this host (RFC
// 6324).
func TestDelegatedToAddressOfTheMoment(t *testing.T) {
	ce := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	ce.mech = site.New(0, resolve.SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), Role: resolve.RoleCE,
		Relays: []resolve.Host{{Addr: netip.MustParseAddr("198.51.100.1")}}})
	other := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	other.mech = site.New(0, resolve.SixToFour{Role: resolve.RoleRouter})
	e := &Engine{running: running{tunnels: []*tunnel{ce, other}}}
	local := netip.MustParseAddr("192.0.2.1")
	if got := e.site(other, local).Delegated; len(got) > 0 {
		t.Errorf("before there is an address: %v", got)
	}
	if _, err := ce.mech.At(e.site(ce, local)); err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("2001:db8:c000:201::/64")}
	if got := e.site(other, local).Delegated; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A peer that stays takes everything of its new configuration.
func TestAssume(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.0.0/24")
	old := config.Peer{Name: "b", Paths: []config.Path{{Remote: config.Host{Name: "b.example"}}}, Allowed: []netip.Prefix{prefix}}
	for what, next := range map[string]config.Peer{
		"a path":                  {Name: "b", Paths: []config.Path{{Remote: config.Host{Addr: prefix.Addr()}}}, Allowed: old.Allowed},
		"an inner address":        {Name: "b", Paths: old.Paths, InnerRemotes: []netip.Addr{prefix.Addr()}, Allowed: old.Allowed},
		"a prefix":                {Name: "b", Paths: old.Paths, Allowed: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
		"an address that answers": {Name: "b", Paths: old.Paths, Allowed: old.Allowed, Probe: prefix.Addr().Next()},
	} {
		p := addPath(tunnelOf(config.Tunnel{Hub: true, Layers: make([]config.Layer, 1)}), old).peer
		if p.assume(&next, p.paths); !p.cfg.Equal(&next) {
			t.Errorf("%s: %+v, want %+v", what, p.cfg, next)
		}
	}
}
