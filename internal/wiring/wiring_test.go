package wiring

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/configfile"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/transport"
)

// sockets opens senders that send nothing, unless they are to fail.
type sockets struct {
	ports.Sockets
	fail   bool
	opened int
}

type sender struct{ transport.Sender }

func (sender) Close() error { return nil }

func (s *sockets) Dial(ports.Key, transport.Options) (transport.Sender, error) {
	if s.fail {
		return nil, errors.New("no")
	}
	s.opened++
	return sender{}, nil
}

// newMaker returns what makes the wires of the only tunnel in a configuration.
func newMaker(t *testing.T, keys string) (*Maker, *sockets) {
	t.Helper()
	cfg, err := configfile.Parse("f", []byte("[[tunnel]]\nname = 't0'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"+keys))
	if err != nil {
		t.Fatal(err)
	}
	s := new(sockets)
	set := ports.New(ports.Config{Log: zap.NewNop(), Sockets: s})
	return New(&cfg.Tunnels[0], set.NewSenders(1), 1), s
}

// wire returns a wire that is ready for Make, of a path.
func wire(m *Maker, p *datapath.Path, remote string, mtu encap.PathMTU) *datapath.Wire {
	c := m.cfg
	layers := c.Stack(&c.Peers[0], &c.Peers[0].Paths[0], netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(remote))
	return &datapath.Wire{Path: p, Layers: layers, Hop: datapath.Hop{Device: 2, MTU: 1500}, MTU: mtu}
}

// A path keeps its wire until something about it changes.
func TestMake(t *testing.T) {
	m, s := newMaker(t, "")
	p := &datapath.Path{Record: encap.NewRecord()}
	make := func(remote string, mtu encap.PathMTU) *datapath.Wire {
		t.Helper()
		next := wire(m, p, remote, mtu)
		w, why := m.Make(next, func() *source.Checks {
			return m.Sources(&m.cfg.Peers[0], next.Layers, m.cfg.Address, new(atomic.Pointer[source.Interface]))
		})
		if w == nil {
			t.Fatal(why)
		}
		p.Wire.Store(w)
		return w
	}
	first := make("192.0.2.2", 1500)
	if make("192.0.2.2", 1500) != first || len(first.Senders) != 1 || s.opened != 1 {
		t.Errorf("another wire: %d sockets", s.opened)
	}
	narrow := make("192.0.2.2", 1400)
	if narrow == first || &narrow.Layers[0] != &first.Layers[0] || s.opened != 1 {
		t.Errorf("a smaller path MTU: %d sockets", s.opened)
	}
	if narrow.Clamp.IPv6 >= first.Clamp.IPv6 || first.Clamp.IPv6 != 1480 {
		t.Errorf("the MSS is limited to %v, then %v", first.Clamp, narrow.Clamp)
	}
	m.Changed(true)
	if make("192.0.2.2", 1400) != narrow {
		t.Error("another wire though only peers have changed")
	}
	m.Changed(false)
	again := make("192.0.2.2", 1400)
	if again == narrow {
		t.Error("the same wire after a change of settings")
	}
	paths := slices.Values([]*datapath.Path{p})
	if got := m.MTUOver(paths); got != 1480 {
		t.Errorf("the MTU of the interface is %d", got)
	}
	m.CloseUnused(paths)
	if m.Senders.Len() != 1 {
		t.Errorf("%d origins are open", m.Senders.Len())
	}
}

// Without a socket a path waits.
func TestMakeWaits(t *testing.T) {
	m, s := newMaker(t, "")
	s.fail = true
	next := wire(m, &datapath.Path{Record: encap.NewRecord()}, "192.0.2.2", 1500)
	w, why := m.Make(next, func() *source.Checks { return source.New(nil, nil, false) })
	if w != nil || !strings.HasPrefix(why, "a socket to send with: ") {
		t.Errorf("%v, %q", w, why)
	}
}

// The interface has the configured MTU, or what fits the first hop; no limit of the MSS if
// the configuration has none.
func TestMTU(t *testing.T) {
	var none iter.Seq[*datapath.Path] = func(func(*datapath.Path) bool) {}
	m, _ := newMaker(t, "")
	if got := m.MTUOver(none); got != 1480 {
		t.Errorf("without a path %d", got)
	}
	if got := m.MTU(1460); got != 1440 {
		t.Errorf("over 1460 bytes %d", got)
	}
	m, _ = newMaker(t, "mtu = 1300\n")
	if got := m.MTUOver(none); got != 1300 {
		t.Errorf("as configured %d", got)
	}
}

// datagrams is a framing with ports.
type datagrams struct{ framing.Bare }

func (datagrams) Properties() framing.Properties {
	return framing.Properties{Protocol: header.UDP, Overhead: header.UDPLen, OverheadBack: header.UDPLen, Longest: header.UDPLen, Carries6: true, Ports: framing.Ports{Local: 6635, Remote: 6636}}
}

// Only a port of UDP has a number, a mark and a device; the origin of packets has a mark
// always, and a device if an address is link-local.
func TestPorts(t *testing.T) {
	at := func(local, remote string, k encap.Kind) *datapath.Wire {
		return &datapath.Wire{Layers: []encap.Layer{{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}}, Hop: datapath.Hop{Device: 3}}
	}
	raw := at("192.0.2.1", "192.0.2.2", encap.SixInFour)
	if got, want := Origin(raw, 7), (ports.Origin{Key: ports.Raw(raw.Outer().Kind.Protocol(), raw.Outer().Local), Mark: 7}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	zoned := at("fe80::1%3", "fe80::2%3", encap.FourInSix)
	if got := Origin(zoned, 0); got.Device != 3 || got.Key.Device != 0 {
		t.Errorf("link-local: %+v", got)
	}
	udp := at("fe80::1%3", "fe80::2%3", encap.FourInSix.With(datagrams{framing.Bare(4)}))
	if got := Port(udp.Outer(), 3, 7); got.Protocol != header.UDP || got.Local.Port() != 6635 || got.Mark != 7 || got.Device != 3 || !HasPorts(udp.Outer().Kind) {
		t.Errorf("UDP: %+v", got)
	}
	var numbers []uint16
	for k := range Ports(at("192.0.2.1", "192.0.2.2", encap.FourInFour.With(framing.LISP{})), 7, 4) {
		if k.Protocol == header.UDP && k.Mark == 7 {
			numbers = append(numbers, k.Local.Port())
		}
	}
	if !slices.Equal(numbers, []uint16{4341, 4342}) {
		t.Errorf("data and control: %d", numbers)
	}
	other, gre, device := at("192.0.2.3", "192.0.2.2", encap.SixInFour), at("192.0.2.1", "192.0.2.2", encap.GREInFour), at("192.0.2.1", "192.0.2.2", encap.SixInFour)
	device.Hop.Device = 4
	for _, w := range []*datapath.Wire{other, gre, device, zoned} {
		if SamePorts(raw, w) {
			t.Errorf("%+v has the same ports as %+v", w, raw)
		}
	}
	if !SamePorts(raw, at("192.0.2.1", "192.0.2.9", encap.SixInFour)) {
		t.Error("another remote end has other ports")
	}
	if got := groupPort(raw.Outer(), netip.MustParseAddr("239.0.0.1"), 3); got.At != raw.Outer().Local || got.Device != 3 {
		t.Errorf("a group: %+v", got)
	}
	if k, need := ICMPPort(raw.Outer().Local); k.Protocol != header.ICMP || len(need.ICMP) == 0 {
		t.Errorf("ICMP: %+v", k)
	}
	if a := InZone(netip.MustParseAddr("fe80::1"), 3); a.Zone() != "3" {
		t.Error(a)
	}
	if a := InZone(netip.MustParseAddr("2001:db8::1"), 3); a.Zone() != "" {
		t.Error(a)
	}
	if ends := farEnds(slices.Concat(raw.Layers, []encap.Layer{{}})); len(ends) != 1 || ends[0].String() != "192.0.2.2/32" {
		t.Error(ends)
	}
}
