package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/transport"
)

// A hub's interface has our end of the IPv6 layer. To this end a peer may send from its own
// end or from its prefixes, but not from others' addresses.
func TestSourcesToOurEnd(t *testing.T) {
	const ours, theirs, others = "fc00::1", "fc00::2", "fc00::3"
	e, tun, p, _ := lab(t)
	behind, err := source.NewPeers([]source.Peer[*Peer]{{Peer: p.Peer, Allowed: []netip.Prefix{netip.MustParsePrefix("fd00:a::/64")}}})
	if err != nil {
		t.Fatal(err)
	}
	tun.Peers.Only = nil
	tun.Peers.Table.Store(behind)
	table := e.Table.Load()
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
		in := e.NewInbound(Place{Socket: true}, zap.NewNop(), nil)
		from := table.Find(pkt, 0)
		inner, r := from.decapsulate(from.Wire(), pkt)
		in.handle(from, from.Wire(), pkt, inner, r)
		if got := len(in.touched) == 1; got != c.passes {
			t.Errorf("from %s to %s: passes %v (%v)", c.src, c.dst, got, p.In.Traffic().Drops)
		}
	}
	if n := p.In.Traffic().Drops["spoof"]; n != 3 {
		t.Errorf("%d are spoofs", n)
	}
}

// waker is a segmenter that records whether it was woken.
type waker struct{ woken bool }

func (w *waker) Wake() { w.woken = true }

// Only a packet from a peer makes the packet socket listen.
func TestStrangersDoNotWake(t *testing.T) {
	e, _, _, _ := lab(t)
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
		in, w := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{}), new(waker)
		in.segments = w
		n := put(in, tunnelled(c.outer, c.inner, 30))
		in.meta[0].Segment = c.segment
		in.carry(n)
		if w.woken != c.wakes {
			t.Errorf("%s: wakes it: %v", c.name, w.woken)
		}
	}
}

// Two links of 6over4 use the same groups: a group's packets that arrive over one link reach
// only the tunnel of that link.
func TestGroupsOfTwoLinks(t *testing.T) {
	var paths []*Path
	for i, local := range []string{"192.0.2.1", "198.51.100.1"} {
		l := encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr(local)}
		var err error
		if l.Resolver, err = (resolve.SixOverFour{}).Resolver(resolve.Site{Local: l.Local}); err != nil {
			t.Fatal(err)
		}
		_, tun, p, _ := labOf(t, 1500, encap.DefaultOptions, l)
		tun.ID = i
		paths = append(paths, p)
	}
	pl, table := new(Plane), tableFor(paths...)
	inner := nd.Append(nil, netip.MustParseAddr("fe80::c633:6402"), netip.MustParseAddr("ff02::1"), &nd.Message{Type: nd.RouterAdvertisement})
	pkt := arriving("198.51.100.2", "239.192.0.1", header.ProtoIPv6, inner...)
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	header.IPv4(pkt).SetChecksum()
	for _, p := range paths {
		in := pl.NewInbound(Place{At: p.Wire.Load().Outer().Local, Socket: true}, zap.NewNop(), nil)
		in.fromAnywhere(table, pkt)
		if len(in.touched) != 1 || in.touched[0].t != p.Tunnel {
			t.Errorf("at %v it is for %+v", in.At, in.touched)
		}
	}
}

// Valid packets that come through a socket though a filter takes the peer's packets change
// the way of the path, but forged ones and those from the filter itself do not.
func TestTwoWays(t *testing.T) {
	e, _, p, _ := lab(t)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	told := 0
	in.Changed = func() { told++ }
	several := func(pkt []byte) {
		for range 4 {
			in.carry(put(in, pkt, pkt, pkt, pkt))
		}
	}
	p.Ways.SetTaken(true)
	time.Sleep(300 * time.Millisecond) // packets that arrived earlier may have waited
	several(tunnelled("198.51.100.1", "127.0.0.1", 30))
	in.Socket = false // received at the port itself
	several(tunnelled("198.51.100.1", "10.0.0.2", 30))
	if told != 0 {
		t.Errorf("packets that are not valid, or from the filter: told %d times", told)
	}
	in.Socket = true
	several(tunnelled("198.51.100.1", "10.0.0.2", 30))
	if changed, _ := p.Ways.Part(time.Now()); told != 1 || !changed {
		t.Errorf("16 packets through the socket: told %d times, changed %v", told, changed)
	}
}

// onlyFrom is a resolver that accepts packets from one outer address.
type onlyFrom struct{ from resolve.Endpoint }

func (onlyFrom) CarriesIPv4() {}

func (o onlyFrom) To([]byte) (resolve.Endpoint, drop.Reason) { return o.from, drop.None }

func (o onlyFrom) From(from, _ resolve.Endpoint, _ []byte) drop.Reason {
	if from != o.from {
		return drop.Spoof
	}
	return drop.None
}

// A mechanism over IPv6 gets the packets to its address from any source, also with extension
// headers, and decides on them. An ICMP error about one of its packets is found.
func TestFromAnywhere6(t *testing.T) {
	r := onlyFrom{resolve.EndpointOf(netip.MustParseAddrPort("[2001:db8::2]:0"))}
	e, _, p, wire := labOf(t, 1500, encap.DefaultOptions, encap.Layer{Kind: encap.FourInSix, Local: netip.MustParseAddr("2001:db8::1"), Resolver: r})
	inner := arriving("10.0.0.2", "10.0.0.1", header.UDP, make([]byte, 8)...)
	inner[3], inner[8] = byte(len(inner)), 64
	header.IPv4(inner).SetChecksum()
	over := func(src, dst string, next byte, payload []byte) []byte {
		b := arriving(src, dst, next, payload...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		b[7] = 64
		return b
	}
	option := append([]byte{header.ProtoIPv4, 0, 1, 4, 0, 0, 0, 0}, inner...)
	for _, c := range []struct {
		name  string
		pkt   []byte
		want  bool
		stray uint64
	}{
		{"a peer", over("2001:db8::2", "2001:db8::1", header.ProtoIPv4, inner), true, 0},
		{"with an option", over("2001:db8::2", "2001:db8::1", header.DestOptions, option), true, 0},
		{"a stranger", over("2001:db8::3", "2001:db8::1", header.ProtoIPv4, inner), false, 0},
		{"another protocol", over("2001:db8::2", "2001:db8::1", header.ProtoIPv6, inner), false, 1},
		{"another address", over("2001:db8::2", "2001:db8::9", header.ProtoIPv4, inner), false, 2},
	} {
		in := e.NewInbound(Place{Socket: true}, zap.NewNop(), nil)
		in.fromAnywhere(e.Table.Load(), c.pkt)
		if taken := len(in.touched) == 1; taken != c.want {
			t.Errorf("%s: taken %v", c.name, taken)
		}
		if n := e.Stray.Traffic().Drops[drop.ForeignSource.String()]; n != c.stray {
			t.Errorf("%s: %v strays", c.name, n)
		}
	}
	out, why := wire.Stack.Encapsulate(append(make([]byte, encap.Headroom), inner...), encap.Headroom)
	if found := e.Table.Load().about(out, 0, func(e *End) bool { return true }); why != drop.None || found == nil || found.Path != p {
		t.Errorf("%v: an error about a packet to %v is about %v", why, r.from.Addr(), found)
	}
}
