package arrival

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// testPath is a path of no tunnel.
type testPath struct {
	Registration
	name      string
	conflicts int
}

func newTestPath(name string) *testPath {
	p := &testPath{name: name}
	p.Path = &datapath.Path{Owner: owner{testPath: p}, PathOf: datapath.PathOf{Tunnel: &datapath.Tunnel{Log: zap.NewNop()}}, Record: encap.NewRecord()}
	return p
}

func (p *testPath) Arrival() *Registration     { return &p.Registration }
func (p *testPath) HasAddress(netip.Addr) bool { return false }
func (p *testPath) HasName() bool              { return p.name != "" }
func (p *testPath) Mark() uint32               { return 0 }
func (p *testPath) WantsXDP() bool             { return false }
func (p *testPath) Awaits(int) (ports.Key, ports.Need, bool) {
	return ports.Key{}, ports.Need{}, false
}
func (p *testPath) Conflicts(*datapath.Path) { p.conflicts++ }
func (p *testPath) Parted(time.Duration)     {}

// owner is the owner of a path to which nothing happens.
type owner struct {
	datapath.PathOwner
	*testPath
}

func newSet(paths ...*testPath) *Set {
	s := &Set{log: zap.NewNop(), plane: new(datapath.Plane), receives: func(Path, bool) {}, shards: 1}
	s.paths = func() iter.Seq[Path] {
		return func(yield func(Path) bool) {
			for _, p := range paths {
				if !yield(p) {
					return
				}
			}
		}
	}
	return s
}

// setOf returns a Set of paths to names.
func setOf(names ...string) (*Set, []*testPath) {
	var paths []*testPath
	for _, n := range names {
		paths = append(paths, newTestPath(n))
	}
	return newSet(paths...), paths
}

// moves gives a path another wire.
func (s *Set) moves(p *testPath, to *datapath.Wire) {
	p.Wire.Store(to)
	p.Update(to)
	s.Register(p, to)
}

func layer(k encap.Kind, local, remote string) encap.Layer {
	return encap.Layer{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}
}

func pathTo(remote string) *datapath.Wire {
	return &datapath.Wire{Layers: []encap.Layer{layer(encap.SixInFour, "192.0.2.1", remote)}}
}

// arriving returns the beginning of a 6in4 packet.
func arriving(src, dst string) []byte {
	b := make([]byte, header.IPv4Len)
	b[0], b[9] = 0x45, header.ProtoIPv6
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	return b
}

// When a name changes, packets from the former address still reach the peer by its former
// path, both before and after the table is replaced, but only for a while.
func TestFormerAddress(t *testing.T) {
	s, peers := setOf("a")
	p, now := peers[0], time.Now()
	old, next := pathTo("198.51.100.1"), pathTo("198.51.100.2")
	s.moves(p, old)
	before := s.newTable(now)
	s.moves(p, next)
	after := s.newTable(now)
	fromOld, fromNew := arriving("198.51.100.1", "192.0.2.1"), arriving("198.51.100.2", "192.0.2.1")
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
	if got := s.newTable(now.Add(formerLife+time.Minute)).Find(fromOld, 0); got != nil {
		t.Errorf("long ago: %+v", got)
	}
	wider := pathTo("198.51.100.2")
	wider.MTU = 1400
	s.moves(p, wider)
	if got := after.Find(fromNew, 0); got.Wire() != wider {
		t.Error("between the same ends a new path is not that of the table")
	}
}

// A peer behind a NAT gets another port there.
func TestFormerPort(t *testing.T) {
	s, peers := setOf("a")
	at := func(port uint16) *datapath.Wire {
		kind := encap.SixInFour.With(framing.FOU{Local: 5555, Remote: port, Exact: true})
		return &datapath.Wire{Layers: []encap.Layer{layer(kind, "192.0.2.1", "198.51.100.1")}}
	}
	wires := map[uint16]*datapath.Wire{1000: at(1000), 2000: at(2000)}
	s.moves(peers[0], wires[1000])
	s.moves(peers[0], wires[2000])
	table := s.newTable(time.Now())
	for from, want := range wires {
		pkt := make([]byte, header.IPv4Len+header.UDPLen+header.IPv6Len)
		header.PutHeaders(pkt, &header.Outer{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), from), At: netip.MustParseAddrPort("192.0.2.1:5555")})
		if got := table.Find(pkt, 0); got == nil || got.Wire() != want {
			t.Errorf("from port %d: %+v", from, got)
		}
	}
}

// A former address of one peer now belongs to another.
func TestFormerAddressOfAnother(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		s, peers := setOf("a", "b")
		gone, come := peers[order[0]], peers[order[1]]
		s.moves(gone, pathTo("198.51.100.1"))
		s.moves(come, pathTo("198.51.100.7"))
		s.moves(gone, pathTo("198.51.100.2"))
		s.moves(come, pathTo("198.51.100.1"))
		if got := s.newTable(time.Now()).Find(arriving("198.51.100.1", "192.0.2.1"), 0); got.Path != come.Path {
			t.Errorf("%v: of the peer that was there before", order)
		}
	}
}

// Two names resolve to one address: this is logged once, and again when the conflict is new.
func TestTwins(t *testing.T) {
	s, peers := setOf("a", "b")
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
		s.moves(peers[0], pathTo(c.a))
		s.moves(peers[1], pathTo(c.b))
		s.newTable(time.Now())
		if n := peers[0].conflicts + peers[1].conflicts; n != c.said {
			t.Errorf("step %d: said %d times", i, n)
		}
	}
}

// All ports of the paths are needed, in whatever order the paths are: those that follow one
// another often have the same.
func TestNeeded(t *testing.T) {
	s, paths := setOf("a", "b", "c", "d", "e")
	want := make(map[ports.Key]bool)
	for i, l := range []encap.Layer{
		layer(encap.SixInFour, "192.0.2.1", "198.51.100.1"),
		layer(encap.SixInFour, "192.0.2.1", "198.51.100.2"),
		layer(encap.FourInFour, "192.0.2.1", "198.51.100.3"),
		layer(encap.SixInFour, "192.0.2.2", "198.51.100.4"),
		layer(encap.SixInFour, "192.0.2.1", "198.51.100.5"),
	} {
		s.moves(paths[i], &datapath.Wire{Layers: []encap.Layer{l}})
		icmp, _ := wiring.ICMPPort(l.Local)
		want[icmp], want[wiring.Port(&l, 0, 0)] = true, true
	}
	got := s.needed()
	for k := range want {
		if _, ok := got[k]; !ok {
			t.Errorf("%v is not needed", k)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// overLink returns a path of a 6over4 tunnel at a local address, and a wire
// through a device.
func overLink(t *testing.T, local string, device int) (*testPath, *datapath.Wire) {
	t.Helper()
	l := layer(encap.SixInFour, local, local)
	l.Remote = netip.Addr{}
	var err error
	if l.Resolver, err = (resolve.SixOverFour{}).Resolver(resolve.Site{Local: l.Local}); err != nil {
		t.Fatal(err)
	}
	p := newTestPath("")
	to := &datapath.Wire{Path: p.Path, Layers: []encap.Layer{l}, Hop: datapath.Hop{Device: device}}
	if to.Stack, err = encap.New(to.Layers, 1500, encap.DefaultOptions, source.New(nil, nil, false), p.Record); err != nil {
		t.Fatal(err)
	}
	return p, to
}

// A device that is made again with the same address is in no group.
func TestDeviceMadeAnew(t *testing.T) {
	p, before := overLink(t, "192.0.2.1", 2)
	s := newSet(p)
	s.moves(p, before)
	p.Listening.Store(true)
	again := *before
	s.moved = nil
	s.moves(p, &again)
	if len(s.moved) > 0 {
		t.Error("the same path is another")
	}
	groupsBefore := s.needed()
	anew := *before
	anew.Hop.Device = 7
	s.moves(p, &anew)
	for l := range s.needed() {
		if _, joined := groupsBefore[l]; l.Local.Addr().IsMulticast() && joined {
			t.Errorf("%v is not joined again", l.Local.Addr())
		}
	}
	if len(s.moved) == 0 {
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
	s := newSet(p)
	s.Sockets = ports.New(ports.Config{Log: zap.New(core), Sockets: refusing{}})
	s.moves(p, to)
	for range 2 {
		s.stale = true
		s.Arrange()
	}
	if why := wiring.ReceiveProblem(s.Sockets, to.Outer(), 2, 0); why != "a socket to receive with: no" {
		t.Errorf("%q", why)
	}
	other := layer(encap.SixInFour, "192.0.2.78", "192.0.2.1")
	if why := wiring.ReceiveProblem(s.Sockets, &other, 2, 0); why != "" {
		t.Errorf("%q", why)
	}
	// Each port is reported once: for packets, for the groups, and for ICMP.
	if n := len(s.needed()); n < 3 || !s.stale || seen.FilterMessageSnippet("trying again").Len() != n || p.Listening.Load() {
		t.Errorf("stale %v, said %v, listening %v", s.stale, seen.All(), p.Listening.Load())
	}
}

// hubOfMany returns a Set with the paths of a hub of n peers whose packets are received.
func hubOfMany(t testing.TB, n int) (*Set, []*testPath) {
	s, paths := setOf(make([]string, n)...)
	s.Sockets = ports.New(ports.Config{Log: s.log, Read: func(ports.Key, int, transport.Port) {}, Sockets: opening{}})
	t.Cleanup(s.Sockets.Close)
	s.plane.Table.Store(datapath.NewTable(0))
	for i, p := range paths {
		s.moves(p, toPeer(i, 0))
	}
	s.stale = true
	s.Arrange()
	return s, paths
}

// opening is sockets that can all be opened.
type opening struct{ ports.Sockets }

func (opening) Listen(ports.Key, transport.Shard, transport.Options) (transport.Port, error) {
	return silent{}, nil
}

// silent is a port at which nothing arrives.
type silent struct{ transport.Port }

func (silent) Close() error { return nil }

var outerOfHub = netip.MustParseAddr("192.0.2.1")

// toPeer returns a wire to one of many peers. Each of its addresses has a number.
func toPeer(i int, address byte) *datapath.Wire {
	remote := netip.AddrFrom4([4]byte{100 + address, byte(i >> 16), byte(i >> 8), byte(i)})
	return &datapath.Wire{Layers: []encap.Layer{{Kind: encap.SixInFour, Local: outerOfHub, Remote: remote}}}
}

// One of a hub's peers gets another address: its packets are found by that, those of the
// others as before, and the table is the same one.
func TestOneOfMany(t *testing.T) {
	s, paths := hubOfMany(t, 1000)
	table := s.plane.Table.Load()
	from := func(w *datapath.Wire) *datapath.End {
		return s.plane.Table.Load().Find(arriving(w.Outer().Remote.String(), "192.0.2.1"), 0)
	}
	s.moves(paths[7], toPeer(7, 1))
	s.Arrange()
	if s.plane.Table.Load() != table || s.stale {
		t.Error("everything was done again")
	}
	if from(toPeer(7, 0)) != nil || from(toPeer(7, 1)).Path != paths[7].Path || from(toPeer(8, 0)).Path != paths[8].Path {
		t.Error("packets are not those of their peers")
	}
	s.Displace(paths[8])
	if from(toPeer(8, 0)) != nil {
		t.Error("packets of a peer that was removed are found")
	}
}

// BenchmarkOneOfMany measures that one of a hub's peers gets another address.
func BenchmarkOneOfMany(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		s, paths := hubOfMany(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % n
				s.moves(paths[at], toPeer(at, byte(i/n%2+1)))
				s.Arrange()
			}
			if s.stale {
				b.Error("everything is to be done again")
			}
		})
	}
}
