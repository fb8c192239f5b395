package tun

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"sixfour/encap/header"
)

// stream is a flow with packets of all kinds: some can be gathered, others not.
type stream struct {
	sample // of the next packet
	port   uint16
	seq    uint32
}

// oddities are the ways in which a packet can differ from those around it.
var oddities = []string{"", "", "", "", "", "", "empty", "short", "long", "partial", "no checksum", "wrong checksum", "options", "in fragments", "ECN", "fixed ID", "other ID", "flags", "retransmitted"}

// next returns the packets of the flow's next datagram or segment: more than one if it
// is fragmented.
func (s *stream) next(r *rand.Rand) (odd string, pkts [][]byte) {
	odd = oddities[r.IntN(len(oddities))]
	now := s.sample
	now.size = 1000
	switch odd {
	case "short":
		now.size = 1 + r.IntN(900)
	case "long":
		now.size = 1100
	case "in fragments":
		now.size = 2400
	case "options":
		now.options = 8
	case "ECN":
		now.tos ^= byte(1 + r.IntN(3))
	case "fixed ID":
		now.id = 0
	case "other ID":
		now.id += 7
	case "flags":
		now.flags |= tcpPSH
	case "retransmitted":
		s.seq -= uint32(r.IntN(3000))
	}
	if odd == "empty" || odd == "in fragments" && !s.udp {
		now.size = 0
	}
	now.payload = now.size
	p := now.build(r)[VirtioLen:]
	s.id++
	f := parseFlow(p)
	if !f.ports { // behind extension headers
		f.transport, f.checksum = header.IPv6Len+now.options, tcpChecksum
		if s.udp {
			f.checksum = udpChecksum
		}
	}
	t := p[f.transport:]
	binary.BigEndian.PutUint32(t, uint32(s.port)<<16|uint32(s.port))
	if !s.udp {
		binary.BigEndian.PutUint32(t[tcpSequence:], s.seq)
		s.seq += uint32(now.size)
	}
	if odd != "partial" {
		src, dst := addresses(p)
		protocol, headers := byte(header.UDP), udpHeader
		if !s.udp {
			protocol, headers = header.TCP, tcpMinHeader
		}
		setChecksum(t[:headers], t[headers:], f.checksum, header.PseudoSum(src, dst, len(t), protocol))
	}
	switch odd {
	case "no checksum":
		if s.udp {
			t[udpChecksum], t[udpChecksum+1] = 0, 0
		}
	case "wrong checksum":
		t[f.checksum]++
	case "in fragments":
		if s.udp {
			return odd, cutInTwo(p)
		}
	}
	return odd, [][]byte{p}
}

// cutInTwo makes two fragments of a packet.
func cutInTwo(p []byte) [][]byte {
	const at = 1200 // bytes of payload in the first
	if header.Version(p) == 4 {
		a, b := append([]byte(nil), p[:header.IPv4Len+at]...), append(append([]byte(nil), p[:header.IPv4Len]...), p[header.IPv4Len+at:]...)
		binary.BigEndian.PutUint16(a[6:], header.MF)
		binary.BigEndian.PutUint16(b[6:], at/8)
		for _, f := range [][]byte{a, b} {
			binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
			header.IPv4(f).SetChecksum()
		}
		return [][]byte{a, b}
	}
	fragment := func(offset uint16, payload []byte) []byte {
		f := append([]byte(nil), p[:header.IPv6Len]...)
		f = append(f, p[6], 0, byte(offset>>8), byte(offset), 0, 0, 0, 1)
		f = append(f, payload...)
		f[6] = header.FragmentHdr
		binary.BigEndian.PutUint16(f[4:], uint16(len(f)-header.IPv6Len))
		return f
	}
	return [][]byte{fragment(1, p[header.IPv6Len:][:at]), fragment(at, p[header.IPv6Len+at:])}
}

// TestOrderWithinFlow: the packets of a flow are written in the order in which they
// came, whatever they are and whatever comes between them.
func TestOrderWithinFlow(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	gathered, broken := 0, make(map[string]int)
	for range 3000 {
		var flows []*stream
		for i := range 1 + r.IntN(4) {
			s := &stream{sample: randomSample(r), port: uint16(1000 + i/2)} // TCP and UDP may have the same
			s.options, s.tcpOptions, s.flags = 0, 0, tcpACK
			flows = append(flows, s)
		}
		g := NewGatherer(128, 1500)
		type origin struct {
			flow, n int
			odd     string
		}
		from := make(map[*byte]origin)
		for n := 0; g.Len() < 120; n++ {
			i := r.IntN(len(flows))
			odd, pkts := flows[i].next(r)
			for k, p := range pkts {
				from[&p[0]] = origin{i, 2*n + k, odd}
				g.Add(p)
			}
		}
		last, seen := make(map[int]origin), 0
		for _, to := range g.groups {
			gathered += to.count - 1
			for i := to.first; i >= 0; i = g.items[i].next {
				seen++
				now := from[&g.items[i].pkt[0]]
				if before := last[now.flow]; before.n > now.n {
					broken[fmt.Sprintf("%q overtakes %q", before.odd, now.odd)]++
				}
				last[now.flow] = now
			}
		}
		if seen != g.Len() {
			t.Fatalf("%d packets are written, of %d", seen, g.Len())
		}
	}
	for what, n := range broken {
		t.Errorf("%s, %d times", what, n)
	}
	if gathered < 10000 {
		t.Errorf("only %d packets were gathered: the test tests little", gathered)
	}
}
