package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/transport"
)

// A hub's interface has our end of the IPv6 layer. To this end a peer may send from its own
// end or from its prefixes, but not from others' addresses.
func TestSourcesToOurEnd(t *testing.T) {
	const ours, theirs, others = "fc00::1", "fc00::2", "fc00::3"
	tun := tunnelOf(config.Tunnel{
		Hub: true, Interface: config.Interface{Address: []netip.Prefix{netip.MustParsePrefix(ours + "/64")}}, Layers: make([]config.Layer, 2),
		Peers: []config.Peer{{Paths: make([]config.Path, 1), InnerRemotes: make([]netip.Addr, 1)}}})
	tun.mtu.Store(1440)
	p := tun.paths[0]
	behind, err := newBehind(tun.paths, []config.Peer{{Allowed: []netip.Prefix{netip.MustParsePrefix("fd00:a::/64")}}})
	if err != nil {
		t.Fatal(err)
	}
	tun.peers.table.Store(behind)
	to := &Wire{layers: []encap.Layer{
		layer(encap.FourInSix, ours, theirs, encap.GRE{}),
		layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", encap.GRE{}),
	}}
	if to.stack, err = encap.New(to.layers, 1500, encap.DefaultOptions, resolve.NewSources(nil, nil, false), p.record); err != nil {
		t.Fatal(err)
	}
	e := &Engine{tunnels: []*tunnel{tun}}
	e.moves(p, to)
	table := e.newTable(time.Now())
	for _, c := range []struct {
		src, dst string
		passes   bool
	}{
		{theirs, ours, true},
		{"fd00:a::1", ours, true},
		{others, ours, false},
		{"2001:db8::1", ours, false},
		{theirs, "fd00:b::1", false},
		{"fd00:a::1", "fd00:b::1", true},
	} {
		pkt := arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6, arriving(c.src, c.dst, header.NoNextHeader)...)
		pkt[20+7] = 64 // hop limit
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		header.IPv4(pkt).SetChecksum()
		in := e.newInbound(0, zap.NewNop(), nil)
		from := table.find(pkt, 0)
		inner, r := from.decapsulate(from.wire(), pkt)
		in.deliver(from, from.wire(), pkt, inner, r)
		if got := len(in.touched) == 1; got != c.passes {
			t.Errorf("from %s to %s: passes %v (%v)", c.src, c.dst, got, p.in.traffic().Drops)
		}
	}
	if n := p.in.traffic().Drops["spoof"]; n != 3 {
		t.Errorf("%d are spoofs", n)
	}
}

// waker is a segmenter that records whether it was woken.
type waker struct{ woken bool }

func (w *waker) Wake() { w.woken = true }

// Only a packet from a peer makes the packet socket listen.
func TestStrangersDoNotWake(t *testing.T) {
	e, _, _, _ := lab(t)
	e.table.Store(e.newTable(e.started))
	for _, c := range []struct {
		name, outer, inner string
		segment            int
		wakes              bool
	}{
		{"a peer", "198.51.100.1", "10.0.0.2", transport.Unknown, true},
		{"a peer, not large", "198.51.100.1", "10.0.0.2", transport.Small, false},
		{"a peer, refused", "198.51.100.1", "127.0.0.1", transport.Unknown, false},
		{"a stranger", "198.51.100.9", "10.0.0.2", transport.Unknown, false},
	} {
		in, w := e.newInbound(0, zap.NewNop(), batch{}), new(waker)
		in.segments = w
		n := put(in, tunnelled(c.outer, c.inner, 30))
		in.meta[0].Segment = c.segment
		in.carry(n)
		if w.woken != c.wakes {
			t.Errorf("%s: wakes it: %v", c.name, w.woken)
		}
	}
}
