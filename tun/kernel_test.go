package tun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// line is a router with the interface at one side and a veth pair at the other,
// whose kernel does in software what a network card could do:
//
//	test ── six0 (router) va ── vb (far)
type line struct {
	dev  *Device
	wire *rig.Capture
}

var (
	source4, dest4 = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")
	source6, dest6 = netip.MustParseAddr("fc01::2"), netip.MustParseAddr("fc02::2")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLine(t *testing.T) *line {
	t.Helper()
	router, err := rig.New("tun-router")
	must(t, err)
	t.Cleanup(router.Close)
	far, err := rig.New("tun-far")
	must(t, err)
	t.Cleanup(far.Close)
	must(t, rig.Veth(router, "va", far, "vb", 1500))
	l := new(line)
	must(t, router.Do(func() (err error) {
		l.dev, err = Open(Settings{Name: "six0", MTU: 1500, Queues: 1, Offload: OffloadUDP})
		return err
	}))
	t.Cleanup(func() { l.dev.Close() })
	must(t, router.LinkUp("six0"))
	must(t, router.Forward())
	for _, a := range []string{"10.1.0.1/24", "fc01::1/64"} {
		must(t, router.AddAddr("six0", netip.MustParsePrefix(a)))
	}
	for _, a := range []string{"10.2.0.1/24", "fc02::1/64"} {
		must(t, router.AddAddr("va", netip.MustParsePrefix(a)))
	}
	for _, a := range []string{"10.2.0.2/24", "fc02::2/64"} {
		must(t, far.AddAddr("vb", netip.MustParsePrefix(a)))
	}
	// Neighbours first: a queue for unresolved ones is short.
	for _, to := range []netip.Addr{dest4, dest6} {
		for {
			r, err := rig.Ping(t.Context(), router, to, rig.PingOptions{})
			must(t, err)
			if r.Received > 0 {
				break
			}
		}
	}
	for _, feature := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
		must(t, router.Ethtool("va", feature, 0))
	}
	l.wire, err = far.Capture("vb")
	must(t, err)
	t.Cleanup(func() { l.wire.Close() })
	return l
}

// forwarded is the next n packets to the far host, with a TTL put back to what
// it was before the router.
func (l *line) forwarded(t *testing.T, n int) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got [][]byte
	for len(got) < n {
		f, err := l.wire.Next(ctx)
		if err != nil {
			t.Fatalf("%d of %d packets: %v", len(got), n, err)
		}
		p := bytes.Clone(f.Packet())
		switch {
		case f.Outgoing:
		case header.Version(p) == 4 && header.IPv4(p).Dst() == dest4:
			p[8]++
			header.IPv4(p).SetChecksum()
			got = append(got, p)
		case header.Version(p) == 6 && header.IPv6(p).Dst() == dest6 && p[7] < 255:
			p[7]++
			got = append(got, p)
		}
	}
	return got
}

// sample describes a super-packet.
type sample struct {
	ipv6, udp  bool
	options    int // bytes of IPv4 options, or of an IPv6 extension header
	tcpOptions int
	flags      byte
	size       int // of a segment's payload
	payload    int // in all
	id         uint16
	frag       uint16 // DF or not
	tos        byte
}

func (s sample) String() string { return fmt.Sprintf("%+v", struct{ sample }{s}) }

func randomSample(r *rand.Rand) sample {
	s := sample{
		ipv6: r.IntN(2) == 0, udp: r.IntN(3) == 0,
		flags: tcpACK, size: 1 + r.IntN(1300), id: uint16(r.Uint32()), tos: byte(r.Uint32()),
	}
	if r.IntN(2) == 0 {
		s.frag = header.DF
	}
	if r.IntN(4) == 0 {
		s.options = 8 * r.IntN(4)
	}
	if !s.udp {
		s.tcpOptions = 4 * r.IntN(11)
		s.flags |= byte(r.Uint32()) & (tcpPSH | tcpFIN | tcpECE | tcpCWR | 0x20)
	}
	s.payload = s.size + 1 + r.IntN(s.size*100)
	s.payload = min(s.payload, 65000)
	return s
}

// build makes the super-packet with its virtio header, as the kernel would hand
// it to us.
func (s sample) build(r *rand.Rand) []byte {
	ip, transport := header.IPv4Len, tcpMinHeader+s.tcpOptions
	if s.ipv6 {
		ip = header.IPv6Len
	}
	if s.udp {
		transport = udpHeader
	}
	start := ip + s.options
	b := make([]byte, VirtioLen+start+transport+s.payload)
	p := b[VirtioLen:]
	for i := range p[start:] {
		p[start+i] = byte(r.Uint32())
	}
	protocol := byte(header.TCP)
	if s.udp {
		protocol = header.UDP
	}
	if s.ipv6 {
		p[0], p[1], p[6], p[7] = 0x60|s.tos>>4, s.tos<<4, protocol, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-header.IPv6Len))
		copy(p[8:], source6.AsSlice())
		copy(p[24:], dest6.AsSlice())
		if s.options > 0 { // destination options: PadN
			p[6] = header.DestOptions
			o := p[ip:start]
			o[0], o[1], o[2], o[3] = protocol, byte(s.options/8-1), 1, byte(s.options-4)
		}
	} else {
		p[0], p[1], p[8], p[9] = 0x40|byte(start/4), s.tos, 64, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[4:], s.id)
		binary.BigEndian.PutUint16(p[6:], s.frag)
		copy(p[12:], source4.AsSlice())
		copy(p[16:], dest4.AsSlice())
		for i := range s.options {
			p[ip+i] = 1 // no operation
		}
		header.IPv4(p).SetChecksum()
	}
	src, dst := addresses(p)
	t := p[start:]
	pseudo := header.Fold(header.PseudoSum(src, dst, len(t), protocol))
	b[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(b[2:], uint16(start+transport))
	binary.NativeEndian.PutUint16(b[4:], uint16(s.size))
	binary.NativeEndian.PutUint16(b[6:], uint16(start))
	if s.udp {
		b[1] = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		binary.NativeEndian.PutUint16(b[8:], udpChecksum)
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)))
		binary.BigEndian.PutUint16(t[udpChecksum:], pseudo)
		return b
	}
	b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
	if s.ipv6 {
		b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	if s.flags&tcpCWR != 0 {
		b[1] |= unix.VIRTIO_NET_HDR_GSO_ECN
	}
	binary.NativeEndian.PutUint16(b[8:], tcpChecksum)
	t[12] = byte(transport/4) << 4
	t[tcpFlags] = s.flags
	for i := tcpMinHeader; i < transport; i++ {
		t[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(t[tcpChecksum:], pseudo)
	return b
}

// segments are what we make of a super-packet.
func segments(t *testing.T, b []byte) [][]byte {
	t.Helper()
	s, r := ParseSuper(b)
	if r != drop.None {
		t.Fatalf("refused: %v", r)
	}
	var out [][]byte
	for i := range s.Segments() {
		h := make([]byte, s.Headers())
		payload := s.Segment(i, h)
		out = append(out, append(h, payload...))
	}
	return out
}

func compare(t *testing.T, what fmt.Stringer, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%v: %d packets, want %d", what, len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			n := min(len(got[i]), len(want[i]), 120)
			t.Fatalf("%v: packet %d of %d, %d bytes, want %d\n got %x\nwant %x", what, i, len(want), len(got[i]), len(want[i]), got[i][:n], want[i][:n])
		}
	}
}

// Segments made here are those that the kernel makes of the same super-packet.
func TestSegmentsAreTheKernels(t *testing.T) {
	l := newLine(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		s := randomSample(r)
		b := s.build(r)
		ours := segments(t, bytes.Clone(b))
		must(t, l.dev.Queues()[0].writev(appendIovec(nil, b)))
		compare(t, s, ours, l.forwarded(t, len(ours)))
	}
}

// Packets that are gathered come out of the kernel as they went in, and in
// their order within each flow.
func TestGatheredPacketsAreUnchanged(t *testing.T) {
	l := newLine(t)
	r := rand.New(rand.NewPCG(3, 4))
	g := NewGatherer(128, 1500)
	gathered := 0
	for round := range 300 {
		// Some flows, mixed with each other.
		var flows [][][]byte
		total := 0
		for range 1 + r.IntN(4) {
			flow := segments(t, randomSample(r).build(r))
			flow = flow[:min(len(flow), 32)]
			spoil(r, flow)
			total += len(flow)
			flows = append(flows, flow)
		}
		var sent [][]byte
		for left := total; left > 0; left-- {
			i := r.IntN(len(flows))
			for len(flows[i]) == 0 {
				i = (i + 1) % len(flows)
			}
			sent = append(sent, bytes.Clone(flows[i][0]))
			g.Add(flows[i][0])
			flows[i] = flows[i][1:]
		}
		gathered += len(g.items) - len(g.groups)
		if refused := g.Write(l.dev.Queues()[0]); refused.Packets > 0 {
			t.Fatalf("round %d: %+v", round, refused)
		}
		got := l.forwarded(t, total)
		for len(got) > 0 { // flow by flow
			mine := func(p []byte) bool { return bytes.Equal(flowOf(p), flowOf(got[0])) }
			var a, b, rest, unsent [][]byte
			for _, p := range got {
				if mine(p) {
					a = append(a, p)
				} else {
					rest = append(rest, p)
				}
			}
			for _, p := range sent {
				if mine(p) {
					b = append(b, p)
				} else {
					unsent = append(unsent, p)
				}
			}
			compare(t, netip.AddrFrom4([4]byte(got[0][12:])), a, b)
			got, sent = rest, unsent
		}
	}
	if gathered < 1000 {
		t.Errorf("only %d packets were gathered: the test tests little", gathered)
	}
}

// flowOf is what tells flows apart.
func flowOf(p []byte) []byte {
	f := parseFlow(p)
	if header.Version(p) == 4 {
		return p[header.IPv4(p).HeaderLen()-8:][:12]
	}
	if p[6] == header.DestOptions {
		return p[8 : header.IPv6Len+int(p[41]+1)*8+4]
	}
	return p[8 : f.transport+4]
}

// spoil changes some packets such that they cannot be gathered with others, or
// can so only if nobody looks.
func spoil(r *rand.Rand, flow [][]byte) {
	for _, p := range flow {
		if r.IntN(6) != 0 {
			continue
		}
		f := parseFlow(p)
		if f.checksum == 0 {
			continue
		}
		t := p[f.transport:]
		switch r.IntN(6) {
		case 0: // a byte of payload, which the checksum does not cover
			p[len(p)-1] ^= 1
		case 1:
			if header.Version(p) == 4 {
				header.IPv4(p).SetECN(byte(r.IntN(4)))
			} else {
				header.IPv6(p).SetECN(byte(r.IntN(4)))
			}
		case 2:
			if f.isTCP() {
				t[14]++ // window
				resum(p, &f)
			}
		case 3:
			if f.isTCP() {
				t[tcpFlags] |= tcpPSH
				resum(p, &f)
			}
		case 4:
			if f.isTCP() {
				t[8]++ // acknowledgement
				resum(p, &f)
			} else if header.Version(p) == 4 {
				t[udpChecksum], t[udpChecksum+1] = 0, 0
			}
		case 5:
			if header.Version(p) == 4 {
				p[5] += 3 // identification
				header.IPv4(p).SetChecksum()
			}
		}
	}
}

func resum(p []byte, f *flow) {
	src, dst := addresses(p)
	t := p[f.transport:]
	setChecksum(t[:f.headers-f.transport], t[f.headers-f.transport:], f.checksum, header.PseudoSum(src, dst, len(t), header.TCP))
}

// A partial checksum, as a peer's or our own network card leaves it, is
// completed by the kernel; what is larger than the interface is cut.
func TestPartialChecksums(t *testing.T) {
	l := newLine(t)
	r := rand.New(rand.NewPCG(5, 6))
	g := NewGatherer(128, 1300)
	for range 100 {
		s := randomSample(r)
		s.options = 0
		if s.udp {
			s.payload = min(s.size, 1200) // it cannot be cut
		}
		b := s.build(r)
		pkt := b[VirtioLen:]
		want := [][]byte{bytes.Clone(pkt)}
		if len(pkt) > 1300 {
			binary.NativeEndian.PutUint16(b[4:], uint16(1300-int(binary.NativeEndian.Uint16(b[2:]))))
			want = segments(t, bytes.Clone(b))
		} else {
			finishChecksum(want[0][binary.NativeEndian.Uint16(b[6:]):], int(binary.NativeEndian.Uint16(b[8:])))
		}
		g.Add(pkt)
		if refused := g.Write(l.dev.Queues()[0]); refused.Packets > 0 {
			t.Fatalf("%v: %+v", s, refused)
		}
		compare(t, s, l.forwarded(t, len(want)), want)
	}
}

// What a virtio header says is not believed.
func TestLyingSuperPackets(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	put := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.NativeEndian.PutUint16(b[at:], v); return b }
	}
	tcp := sample{size: 1000, payload: 5000, flags: tcpACK}
	for _, c := range []struct {
		name  string
		of    sample
		spoil func([]byte) []byte
	}{
		{"no virtio header", tcp, func(b []byte) []byte { return b[:9] }},
		{"segments of 0 bytes", tcp, put(4, 0)},
		{"no checksum wanted", tcp, func(b []byte) []byte { b[0] = 0; return b }},
		{"transport inside the IP header", tcp, put(6, 19)},
		{"transport beyond the packet", tcp, put(6, 6000)},
		{"transport header beyond the packet", tcp, put(6, 5039)},
		{"checksum at another place", tcp, put(8, 6)},
		{"UDP for TCP", tcp, func(b []byte) []byte { b[1] = unix.VIRTIO_NET_HDR_GSO_UDP_L4; return b }},
		{"UDP fragments", tcp, func(b []byte) []byte { b[1] = unix.VIRTIO_NET_HDR_GSO_UDP; return b }},
		{"IPv6 for IPv4", tcp, func(b []byte) []byte { b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6; return b }},
		{"an unknown kind", tcp, func(b []byte) []byte { b[1] = 77; return b }},
		{"TCP header too short", tcp, func(b []byte) []byte { b[VirtioLen+20+12] = 0x40; return b }},
		{"no payload", tcp, func(b []byte) []byte { return b[:VirtioLen+40] }},
		{"empty", tcp, func(b []byte) []byte { return b[:VirtioLen] }},
		{"IP header longer than said", tcp, func(b []byte) []byte { b[VirtioLen] = 0x4f; return b }},
		{"version 5", tcp, func(b []byte) []byte { b[VirtioLen] = 0x55; return b }},
		{"checksum of a single packet beyond it", tcp, func(b []byte) []byte { b[1] = 0; return put(8, 5030)(b) }},
		{"headers of 600 bytes", sample{ipv6: true, options: 600, size: 100, payload: 200}, func(b []byte) []byte { return b }},
	} {
		if _, got := ParseSuper(c.spoil(c.of.build(r))); got != drop.BadOffload {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// No bytes, whatever they are, make the parser or the segmentation fail.
func FuzzSuper(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		s := randomSample(r)
		s.payload = min(s.payload, 3000)
		f.Add(s.build(r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, reason := ParseSuper(b[:min(len(b), 4096)])
		if reason != drop.None || s.Headers() == 0 {
			return
		}
		h := make([]byte, s.Headers())
		total := 0
		for i := range s.Segments() {
			total += len(s.Segment(i, h))
		}
		if total != len(s.Packet())-s.Headers() {
			t.Errorf("%d bytes of payload, want %d", total, len(s.Packet())-s.Headers())
		}
	})
}

// No packets make the gatherer lose or invent bytes.
func FuzzGather(f *testing.F) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20 {
		s := randomSample(r)
		s.payload = min(s.payload, 3000)
		var all []byte
		b := s.build(r)
		sup, _ := ParseSuper(b)
		for i := range sup.Segments() {
			h := make([]byte, sup.Headers())
			all = append(append(all, h...), sup.Segment(i, h)...)
		}
		f.Add(all)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := NewGatherer(128, 1500)
		total := 0
		for g.Len() < 128 && len(b) > 0 {
			pkt, r := header.Parse(b, header.Version(b))
			if r != drop.None {
				break
			}
			g.Add(pkt)
			total += len(pkt)
			b = b[len(pkt):]
		}
		sum, n := 0, 0
		for i := range g.groups {
			to := &g.groups[i]
			sum += to.size + (to.count-1)*to.flow.headers
			n += to.count
			if to.count > 1 {
				g.head(g.items[to.first].pkt, to)
			}
		}
		if sum != total || n != g.Len() {
			t.Errorf("%d packets of %d bytes, of %d of %d", n, sum, g.Len(), total)
		}
	})
}
