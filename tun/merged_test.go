package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// TestMergedIsTakenApart: packets that the kernel has merged are passed on as the
// original packets, whether the kernel cuts them or we do, and whatever the checksum is:
// a list has that of its first packet.
func TestMergedIsTakenApart(t *testing.T) {
	l := newLine(t)
	r := rand.New(rand.NewPCG(5, 6))
	g := NewGatherer(128, 1500)
	for i := range 200 {
		s := randomSample(r)
		if !s.ipv6 {
			s.options = 0 // GRO does not merge packets with options
		}
		s.payload = min(s.payload, 64*s.size)
		b := s.build(r)
		want := segments(t, bytes.Clone(b))
		pkt := b[VirtioLen:]
		if i%2 == 0 {
			at := int(binary.NativeEndian.Uint16(b[6:])) + int(binary.NativeEndian.Uint16(b[8:]))
			binary.BigEndian.PutUint16(pkt[at:], uint16(r.Uint32())|1)
		}
		q := *l.dev.Queues()[0]
		if i%3 == 0 {
			q.tso, q.uso = false, false
		}
		if reason := g.AddMerged(pkt, s.size); reason != drop.None {
			t.Fatalf("%v: %v", s, reason)
		}
		if refused := g.Write(&q); refused.Packets > 0 {
			t.Fatalf("%v: %+v", s, refused)
		}
		compare(t, s, l.forwarded(t, len(want)), want)
	}
}

// TestMergedOfUnknownSizes: with an unknown segment size, TCP with an incomplete
// checksum is cut so that it fits every link, and what may be merged datagrams is
// refused.
func TestMergedOfUnknownSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const partial, complete, wrong = "partial", "complete", "wrong"
	for _, c := range []struct {
		udp      bool
		options  int // bytes of IPv4 options, or from 8 on of an IPv6 extension header
		payload  int
		checksum string
		known    int
		merged   int // how it is cut
		want     drop.Reason
	}{
		{false, 0, 20000, partial, Unknown, safeMTU - 40, drop.None},
		{false, 0, 1400, partial, Small, safeMTU - 40, drop.None},
		{false, 0, 1000, partial, Small, 0, drop.None},
		{false, 0, 1400, partial, Single, 0, drop.None},
		{false, 0, 20000, complete, Unknown, 0, drop.None},
		{false, 0, 20000, wrong, Unknown, 0, drop.Merged},
		{false, 0, 1000, wrong, Small, 0, drop.None}, // for its receiver to find out
		{true, 0, 20000, partial, Unknown, 0, drop.Merged},
		{true, 0, 1000, partial, Small, 0, drop.Merged},
		{true, 0, 1000, partial, Single, 0, drop.None},
		{true, 0, 20000, complete, Unknown, 0, drop.None},
		{true, 0, 20000, wrong, Unknown, 0, drop.Merged},
		{false, 0, 0, partial, Small, 0, drop.None}, // the kernel merges neither those without payload
		{false, 4, 1000, partial, Small, 0, drop.None},
		{true, 4, 1000, partial, Small, 0, drop.None}, // nor those with IP options
		{false, 8, 20000, partial, Unknown, safeMTU - 68, drop.None},
		{false, 8, 20000, complete, Unknown, 0, drop.None},
		{false, 8, 20000, wrong, Unknown, 0, drop.Merged},
		{false, 8, 1000, partial, Single, 0, drop.None},
		{false, 8, 0, partial, Single, 0, drop.None},
		{true, 8, 20000, partial, Unknown, 0, drop.Merged},
		{true, 8, 1000, partial, Small, 0, drop.None},
		{true, 8, 1000, partial, Single, 0, drop.None},
		{true, 8, 1000, complete, Single, 0, drop.None},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			s := sample{udp: c.udp, flags: tcpACK, ipv6: c.options >= 8, options: c.options, size: 1000, payload: c.payload}
			pkt := s.build(r)[VirtioLen:]
			f := parseFlow(pkt)
			if s.ipv6 {
				f = behindExtensions(pkt, f)
			}
			field := pkt[f.transport+f.checksum:]
			if c.checksum != partial {
				finishChecksum(pkt[f.transport:], f.checksum)
			}
			if c.checksum == wrong {
				binary.BigEndian.PutUint16(field, binary.BigEndian.Uint16(field)^0x5555)
			}
			g := NewGatherer(1, 9000)
			if got := g.AddMerged(pkt, c.known); got != c.want {
				t.Fatalf("%v, want %v", got, c.want)
			}
			if c.want == drop.None && g.groups[0].merged != c.merged {
				t.Errorf("cut to %d, want %d", g.groups[0].merged, c.merged)
			}
			if c.want == drop.None && g.groups[0].flow.partial != (c.checksum == partial) {
				t.Errorf("the kernel is to complete the checksum: %v", g.groups[0].flow.partial)
			}
		})
	}
}

// FuzzAddMerged: no bytes and no sizes cause a panic.
func FuzzAddMerged(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		s := randomSample(r)
		f.Add(s.build(r)[VirtioLen:], s.size)
	}
	f.Fuzz(func(t *testing.T, pkt []byte, segment int) {
		ip, reason := header.Parse(pkt, header.Version(pkt))
		if reason != drop.None {
			return
		}
		g := NewGatherer(1, 1500)
		if g.AddMerged(ip, segment%2000) != drop.None || g.groups[0].merged == 0 {
			return
		}
		to := &g.groups[0]
		s := Super{pkt: ip, headers: to.flow.headers, transport: to.flow.transport, size: to.merged, udp: !to.flow.isTCP(), ipv6: header.Version(ip) == 6}
		h := make([]byte, MaxHeaders)
		for i := range s.Segments() {
			s.Segment(i, h)
		}
	})
}
