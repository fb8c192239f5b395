package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/capture"
	"sixfour/internal/decode"
	"sixfour/transport"
)

// capturedBy captures tunnel t0 while do runs, and returns what the capture shows.
func capturedBy(t *testing.T, c *capture.Set, do func()) (shown []string) {
	t.Helper()
	tap, err := capture.New(capture.Request{Tunnel: "t0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Begin("t0", tap); err != nil {
		t.Fatal(err)
	}
	do()
	c.EndTap(tap)
	var out memory
	if err := tap.Stream(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	r, err := decode.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(0)
	for {
		p, i, err := r.Next()
		if errors.Is(err, io.EOF) {
			return shown
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = p.ID
		}
		word := ""
		for _, c := range p.Comments {
			word += " (" + strings.Join(strings.SplitN(c, ":", 3)[:min(2, strings.Count(c, ":")+1)], ":") + ")"
		}
		shown = append(shown, fmt.Sprintf("%d %v %s %d%s", p.ID-first, p.Direction, strings.TrimPrefix(i.Name, "t0 "), p.Length, word))
	}
}

// tunnelled returns an IPv4 packet with an inner packet of the tunnel.
func tunnelled(outer, inner string, payload int) []byte {
	in := arriving(inner, "10.0.0.1", header.UDP, make([]byte, payload)...)
	in[8] = 64
	binary.BigEndian.PutUint16(in[2:], uint16(len(in)))
	header.IPv4(in).SetChecksum()
	six := arriving("fc00::2", "fc00::1", header.ProtoIPv4, in...)
	six[7] = 64
	binary.BigEndian.PutUint16(six[4:], uint16(len(in)))
	pkt := arriving(outer, "192.0.2.1", header.ProtoIPv6, six...)
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	header.IPv4(pkt).SetChecksum()
	return pkt
}

// batch is a receiver that receives nothing.
type batch struct{ transport.Receiver }

func (batch) Lost() (uint32, bool) { return 0, false }

func put(in *Inbound, pkts ...[]byte) int {
	for i, p := range pkts {
		in.meta[i].Size = copy(in.bufs[i], p)
	}
	return len(pkts)
}

// A packet that arrives is shown once, with its outcome. There is no device, so valid packets
// are dropped at the end.
func TestCaptureInbound(t *testing.T) {
	e, _, p, _ := lab(t)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	good, martian, stray := tunnelled("198.51.100.1", "10.0.0.2", 30), tunnelled("198.51.100.1", "127.0.0.1", 30), tunnelled("198.51.100.9", "10.0.0.2", 30)
	cut := bytes.Clone(good)[:70]
	binary.BigEndian.PutUint16(cut[2:], 70)
	header.IPv4(cut).SetChecksum()
	got := capturedBy(t, &e.Captures, func() { in.carry(put(in, good, martian, stray, cut, []byte{0x45, 0})) })
	want := []string{
		"0 in outer 110 (dropped: martian)", // dropped before decapsulation: no inner packet
		"1 in outer 110 (dropped: foreign_source)",
		"2 in outer 70 (dropped: truncated)",
		"3 in outer 2 (dropped: truncated)",
		"4 in inner 50 (dropped: interface_down)", "4 in outer 110 (dropped: interface_down)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	p.Number.Store(2)
	got = capturedBy(t, &e.Captures, func() { in.carry(put(in, martian, stray, good)) })
	want = []string{
		"0 in outer 110 (dropped: martian) (path 2)", "1 in outer 110 (dropped: foreign_source)",
		"2 in inner 50 (dropped: interface_down) (path 2)", "2 in outer 110 (dropped: interface_down) (path 2)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("of a path: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	in.carry(put(in, good))
	if in.seen != nil || in.kept != nil {
		t.Error("something is kept though nobody captures")
	}
}

// sends is a sender that refuses one packet.
type sends struct {
	transport.Sender
	refuse int
}

func (s *sends) Send(p []transport.Packet) (int, error) {
	if s.refuse >= 0 && s.refuse < len(p) {
		n := s.refuse
		s.refuse = -1
		return n, fmt.Errorf("send: %w", net.ErrClosed)
	}
	return len(p), nil
}

// A packet that is sent is shown with its outer packets, a dropped one with the reason.
func TestCaptureOutbound(t *testing.T) {
	e, tun, p, to := lab(t)
	sender := &sends{refuse: 1}
	to.Senders = []transport.Sender{sender}
	useWire(p, to)
	p.Number.Store(3)
	o := NewOutbound(tun, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	inner := func(dst string, payload int) []byte {
		b := make([]byte, encap.Headroom, encap.Headroom+100)
		in := arriving("10.0.0.1", dst, header.UDP, make([]byte, payload)...)
		in[8] = 64
		binary.BigEndian.PutUint16(in[2:], uint16(len(in)))
		binary.BigEndian.PutUint16(in[6:], header.DF)
		header.IPv4(in).SetChecksum()
		return append(b, in...)
	}
	own := inner("198.51.100.1", 60) // returned to us
	ip := header.IPv4(own[encap.Headroom:])
	ip[9] = header.ProtoIPv6
	copy(ip[12:], []byte{192, 0, 2, 1})
	ip.SetChecksum()
	got := capturedBy(t, &e.Captures, func() {
		for _, b := range [][]byte{inner("10.0.0.2", 30), inner("10.0.0.3", 40), inner("10.0.0.4", 50), inner("10.0.0.5", 1500), own} {
			o.add(b)
		}
		o.send()
	})
	want := []string{
		"0 out inner 1520 (dropped: too_big) (path 3)",
		"1 out inner 80 (dropped: loop) (path 3)",
		"2 out inner 50 (path 3)", "2 out outer 110 (path 3)",
		"3 out inner 60 (dropped: no_route) (path 3)", "3 out outer 120 (dropped: no_route) (path 3)",
		"4 out inner 70 (path 3)", "4 out outer 130 (path 3)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The cost of checking for captures, and of a running capture, for packets that arrive and
// are dropped, which needs no device.
func BenchmarkInbound(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("capture=%v", on), func(b *testing.B) {
			e, tun, _, _ := lab(b)
			in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
			if on {
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				tap, err := capture.New(capture.Request{Tunnel: "t0"})
				if err == nil {
					err = e.Captures.Begin("t0", tap)
				}
				if err != nil {
					b.Fatal(err)
				}
				go func() { _ = tap.Stream(ctx, discard{}) }()
				for tun.seen() == nil {
				}
			}
			pkt := tunnelled("198.51.100.1", "10.0.0.2", 1000)
			batch := make([][]byte, transport.BatchSize)
			for i := range batch {
				batch[i] = pkt
			}
			n := put(in, batch...)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				in.carry(n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (discard) Flush() error { return nil }

// Without a capture, neither direction allocates.
func TestCaptureOffNoAllocs(t *testing.T) {
	e, tun, p, to := lab(t)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	n := put(in, tunnelled("198.51.100.1", "127.0.0.1", 1000), tunnelled("198.51.100.1", "10.0.0.2", 1000))
	to.Senders = []transport.Sender{&sends{refuse: -1}}
	useWire(p, to)
	o := NewOutbound(tun, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	b := append(make([]byte, encap.Headroom), tunnelled("10.0.0.1", "10.0.0.2", 30)[60:]...)
	if got := testing.AllocsPerRun(100, func() { in.carry(n) }); got != 0 {
		t.Errorf("%v allocations on the way in", got)
	}
	if got := testing.AllocsPerRun(100, func() { o.add(b); o.send() }); got != 0 {
		t.Errorf("%v allocations on the way out", got)
	}
}
