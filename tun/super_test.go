package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// TestLyingSuperPackets: invalid virtio headers are refused.
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

// TestOneLength: the length of a packet is the one in its IP header: bytes after it are
// cut off, and a checksum inside the IP header is refused.
func TestOneLength(t *testing.T) {
	ipv4, ipv6 := sample{udp: true, size: 100, payload: 100}, sample{udp: true, ipv6: true, size: 100, payload: 100}
	single := func(s sample, pad int, spoil func(b []byte)) []byte {
		b := append(s.build(rand.New(rand.NewPCG(13, 14))), make([]byte, pad)...)
		b[1] = unix.VIRTIO_NET_HDR_GSO_NONE
		spoil(b)
		return b
	}
	as := func([]byte) {}
	checksumAt := func(start, offset uint16) func([]byte) {
		return func(b []byte) {
			binary.NativeEndian.PutUint16(b[6:], start)
			binary.NativeEndian.PutUint16(b[8:], offset)
		}
	}
	for _, c := range []struct {
		name string
		b    []byte
		want int // 0: refused
		why  drop.Reason
	}{
		{"IPv4", single(ipv4, 0, as), 128, drop.None},
		{"IPv4, more bytes", single(ipv4, 1000, as), 128, drop.None},
		{"IPv4, fewer bytes", single(ipv4, 0, as)[:VirtioLen+127], 0, drop.Truncated},
		{"IPv6", single(ipv6, 0, as), 148, drop.None},
		{"IPv6, more bytes", single(ipv6, 1, as), 148, drop.None},
		{"IPv6, fewer bytes", single(ipv6, 0, as)[:VirtioLen+147], 0, drop.Truncated},
		{"no header", make([]byte, VirtioLen+1), 0, drop.WrongVersion},
		{"nothing", make([]byte, VirtioLen), 0, drop.WrongVersion},
		{"IPv4 length as checksum", single(ipv4, 1000, checksumAt(0, 2)), 0, drop.BadOffload},
		{"IPv6 length as checksum", single(ipv6, 1000, checksumAt(2, 2)), 0, drop.BadOffload},
		{"checksum behind the packet", single(ipv4, 1000, checksumAt(20, 200)), 0, drop.BadOffload},
		{"options as checksum", single(sample{udp: true, options: 8, size: 100, payload: 100}, 0, checksumAt(20, 2)), 0, drop.BadOffload},
	} {
		s, why := ParseSuper(c.b)
		if why != c.why || len(s.Packet()) != c.want {
			t.Errorf("%s: %d bytes, %v; want %d, %v", c.name, len(s.Packet()), why, c.want, c.why)
		}
		if why != drop.None {
			continue
		}
		if f := parseFlow(s.Packet()); !verify(s.Packet(), &f) {
			t.Errorf("%s: the checksum is wrong", c.name)
		}
	}
}

// FuzzSuper: no bytes make the parser or the segmentation fail.
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

// overtaken finds two packets that may be of one flow and are not written in the order
// in which they were added.
func overtaken(g *Gatherer) (first, second int16, found bool) {
	var order []int16
	for _, to := range g.groups {
		for i := to.first; i >= 0; i = g.items[i].next {
			order = append(order, i)
		}
	}
	for n, b := range order {
		for _, a := range order[n+1:] {
			if a < b && mayBeOneFlow(g.items[a].pkt, g.items[b].pkt) {
				return a, b, true
			}
		}
	}
	return 0, 0, false
}

func mayBeOneFlow(a, b []byte) bool {
	fa, fb := parseFlow(a), parseFlow(b)
	srcA, dstA := addresses(a)
	srcB, dstB := addresses(b)
	return bytes.Equal(srcA, srcB) && bytes.Equal(dstA, dstB) &&
		(!fa.ports || !fb.ports || fa.isTCP() == fb.isTCP() && [4]byte(a[fa.transport:]) == [4]byte(b[fb.transport:]))
}

// FuzzGather: the gatherer never loses or invents bytes, and keeps the order of flows.
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
		if a, b, ok := overtaken(g); ok {
			t.Errorf("packet %d is written before %d", b, a)
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

// TestQueueClosedByForce: a descriptor that was closed by other code has the same effect
// as a deleted interface, which is made again.
func TestQueueClosedByForce(t *testing.T) {
	l := newLine(t)
	q := l.dev.Queues()[0]
	fd, err := q.fd.Acquire()
	must(t, err)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(null)
	defer func() { must(t, unix.Dup3(null, fd, unix.O_CLOEXEC)); q.fd.Release() }()
	must(t, unix.Close(fd))
	if _, err := q.Read(make([]byte, MaxRead)); !errors.Is(err, ErrGone) {
		t.Errorf("read: %v, want %v", err, ErrGone)
	}
	if err := q.writev(nil); !errors.Is(err, ErrGone) {
		t.Errorf("write: %v, want %v", err, ErrGone)
	}
}
