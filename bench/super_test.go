package bench

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/tun"
)

// superPacket returns a super-packet as the kernel passes it: a virtio header, and a
// packet of n segments of size bytes of payload each.
func superPacket(udp bool, n, size int) []byte {
	transport := 20
	if udp {
		transport = 8
	}
	b := make([]byte, tun.VirtioLen+header.IPv4Len+transport+n*size)
	p := header.IPv4(b[tun.VirtioLen:])
	p[0], p[8], p[9] = 0x45, 64, header.TCP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	t := p[header.IPv4Len:]
	binary.BigEndian.PutUint32(t, 12345<<16|80)
	kind, checksum := byte(unix.VIRTIO_NET_HDR_GSO_TCPV4), 16
	if udp {
		p[9], kind, checksum = header.UDP, unix.VIRTIO_NET_HDR_GSO_UDP_L4, 6
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	} else {
		t[12], t[13] = 5<<4, 0x10
	}
	p.SetChecksum()
	binary.BigEndian.PutUint16(t[checksum:], header.Fold(header.PseudoSum(p.Source(), p.Dest(), len(t), p.Protocol())))
	b[0], b[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, kind
	binary.NativeEndian.PutUint16(b[2:], uint16(header.IPv4Len+transport))
	binary.NativeEndian.PutUint16(b[4:], uint16(size))
	binary.NativeEndian.PutUint16(b[6:], header.IPv4Len)
	binary.NativeEndian.PutUint16(b[8:], uint16(checksum))
	return b
}

// cut segments and encapsulates a super-packet.
func cut(tb testing.TB, s *encap.Stack, b, h []byte) int {
	super, r := tun.ParseSuper(b)
	if r != drop.None {
		tb.Fatal(r)
	}
	for i := range super.Segments() {
		h := h[:encap.Headroom+super.Headers()]
		payload := super.Segment(i, h[encap.Headroom:])
		if _, r := s.EncapsulateSegment(h, encap.Headroom, payload); r != drop.None {
			tb.Fatal(r)
		}
	}
	return super.Segments()
}

var kinds = []struct {
	name    string
	udp     bool
	n, size int
}{
	{"TCP/1380", false, 46, 1380},
	{"TCP/500", false, 46, 500},
	{"UDP/1392", true, 46, 1392},
	{"UDP/64", true, 100, 64},
}

// BenchmarkSegment measures the cost of a segment of a super-packet: its headers, its
// checksum and its encapsulation.
func BenchmarkSegment(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			s, pkt, h := stack(b, "4in6in4", left, encap.DefaultOptions), superPacket(k.udp, k.n, k.size), make([]byte, 2*encap.Headroom)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += cut(b, s, pkt, h)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
		})
	}
}

// received returns packets as they come out of the tunnel.
func received(udp bool, n, size int) (pkts [][]byte) {
	super, _ := tun.ParseSuper(superPacket(udp, n, size))
	for i := range super.Segments() {
		p := make([]byte, super.Headers(), super.Headers()+size)
		pkts = append(pkts, append(p, super.Segment(i, p)...))
	}
	return pkts
}

// BenchmarkGather measures the cost of finding that a packet continues a flow, and that
// its checksum is correct.
func BenchmarkGather(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			pkts, g := received(k.udp, k.n, k.size), tun.NewGatherer(128, 1440)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for _, p := range pkts {
					g.Add(p)
				}
				n += g.Len()
				g.Discard()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
		})
	}
}

func TestSuperPacketsNoAllocs(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s, pkt, h := stack(t, "4in6in4", left, encap.DefaultOptions), superPacket(k.udp, k.n, k.size), make([]byte, 2*encap.Headroom)
			pkts, g := received(k.udp, k.n, k.size), tun.NewGatherer(128, 1440)
			if n := testing.AllocsPerRun(100, func() {
				if n := cut(t, s, pkt, h); n != k.n {
					t.Fatal(fmt.Sprint(n, " segments"))
				}
				for _, p := range pkts {
					g.Add(p)
				}
				g.Discard()
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
