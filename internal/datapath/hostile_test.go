package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/capture"
	"sixfour/internal/tally"
	"sixfour/transport"
	"sixfour/tun"
)

// sixToFour returns the resolver of an automatic tunnel.
func sixToFour(t testing.TB) resolve.Resolver {
	t.Helper()
	r, err := resolve.SixToFour{Role: resolve.RoleRouter}.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hostileLabs returns tunnels that send packets in all ways: whole, as segments, in inner and
// in outer fragments, with a resolver, and among many peers. They send no ICMP errors.
func hostileLabs(t testing.TB) (labs []func(testing.TB) (*Plane, *Tunnel, *Path, *Wire)) {
	t.Helper()
	all := framing.GRE{Keyed: true, Key: 1, Checksum: true, Sequence: true}
	automatic := encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: sixToFour(t)}
	static := encap.DefaultOptions
	static.StaticMTU = true
	for _, c := range []struct {
		mtu     encap.PathMTU
		options encap.Options
		hub     bool
		layers  []encap.Layer
	}{
		{1500, encap.DefaultOptions, false, []encap.Layer{layer(encap.FourInSix, "fc00::1", "fc00::2", framing.GRE{}), layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}},
		{1500, encap.DefaultOptions, true, []encap.Layer{layer(encap.FourInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}},
		{600, encap.DefaultOptions, false, []encap.Layer{layer(encap.FourInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}},
		{1000, encap.DefaultOptions, true, []encap.Layer{layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}},
		{1400, static, false, []encap.Layer{layer(encap.GREInFour, "192.0.2.1", "198.51.100.1", all)}},
		{1300, encap.DefaultOptions, true, []encap.Layer{layer(encap.GREInSix, "2001:db8::1", "2001:db8::2", all)}},
		{1280, encap.DefaultOptions, false, []encap.Layer{layer(encap.SixInSix, "2001:db8::1", "2001:db8::2", framing.GRE{})}},
		{1500, encap.DefaultOptions, false, []encap.Layer{automatic}},
	} {
		labs = append(labs, func(t testing.TB) (*Plane, *Tunnel, *Path, *Wire) {
			e, tun, p, to := labOf(t, c.mtu, c.options, c.layers...)
			tun.Reply.Retire()
			to.Clamp = Clamp{IPv4: 1000, IPv6: 1200}
			if c.hub {
				table, err := source.NewPeers([]source.Peer[*Peer]{{Peer: p.Peer, Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}}})
				if err != nil {
					t.Fatal(err)
				}
				tun.Peers.Only = nil
				tun.Peers.Table.Store(table)
			}
			return e, tun, p, to
		})
	}
	return labs
}

// checking is a sender that accepts only complete outer packets, and sometimes fails.
type checking struct {
	transport.Sender
	t    testing.TB
	sent int
}

func (s *checking) Send(pkts []transport.Packet) (int, error) {
	for i := range pkts {
		if s.sent++; s.sent%7 == 0 {
			return i, fmt.Errorf("send: %w", unix.EMSGSIZE)
		}
		all := flat(capture.Bytes(pkts[i]))
		if whole, r := header.Parse(all, header.Version(all)); r != drop.None || len(whole) != len(all) {
			s.t.Errorf("an outer packet of %d bytes: %v, %x", len(all), r, all[:min(len(all), 80)])
		}
	}
	return len(pkts), nil
}

// lost returns how many packets were dropped for any reason.
func lost(cs ...*tally.Counters) (n uint64) {
	for _, c := range cs {
		for _, d := range c.Traffic().Drops {
			n += d
		}
	}
	return n
}

// virtio returns a packet with a virtio header, as read from a queue.
func virtio(flags, kind byte, size, start, offset uint16, pkt []byte) []byte {
	b := make([]byte, tun.VirtioLen, tun.VirtioLen+len(pkt))
	b[0], b[1] = flags, kind
	binary.NativeEndian.PutUint16(b[4:], size)
	binary.NativeEndian.PutUint16(b[6:], start)
	binary.NativeEndian.PutUint16(b[8:], offset)
	return append(b, pkt...)
}

// datagram returns a UDP packet whose length field may differ from its length.
func datagram(src, dst string, said, bytes int) []byte {
	pkt := arriving(src, dst, header.UDP, make([]byte, max(0, bytes-header.IPv4Len))...)
	if header.Version(pkt) == 4 {
		pkt[8] = 64
		binary.BigEndian.PutUint16(pkt[2:], uint16(said))
		header.IPv4(pkt).SetChecksum()
		return pkt[:min(bytes, len(pkt))]
	}
	pkt[7] = 64
	binary.BigEndian.PutUint16(pkt[4:], uint16(said-header.IPv6Len))
	return pkt[:min(bytes, len(pkt))]
}

// hostileReads returns packets whose virtio header, IP header and length contradict each
// other.
func hostileReads() [][]byte {
	const csum, tcp4, udp = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_UDP_L4
	v4, v6 := func(said, bytes int) []byte { return datagram("10.0.0.1", "10.0.0.2", said, bytes) }, func(said, bytes int) []byte { return datagram("fc00::1", "fc00::2", said, bytes) }
	list := [][]byte{
		virtio(0, 0, 0, 0, 0, v4(1300, 1440)), virtio(0, 0, 0, 0, 0, v4(40, 100)), virtio(0, 0, 0, 0, 0, v4(1500, 5000)),
		virtio(0, 0, 0, 0, 0, v6(1300, 1440)), virtio(0, 0, 0, 0, 0, v6(60, 2000)), virtio(0, 0, 0, 0, 0, v6(1281, 9000)),
		virtio(0, 0, 0, 0, 0, v4(100, 40)), virtio(0, 0, 0, 0, 0, v6(100, 60)),
		virtio(csum, 0, 0, 0, 2, v4(40, 1440)), virtio(csum, 0, 0, 0, 4, v6(80, 1440)), virtio(csum, 0, 0, 20, 6, v4(60, 400)), virtio(csum, 0, 0, 20, 200, v4(60, 400)),
		virtio(csum, udp, 100, 20, 6, v4(60, 3000)), virtio(csum, udp, 1, 20, 6, v4(60000, 3000)), virtio(csum, tcp4, 500, 20, 16, v4(60, 3000)),
		virtio(csum, udp, 100, 40, 6, v6(60, 3000)), {}, make([]byte, 9),
	}
	for n := range 48 { // of which no header is whole
		list = append(list, virtio(0, 0, 0, 0, 0, v4(40, n)), virtio(0, 0, 0, 0, 0, v6(60, n)), virtio(csum, udp, 1, 20, 6, v4(40, n)))
	}
	return list
}

// reads handles packets as run does, and checks that no loss is uncounted.
func reads(t testing.TB, e *Plane, tn *Tunnel, p *Path, to *Wire, list [][]byte) {
	t.Helper()
	to.Senders = []transport.Sender{&checking{t: t}}
	useWire(p, to)
	tap, err := capture.New(capture.Request{Tunnel: "t0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Captures.Begin("t0", tap); err != nil {
		t.Fatal(err)
	}
	defer e.Captures.EndTunnel("t0", errors.New("over"))
	o := NewOutbound(tn, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	defer workspaces.Put(o.workspace)
	n := 0
	for _, b := range list {
		n += o.add(append(make([]byte, encap.Headroom-tun.VirtioLen, encap.Headroom+tun.MaxRead), b...))
		if len(o.batch) == transport.BatchSize {
			o.send()
		}
	}
	o.send()
	if got := p.Out.Packets.Load() + lost(&p.Out, &tn.Out); got != uint64(n) {
		t.Errorf("%d packets were counted, of %d", got, n)
	}
	if w := &p.Sample; w.size > 0 {
		w.Tell(tn, to)
	}
}

// Trailing bytes, missing bytes, and contradicting virtio headers affect only the packet that
// has them.
func TestHostileReads(t *testing.T) {
	for i, lab := range hostileLabs(t) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e, tn, p, to := lab(t)
			reads(t, e, tn, p, to, hostileReads())
			for _, b := range hostileReads() {
				e, tn, p, to := lab(t)
				reads(t, e, tn, p, to, [][]byte{b})
			}
		})
	}
}

// Bytes behind the packet do not leave the host.
func TestPaddingStays(t *testing.T) {
	e, tn, p, to := lab(t)
	to.Senders = []transport.Sender{&sends{refuse: -1}}
	useWire(p, to)
	o := NewOutbound(tn, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	got := capturedBy(t, &e.Captures, func() {
		for _, b := range [][]byte{virtio(0, 0, 0, 0, 0, datagram("10.0.0.1", "10.0.0.2", 1300, 1440)), virtio(0, 0, 0, 0, 0, datagram("10.0.0.1", "10.0.0.2", 40, 9000))} {
			o.add(append(make([]byte, encap.Headroom-tun.VirtioLen), b...))
		}
		o.send()
	})
	want := "[0 out inner 1300 0 out outer 1360 1 out inner 40 1 out outer 100]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if p.Sample.size != 1300 || p.Out.Traffic().Bytes != 1340 {
		t.Errorf("the large one of %d, all of %d", p.Sample.size, p.Out.Traffic().Bytes)
	}
}

// Any data read from a queue: no panic, only complete outer packets, and every packet is
// counted. Two bytes give the length of each read.
func FuzzReads(f *testing.F) {
	labs := hostileLabs(f)
	var all []byte
	for _, b := range hostileReads() {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(b))), b...)
	}
	for i := range labs {
		f.Add(byte(i), all[:min(len(all), 20000)])
		for _, b := range hostileReads()[:18] {
			f.Add(byte(i), append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		e, tn, p, to := labs[int(which)%len(labs)](t)
		var list [][]byte
		for len(b) >= 2 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2, tun.MaxRead)
			list = append(list, b[2:2+n])
			b = b[2+n:]
		}
		reads(t, e, tn, p, to, list)
	})
}

// Any data that arrives: no panic, and every packet is counted or handled by the daemon.
// There are no devices: valid packets are dropped at the end.
func FuzzArrivals(f *testing.F) {
	labs := hostileLabs(f)
	good := tunnelled("198.51.100.1", "10.0.0.2", 30)
	for i := range labs {
		f.Add(byte(i), append(binary.BigEndian.AppendUint16(nil, uint16(len(good))), good...))
		for _, b := range hostileReads()[:18] {
			for _, protocol := range []byte{header.ProtoIPv4, header.ProtoIPv6, header.GRE} {
				pkt := arriving("198.51.100.1", "192.0.2.1", protocol, b...)
				binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
				header.IPv4(pkt).SetChecksum()
				f.Add(byte(i), append(binary.BigEndian.AppendUint16(nil, uint16(len(pkt))), pkt...))
			}
		}
	}
	var ins []*Inbound
	for _, lab := range labs {
		e, tn, p, to := lab(f)
		to.Senders = []transport.Sender{&checking{t: f}}
		useWire(p, to)
		tap, err := capture.New(capture.Request{Tunnel: tn.Name})
		if err != nil {
			f.Fatal(err)
		}
		if err := e.Captures.Begin("t0", tap); err != nil {
			f.Fatal(err)
		}
		ins = append(ins, e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{}))
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		in, n := ins[int(which)%len(ins)], 0
		for len(b) >= 2 && n < transport.BatchSize {
			size := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			in.meta[n].Size = copy(in.bufs[n], b[2:2+size])
			if pkt := in.bufs[n][:in.meta[n].Size]; size >= header.IPv4Len && header.Version(pkt) == 4 && header.IPv4(pkt).HeaderLen() <= size && header.IPv4(pkt).HeaderLen() >= header.IPv4Len {
				header.IPv4(pkt).SetChecksum() // a wrong checksum would reveal nothing
			}
			b, n = b[2+size:], n+1
		}
		in.carry(n)
	})
}

// Any ICMP message to one of our outer addresses: no panic. It may quote a packet of a
// tunnel.
func FuzzOuterErrors(f *testing.F) {
	labs := hostileLabs(f)
	var all []*ICMPInbound
	for i, lab := range labs {
		e, _, p, to := lab(f)
		to.Senders = []transport.Sender{&checking{t: f}}
		useWire(p, to)
		all = append(all, e.NewICMP(0, zap.NewNop(), nil))
		for _, inner := range [][]byte{datagram("10.0.0.1", "10.0.0.2", 200, 200), datagram("fc00::1", "2002:c633:6401::1", 200, 200)} {
			quote, r := to.Stack.Encapsulate(append(make([]byte, encap.Headroom), inner...), encap.Headroom)
			if r != drop.None {
				continue
			}
			for _, typ := range []byte{1, 2, 3, 4, 11, 12} {
				for _, code := range []byte{0, 1, 2, 4} {
					f.Add(byte(i), typ, code, uint32(1280), quote)
					f.Add(byte(i), typ, code, uint32(40), quote[:len(quote)/2])
				}
			}
		}
	}
	f.Fuzz(func(_ *testing.T, which, typ, code byte, arg uint32, quote []byte) {
		o := all[int(which)%len(all)]
		version6 := header.Version(quote) == 6
		m := binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, arg)
		m = append(m, quote[:min(len(quote), 2000)]...)
		from, to, protocol := "203.0.113.1", "192.0.2.1", byte(header.ICMP)
		if version6 {
			from, to, protocol = "2001:db8::9", "2001:db8::1", header.ICMPv6
		}
		pkt := arriving(from, to, protocol, m...)
		if version6 {
			binary.BigEndian.PutUint16(pkt[4:], uint16(len(m)))
			binary.BigEndian.PutUint16(pkt[header.IPv6Len+2:], ^header.Sum(m, header.PseudoSum(pkt[8:24], pkt[24:40], len(m), protocol)))
		} else {
			binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
			header.IPv4(pkt).SetChecksum()
			binary.BigEndian.PutUint16(pkt[header.IPv4Len+2:], ^header.Sum(m, 0))
		}
		o.handle(pkt)
	})
}
