package kernel_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ours are the addresses of this host, and remote those of the peer.
var (
	ours = encap.Endpoints{
		Local: netip.MustParseAddr("203.0.113.1"), Remote: netip.MustParseAddr("203.0.113.2"),
		Local6: netip.MustParseAddr("2001:db8::1"), Remote6: netip.MustParseAddr("2001:db8::2"),
	}
	remote = encap.Endpoints{Local: ours.Remote, Remote: ours.Local, Local6: ours.Remote6, Remote6: ours.Local6}
)

// Two peers of the tunnel, and the prefixes behind them.
const (
	thePeer kernel.Peer = 1
	another kernel.Peer = 2
)

var (
	behindPeer    = prefixes("10.1.0.0/16", "192.168.7.128/25", "2001:db8:1::/48", "2001:db8:aaaa:0:8000::/65", "fe80::/10", "2002::/16")
	behindAnother = prefixes("10.1.2.0/24", "0.0.0.0/0", "2001:db8:1:2::/64", "::/0")
	// Of this host, at another interface.
	hostAddresses = prefixes("192.168.7.1/24", "2001:db8:aaaa::1/64")
	// Of the tunnel's interface.
	own = prefixes("10.1.0.1/32", "2001:db8:1::1/128")
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// addresses are those of inner packets: of every kind that a check knows.
var addresses = func() (v4, v6 []netip.Addr) {
	for _, s := range []string{
		"10.1.0.7", "10.1.0.1", "10.1.2.3", "192.168.7.1", "192.168.7.9", "192.168.7.200", "8.8.8.8", "0.0.0.0", "0.1.2.3", "127.0.0.1",
		"224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255", "203.0.113.1", "203.0.113.2", "169.254.1.1",
		"2001:db8:1::7", "2001:db8:1::1", "2001:db8:1:2::9", "2001:db8:aaaa::1", "2001:db8:aaaa::9", "2001:db8:aaaa:0:8000::9", "2600::1", "::",
		"::1", "::ffff:10.1.0.7", "::10.1.0.7", "0:0:0:0:1::5", "fe80::1", "fec0::1", "fd00::1", "ff02::1", "ff0e::1", "2002:a01:7::1", "2002:808:808::1",
		"2001:db8::1", "2001:db8::2", "64:ff9b::8.8.8.8",
	} {
		if a := netip.MustParseAddr(s); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

// variants returns the layers of every mode that the programs know, in the variants that
// differ on the wire.
func variants() (list [][]encap.Layer) {
	for _, name := range []string{"4in6in4", "6in4", "4in4", "4in6", "6in6", "gre", "gre6"} {
		m, _ := encap.ModeByName(name)
		list = append(list, m.Between(ours))
		if m.Layers[0] != encap.GREInFour && m.Layers[0] != encap.GREInSix {
			continue
		}
		for _, g := range []framing.GRE{
			{Keyed: true, Key: 0x01020304},
			{Keyed: true, Key: 7, Apart: true, InKeyed: true, InKey: 0xfffefdfc},
			{Apart: true, InKeyed: true, InKey: 9},
		} {
			layers := m.Between(ours)
			layers[0].Kind = layers[0].Kind.With(g)
			list = append(list, layers)
		}
	}
	return list
}

// flip returns the layers of the peer's end.
func flip(layers []encap.Layer) []encap.Layer {
	out := slices.Clone(layers)
	for i := range out {
		l := &out[i]
		l.Local, l.Remote = l.Remote, l.Local
		if g, ok := l.Kind.Framing().(framing.GRE); ok {
			keyed, key := g.Inward()
			l.Kind = l.Kind.With(framing.GRE{Keyed: keyed, Key: key, Apart: true, InKeyed: g.Keyed, InKey: g.Key})
		}
	}
	return out
}

// options returns options of a tunnel by chance.
func options(r *rand.Rand) encap.Options {
	o := encap.DefaultOptions
	pick := func(n int) int { return r.IntN(n) }
	o.TTL = []int{64, 255, 1, encap.InheritTTL}[pick(4)]
	o.HopLimit = []int{64, 255, encap.InheritTTL}[pick(3)]
	o.DSCP = []int{encap.InheritDSCP, 0, 46}[pick(3)]
	o.ECNCompat = pick(4) == 0
	o.StaticMTU = pick(4) == 0
	o.IgnoreDF = pick(8) == 0
	switch pick(4) {
	case 0:
		o.FlowLabel.Source = encap.FlowLabelInner
	case 1:
		o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: r.Uint32N(1 << 20)}
	}
	return o
}

// packet returns an inner packet by chance. Plain says that the programs have no reason to
// leave it to the process, but for its addresses and its size.
func packet(r *rand.Rand, most int) (b []byte, plain bool) {
	v4, v6 := addresses()
	plain = true
	protocol := byte(header.UDP)
	upper := make([]byte, 20+r.IntN(40))
	switch r.IntN(10) {
	case 0:
		protocol, plain = byte(r.Uint32()), false
	case 1, 2, 3, 4:
		protocol = header.TCP
	}
	if r.IntN(20) == 0 {
		upper = upper[:r.IntN(20)]
	}
	if r.IntN(10) == 0 && most > 100 {
		upper = append(upper, make([]byte, r.IntN(most-100))...)
	}
	for i := range upper {
		upper[i] = byte(r.Uint32())
	}
	switch {
	case protocol == header.TCP && len(upper) >= 20:
		upper[12] = 5 << 4
		if r.IntN(4) != 0 {
			upper[13] &^= 2
		}
		plain = plain && upper[13]&2 == 0
	case len(upper) < 20:
		plain = plain && protocol == header.UDP && len(upper) >= 8
	}
	tos, ttl := byte(r.Uint32()), byte(r.Uint32())
	if ttl == 0 {
		plain = false
	}
	if r.IntN(2) == 0 {
		src, dst := v4[r.IntN(len(v4))], v4[r.IntN(len(v4))]
		if r.IntN(2) == 0 {
			src, dst = v4[0], v4[0]
		}
		n := header.IPv4Len
		if r.IntN(20) == 0 {
			n, plain = n+4, false
		}
		b = make([]byte, n, n+len(upper))
		b[0], b[1], b[8], b[9] = byte(0x40|n/4), tos, ttl, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(n+len(upper)))
		binary.BigEndian.PutUint16(b[6:], []uint16{0, header.DF}[r.IntN(2)])
		if r.IntN(20) == 0 {
			binary.BigEndian.PutUint16(b[6:], uint16(r.Uint32()))
			plain = plain && !header.IPv4(b).IsFragment()
		}
		binary.BigEndian.PutUint16(b[4:], uint16(r.Uint32()))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		header.IPv4(b).SetChecksum()
		return append(b, upper...), plain
	}
	src, dst := v6[r.IntN(len(v6))], v6[r.IntN(len(v6))]
	if r.IntN(2) == 0 {
		src, dst = v6[0], v6[0]
	}
	b = make([]byte, header.IPv6Len, header.IPv6Len+len(upper))
	binary.BigEndian.PutUint32(b, 6<<28|uint32(tos)<<20)
	if r.IntN(2) == 0 {
		b[3], b[2] = byte(r.Uint32()), byte(r.Uint32())
	}
	binary.BigEndian.PutUint16(b[4:], uint16(len(upper)))
	b[6], b[7] = protocol, ttl
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, upper...), plain
}

// nobodys are the prefixes that no peer may have: the addresses of this host, and its subnets
// at other interfaces.
func nobodys() []netip.Prefix {
	list := append(slices.Clone(own), hostAddresses[0].Masked(), hostAddresses[1].Masked())
	for _, a := range []netip.Addr{hostAddresses[0].Addr(), hostAddresses[1].Addr(), ours.Local, ours.Local6} {
		list = append(list, netip.PrefixFrom(a, a.BitLen()))
	}
	return list
}

// load loads the programs, and fills in the prefixes of the tunnel with the given interface.
func load(t testing.TB, tunnel int) *kernel.Programs {
	t.Helper()
	p, err := kernel.Load()
	rigtest.Must(t, err)
	t.Cleanup(func() { rigtest.Must(t, p.Close()) })
	for peer, list := range map[kernel.Peer][]netip.Prefix{thePeer: behindPeer, another: behindAnother, kernel.Nobody: nobodys()} {
		for _, prefix := range list {
			rigtest.Must(t, p.Behind(tunnel, prefix, peer))
		}
	}
	return p
}

// table returns what load tells the programs, as a table of peers.
func table(t testing.TB) *source.Peers[kernel.Peer] {
	t.Helper()
	return peersOf(t, source.Peer[kernel.Peer]{Peer: kernel.Nobody, Allowed: nobodys()})
}

// allowed returns the prefixes of the peers alone.
func allowed(t testing.TB) *source.Peers[kernel.Peer] {
	t.Helper()
	return peersOf(t)
}

func peersOf(t testing.TB, more ...source.Peer[kernel.Peer]) *source.Peers[kernel.Peer] {
	t.Helper()
	list := []source.Peer[kernel.Peer]{{Peer: thePeer, Allowed: behindPeer}, {Peer: another, Allowed: behindAnother}}
	peers, err := source.NewPeers(append(list, more...))
	rigtest.Must(t, err)
	return peers
}
