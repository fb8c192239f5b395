package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

func pathTo(remote string) *datapath.Wire {
	return &datapath.Wire{Layers: []encap.Layer{layer(encap.SixInFour, "192.0.2.1", remote, encap.GRE{})}}
}

// hubOf returns an engine with one hub whose peers have names.
func hubOf(names ...string) (*Engine, []*path) { return loggedHub(zap.NewNop(), names...) }

func loggedHub(log *zap.Logger, names ...string) (*Engine, []*path) {
	cfg := config.Tunnel{Hub: true}
	for _, n := range names {
		cfg.Peers = append(cfg.Peers, config.Peer{Name: n, Paths: []config.Path{{Remote: config.Host{Name: n}}}})
	}
	tun := loggedTunnel(cfg, nil, log)
	return &Engine{running: running{tunnels: []*tunnel{tun}}}, slices.Collect(tun.paths())
}

// moves gives a peer another path.
func (e *Engine) moves(p *path, to *datapath.Wire) {
	p.publish(to)
	e.register(p, to)
}

// When a name changes, packets from the former address still reach the peer by its former
// path, both before and after the table is replaced, but only for a while.
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
		table *datapath.Table
		pkt   []byte
		want  *datapath.Wire
	}{
		{"from there, as yet", before, fromOld, old},
		{"from there, then", after, fromOld, old},
		{"from the new address", after, fromNew, next},
	} {
		if got := c.table.Find(c.pkt, 0); got == nil || got.Path != p.Path || got.Wire() != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := e.newTable(now.Add(formerLife+time.Minute)).Find(fromOld, 0); got != nil {
		t.Errorf("long ago: %+v", got)
	}
	wider := pathTo("198.51.100.2")
	wider.MTU = 1400
	e.moves(p, wider)
	if got := after.Find(fromNew, 0); got.Wire() != wider {
		t.Error("between the same ends a new path is not that of the table")
	}
}

// A former address of one peer now belongs to another.
func TestFormerAddressOfAnother(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		e, peers := hubOf("a", "b")
		gone, come := peers[order[0]], peers[order[1]]
		e.moves(gone, pathTo("198.51.100.1"))
		e.moves(come, pathTo("198.51.100.7"))
		e.moves(gone, pathTo("198.51.100.2"))
		e.moves(come, pathTo("198.51.100.1"))
		if got := e.newTable(time.Now()).Find(arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6), 0); got.Path != come.Path {
			t.Errorf("%v: of the peer that was there before", order)
		}
	}
}

// Two names resolve to one address: this is logged once, and again when the conflict is new.
func TestTwins(t *testing.T) {
	core, seen := observer.New(zap.ErrorLevel)
	e, peers := loggedHub(zap.New(core), "a", "b")
	for i, c := range []struct {
		a, b string
		said int
	}{
		{"198.51.100.1", "198.51.100.2", 0},
		{"198.51.100.2", "198.51.100.1", 0}, // each has the other's former address
		{"198.51.100.2", "198.51.100.2", 1},
		{"198.51.100.2", "198.51.100.2", 1},
		{"198.51.100.2", "198.51.100.3", 1},
		{"198.51.100.3", "198.51.100.3", 2},
	} {
		e.moves(peers[0], pathTo(c.a))
		e.moves(peers[1], pathTo(c.b))
		e.newTable(time.Now())
		if n := seen.Len(); n != c.said {
			t.Errorf("step %d: said %d times", i, n)
		}
	}
}

// overLink returns a peer of a 6over4 tunnel at a local address, registered with a path
// through a device.
func overLink(t *testing.T, local string, device int) (*path, *datapath.Wire) {
	t.Helper()
	l := layer(encap.SixInFour, local, local, encap.GRE{})
	l.Remote = netip.Addr{}
	var err error
	if l.Resolver, err = (resolve.SixOverFour{}).Resolver(resolve.Site{Local: l.Local}); err != nil {
		t.Fatal(err)
	}
	tun := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	tun.MTU.Store(1480)
	p := tun.only.paths[0]
	to := &datapath.Wire{Path: p.Path, Layers: []encap.Layer{l}, Hop: datapath.Hop{Device: device}}
	if to.Stack, err = encap.New(to.Layers, 1500, encap.DefaultOptions, source.New(nil, nil, false), p.Record); err != nil {
		t.Fatal(err)
	}
	return p, to
}

// A device that is made again with the same address is in no group.
func TestDeviceMadeAnew(t *testing.T) {
	p, before := overLink(t, "192.0.2.1", 2)
	e := &Engine{running: running{tunnels: []*tunnel{p.t}}}
	e.moves(p, before)
	p.Listening.Store(true)
	again := *before
	e.moved = nil
	e.moves(p, &again)
	if len(e.moved) > 0 {
		t.Error("the same path is another")
	}
	groupsBefore := e.needed()
	anew := *before
	anew.Hop.Device = 7
	e.moves(p, &anew)
	for l := range e.needed() {
		if _, joined := groupsBefore[l]; l.Local.Addr().IsMulticast() && joined {
			t.Errorf("%v is not joined again", l.Local.Addr())
		}
	}
	if len(e.moved) == 0 {
		t.Error("nothing is joined again")
	}
}

// refusing is sockets that cannot be opened.
type refusing struct{ ports.Sockets }

func (refusing) Listen(ports.Key, transport.Shard, transport.Options) (transport.Port, error) {
	return nil, errors.New("no")
}

// A port that cannot be opened does not end the daemon.
func TestNotHeard(t *testing.T) {
	core, seen := observer.New(zap.WarnLevel)
	p, to := overLink(t, "192.0.2.77", 2)
	e := &Engine{log: zap.New(core), running: running{tunnels: []*tunnel{p.t}}}
	e.sockets = ports.New(ports.Config{Log: e.log, Sockets: refusing{}})
	e.moves(p, to)
	for range 2 {
		e.stale = true
		e.arrange()
	}
	if why := wiring.ReceiveProblem(e.sockets, to.Outer(), 2, 0); why != "a socket to receive with: no" {
		t.Errorf("%q", why)
	}
	other := layer(encap.SixInFour, "192.0.2.78", "192.0.2.1", encap.GRE{})
	if why := wiring.ReceiveProblem(e.sockets, &other, 2, 0); why != "" {
		t.Errorf("%q", why)
	}
	// Each port is reported once: for packets, for the groups, and for ICMP.
	if n := len(e.needed()); n < 3 || !e.stale || seen.FilterMessageSnippet("trying again").Len() != n || p.Listening.Load() {
		t.Errorf("stale %v, said %v, listening %v", e.stale, seen.All(), p.Listening.Load())
	}
}

// hubOfMany returns an engine with a hub of n peers whose packets are received.
func hubOfMany(t testing.TB, n int) (*Engine, []*path) {
	e, tun := new(Engine), tunnelOf(config.Tunnel{Hub: true, IO: config.IOSocket})
	e.log, e.running.tunnels, e.shards = zap.NewNop(), []*tunnel{tun}, 1
	key, icmp := ports.Raw(header.ProtoIPv6, outerOfHub), ports.Raw(header.ICMP, outerOfHub)
	rx := new(failing)
	rx.left.Store(1 << 40)
	e.sockets = ports.New(ports.Config{Log: e.log, Read: func(ports.Key, int, transport.Port) {}, Sockets: given{key: {rx}, icmp: {rx}}})
	t.Cleanup(e.sockets.Close)
	e.Table.Store(datapath.NewTable(0))
	for i := range n {
		p := addPath(tun, config.Peer{Name: fmt.Sprint(i)})
		e.moves(p, toPeer(i, 0))
	}
	e.stale = true
	e.arrange()
	return e, slices.Collect(tun.paths())
}

var outerOfHub = netip.MustParseAddr("192.0.2.1")

// toPeer returns a wire to one of many peers. Each of its addresses has a number.
func toPeer(i int, address byte) *datapath.Wire {
	remote := netip.AddrFrom4([4]byte{100 + address, byte(i >> 16), byte(i >> 8), byte(i)})
	return &datapath.Wire{Layers: []encap.Layer{{Kind: encap.SixInFour, Local: outerOfHub, Remote: remote}}}
}

// One of a hub's peers gets another address: its packets are found by that, those of the
// others as before, and the table is the same one.
func TestOneOfMany(t *testing.T) {
	e, paths := hubOfMany(t, 1000)
	table := e.Table.Load()
	from := func(w *datapath.Wire) *datapath.End {
		return e.Table.Load().Find(arriving(w.Outer().Remote.String(), "192.0.2.1", header.ProtoIPv6), 0)
	}
	e.moves(paths[7], toPeer(7, 1))
	e.arrange()
	if e.Table.Load() != table || e.stale {
		t.Error("everything was done again")
	}
	if from(toPeer(7, 0)) != nil || from(toPeer(7, 1)).Path != paths[7].Path || from(toPeer(8, 0)).Path != paths[8].Path {
		t.Error("packets are not those of their peers")
	}
	e.displace(paths[8])
	if from(toPeer(8, 0)) != nil {
		t.Error("packets of a peer that was removed are found")
	}
}

// BenchmarkOneOfMany measures that one of a hub's peers gets another address.
func BenchmarkOneOfMany(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		e, paths := hubOfMany(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % n
				e.moves(paths[at], toPeer(at, byte(i/n%2+1)))
				e.arrange()
			}
			if e.stale {
				b.Error("everything is to be done again")
			}
		})
	}
}
