package engine

import (
	"strings"
	"testing"

	"sixfour/internal/config"
)

func TestFindPeer(t *testing.T) {
	hub := func(name string, peers ...string) *tunnel {
		cfg := config.Tunnel{Name: name, Hub: true}
		for _, p := range peers {
			cfg.Peers = append(cfg.Peers, config.Peer{Name: p})
		}
		return tunnelOf(cfg)
	}
	one := tunnelOf(config.Tunnel{Name: "six0"})
	e := &Engine{running: running{tunnels: []*tunnel{one, hub("hub0", "b", "c"), hub("hub1", "c", "six0"), hub("hub2", "d")}}}
	for _, c := range []struct{ name, found, wrong string }{
		{name: "six0", found: "six0"},
		{name: "hub1/six0", found: "hub1/six0"},
		{name: "b", found: "hub0/b"},
		{name: "hub0/c", found: "hub0/c"},
		{name: "c", wrong: "is the name of 2 peers: choose hub0/c, hub1/c"},
		{name: "hub0", wrong: "is the name of 2 peers: choose hub0/b, hub0/c"},
		{name: "hub2", found: "hub2/d"},
		{name: "six1", wrong: `no peer "six1": choose six0, hub0/b, hub0/c, hub1/c, hub1/six0, hub2/d`},
		{name: "", wrong: "no peer"},
	} {
		p, err := e.find(c.name)
		switch {
		case c.wrong != "":
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%q: %v, want %q", c.name, err, c.wrong)
			}
		case err != nil || p.name().String() != c.found:
			t.Errorf("%q: %v", c.name, err)
		}
	}
}
