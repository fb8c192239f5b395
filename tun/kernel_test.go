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

// line is a router with the interface on one side and a veth pair on the other. Its
// kernel does in software what a network card could do:
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
	// Neighbours are resolved first, because the queue for unresolved ones is short.
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

// forwarded returns the next n packets to the far host, with the TTL that they had
// before the router.
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

// segments returns the segments that we make of a super-packet.
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

// TestSegmentsAreTheKernels: our segments are the same as those that the kernel makes of
// the same super-packet.
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

// TestGatheredPacketsAreUnchanged: packets that were gathered leave the kernel
// unchanged, and in order within each flow.
func TestGatheredPacketsAreUnchanged(t *testing.T) {
	l := newLine(t)
	r := rand.New(rand.NewPCG(3, 4))
	g := NewGatherer(128, 1500)
	gathered := 0
	for round := range 300 {
		// Several flows, mixed.
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

// flowOf returns the bytes that identify a flow.
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

// spoil changes some packets so that they must not be gathered with others.
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

// TestPartialChecksums: the kernel completes a partial checksum, as a peer's or our own
// network card leaves it, and cuts a packet that is larger than the MTU of the
// interface.
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
