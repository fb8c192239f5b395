package engine

import (
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/config"
)

func pathTo(remote string) *path {
	return &path{layers: []encap.Layer{layer(encap.SixInFour, "192.0.2.1", remote, encap.GRE{})}}
}

// hubOf is an engine with one hub, whose peers have names.
func hubOf(names ...string) (*Engine, []*peer) {
	tun := &tunnel{cfg: config.Tunnel{Hub: true}, prober: newProber()}
	for _, n := range names {
		tun.peers = append(tun.peers, newPeer(tun, &config.Peer{Name: n, Remotes: []config.Host{{Name: n}}}))
	}
	return &Engine{tunnels: []*tunnel{tun}}, tun.peers
}

// moves gives a peer another path.
func (e *Engine) moves(p *peer, to *path) {
	p.replacePath(to)
	e.register(p, to)
}

// Names change: what comes from the former address finds its peer by the path that
// it had there, before and after there is a new table, and only for a while.
func TestFormerAddress(t *testing.T) {
	e, peers := hubOf("a")
	p, now := peers[0], time.Now()
	old, next := pathTo("198.51.100.1"), pathTo("198.51.100.2")
	e.moves(p, old)
	before := e.newTable(now)
	e.moves(p, next)
	after := e.newTable(now)
	fromOld, fromNew := arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6), arriving("198.51.100.2", "192.0.2.1", header.ProtoIPv6)
	for _, c := range []struct {
		name  string
		table *table
		pkt   []byte
		want  *path
	}{
		{"from there, as yet", before, fromOld, old},
		{"from there, then", after, fromOld, old},
		{"from the new address", after, fromNew, next},
	} {
		if got := c.table.find(c.pkt); got == nil || got.peer != p || got.path() != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := e.newTable(now.Add(formerLife + time.Minute)).find(fromOld); got != nil {
		t.Errorf("long ago: %+v", got)
	}
	wider := pathTo("198.51.100.2")
	wider.mtu = 1400
	e.moves(p, wider)
	if got := after.find(fromNew); got.path() != wider {
		t.Error("between the same ends a new path is not that of the table")
	}
}

// An address that a peer had is another's now.
func TestFormerAddressOfAnother(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		e, peers := hubOf("a", "b")
		gone, come := peers[order[0]], peers[order[1]]
		e.moves(gone, pathTo("198.51.100.1"))
		e.moves(come, pathTo("198.51.100.7"))
		e.moves(gone, pathTo("198.51.100.2"))
		e.moves(come, pathTo("198.51.100.1"))
		if got := e.newTable(time.Now()).find(arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6)); got.peer != come {
			t.Errorf("%v: of the peer that was there before", order)
		}
	}
}
