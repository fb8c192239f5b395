package engine

import (
	"testing"

	"sixfour/internal/config"
)

// The counts of a peer stay the same when a path of it is removed, also packets in flight
// count, and all is as before if the reload fails.
func TestRemovedPathCounts(t *testing.T) {
	cfg := config.Tunnel{Name: "t0", Layers: make([]config.Layer, 1), Peers: []config.Peer{{Name: "t0", Paths: []config.Path{{Port: 1}, {Port: 2}}}}}
	tun := tunnelOf(cfg)
	p := tun.only
	first, second := p.paths[0], p.paths[1]
	first.Sent(1, 100)
	second.Sent(10, 1000)
	counts := func(want uint64, paths int) {
		t.Helper()
		if s := p.status(); s.Out.Packets != want || s.Out.Bytes != 100*want || len(s.Paths) != paths {
			t.Errorf("%d packets, %d bytes, %d paths; want %d packets, %d paths", s.Out.Packets, s.Out.Bytes, len(s.Paths), want, paths)
		}
	}
	counts(11, 2)
	cfg.Peers = []config.Peer{{Name: "t0", Paths: []config.Path{{Port: 1}}}}
	r, err := tun.revise(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.put()
	counts(11, 0)
	second.Sent(1, 100)
	counts(12, 0)
	r.back()
	counts(12, 2)
}
