package datapath

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/transport"
)

var from, at = netip.MustParseAddrPort("198.51.100.1:7777"), netip.MustParseAddrPort("192.0.2.1:5555")

// datagramOf returns a datagram with its headers, as a port writes them.
func datagramOf(from, at netip.AddrPort, payload []byte) []byte {
	n := header.HeadersLen(at.Addr())
	pkt := append(make([]byte, n), payload...)
	header.PutHeaders(pkt, &header.Outer{From: from, At: at, TOS: 2, TTL: 60})
	return pkt
}

// merge puts datagrams of the given payloads, of which only the last may be shorter, into
// one buffer.
func merge(buf []byte, m *transport.Meta, from, at netip.AddrPort, payloads ...[]byte) {
	*m = transport.Meta{Each: len(payloads[0])}
	m.Size = copy(buf, datagramOf(from, at, payloads[0]))
	for _, p := range payloads[1:] {
		m.Size += copy(buf[m.Size:], p)
	}
}

// Datagrams in one buffer are counted and shown as if each had come alone, also when some
// are bad, and when there are more than the device gets at once.
func TestMergedDatagrams(t *testing.T) {
	l := layer(encap.FourInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})
	l.Kind = l.Kind.With(framing.FOU{Local: 5555, Remote: 5555})
	good := arriving("10.0.0.2", "10.0.0.1", header.NoNextHeader)
	good[3], good[8] = 20, 64
	header.IPv4(good).SetChecksum()
	bad := bytes.Clone(good)
	bad[10]++
	martian := bytes.Clone(good)
	copy(martian[12:], []byte{127, 0, 0, 1})
	header.IPv4(martian).SetChecksum()
	long, short := bytes.Clone(good), bytes.Clone(good) // whose headers say another length
	long[3], short[3] = byte(len(good))+1, byte(len(good))-1
	header.IPv4(long).SetChecksum()
	header.IPv4(short).SetChecksum()
	huge := bytes.Clone(good)
	huge[2] = 0xff
	header.IPv4(huge).SetChecksum()
	headers := bytes.Clone(good)
	headers[0] = 0x4f // more header than there is
	stranger := netip.MustParseAddrPort("198.51.100.9:7777")
	for name, c := range map[string]struct {
		from     netip.AddrPort
		payloads [][]byte
	}{
		"good":       {from, [][]byte{good, good, good}},
		"some bad":   {from, [][]byte{good, bad, martian, good}},
		"lying":      {from, [][]byte{good, long, good, huge, good, short, good, headers, good}},
		"lying last": {from, [][]byte{good, good, huge}},
		"only bytes": {from, slices.Repeat([][]byte{{0x45}}, 200)},
		"short last": {from, [][]byte{good, good, good[:5]}},
		"stranger":   {stranger, [][]byte{good, bad, good}},
		"many":       {from, slices.Repeat([][]byte{good, bad}, gatherSize)},
	} {
		t.Run(name, func(t *testing.T) {
			var counted, shown [2]string
			for i, merged := range []bool{false, true} {
				e, tn, p, _ := labOf(t, 1500, encap.DefaultOptions, l)
				in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
				run := func() {
					if merged {
						merge(in.bufs[0], &in.meta[0], c.from, at, c.payloads...)
						in.carry(1)
						return
					}
					for _, payload := range c.payloads {
						in.carry(put(in, datagramOf(c.from, at, payload)))
					}
				}
				run()
				got := slices.Sorted(slices.Values(capturedBy(t, &e.Captures, run)))
				for i, line := range got { // without the number, which depends on the order
					_, got[i], _ = strings.Cut(line, " ")
				}
				slices.Sort(got)
				counted[i] = fmt.Sprint(p.In.Traffic(), tn.In.Traffic(), e.Stray.Traffic())
				shown[i] = fmt.Sprint(got)
			}
			if counted[0] != counted[1] || shown[0] != shown[1] {
				t.Errorf("merged\n%s\n%s\nalone\n%s\n%s", counted[1], shown[1], counted[0], shown[0])
			}
		})
	}
}

// Several datagrams in one buffer cost no allocation.
func TestMergedNoAllocs(t *testing.T) {
	l := layer(encap.FourInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})
	l.Kind = l.Kind.With(framing.FOU{Local: 5555, Remote: 5555})
	e, _, _, _ := labOf(t, 1500, encap.DefaultOptions, l)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	good := arriving("10.0.0.2", "10.0.0.1", header.NoNextHeader, make([]byte, 1000)...)
	good[2], good[3], good[8] = 1020>>8, 1020&0xff, 64
	header.IPv4(good).SetChecksum()
	merge(in.bufs[0], &in.meta[0], from, at, slices.Repeat([][]byte{good}, 40)...)
	if got := testing.AllocsPerRun(100, func() { in.carry(1) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
