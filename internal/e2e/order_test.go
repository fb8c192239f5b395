package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// beyond is the destination of the packets of the order test: a host behind b.
var (
	beyond4 = netip.MustParseAddr("10.9.0.2")
	beyond6 = netip.MustParseAddr("fc09::2")
)

// mixture makes the packets of one flow, of all the kinds that there are.
type mixture struct {
	src, dst netip.Addr
	tcp      bool
	port     uint16
	id       uint16
	seq      uint32
	long     int  // bytes of payload of the largest packets
	whole    bool // none whose ports cannot be seen
	r        *rand.Rand
}

// next returns the next datagram or segment: several packets if it is sent in fragments.
func (m *mixture) next() [][]byte {
	kinds := []string{"", "", "", "", "", "empty", "short", "fragments", "looks partial", "no checksum", "wrong checksum", "DF", "DF", "ECN", "ID", "options", "long"}
	kind := kinds[m.r.IntN(len(kinds))]
	if m.whole && (kind == "fragments" || kind == "options") {
		kind = ""
	}
	size := 1000
	switch {
	case kind == "empty":
		size = 0
	case kind == "short":
		size = 4 + m.r.IntN(900)
	case kind == "long":
		size = m.long
	case kind == "fragments" && !m.tcp:
		size = 2200
	}
	t := m.transport(size, kind == "looks partial", m.protocol())
	switch {
	case kind == "no checksum" && !m.tcp && m.src.Is4():
		t[6], t[7] = 0, 0
	case kind == "wrong checksum":
		t[m.checksumAt()]++
	}
	m.id++
	id := m.id
	var flags uint16
	tos := byte(0)
	switch kind {
	case "DF":
		id, flags = 0, header.DF
	case "ECN":
		tos = 1
	case "ID":
		m.id += 5
	}
	if kind == "fragments" && !m.tcp {
		const at = 1200
		return [][]byte{m.packet(t[:at], tos, id, header.MF, kind), m.packet(t[at:], tos, id, at/8, kind)}
	}
	return [][]byte{m.packet(t, tos, id, flags, kind)}
}

func (m *mixture) protocol() byte {
	if m.tcp {
		return header.TCP
	}
	return header.UDP
}

func (m *mixture) checksumAt() int {
	if m.tcp {
		return 16
	}
	return 6
}

// transport returns a segment or datagram with a correct checksum, which may look like an
// incomplete one.
func (m *mixture) transport(size int, partial bool, protocol byte) []byte {
	headers := 8
	if m.tcp {
		headers = 20
	}
	t := make([]byte, headers+size)
	for i := range t[headers:] {
		t[headers+i] = byte(m.r.Uint32())
	}
	binary.BigEndian.PutUint16(t[0:], m.port)
	binary.BigEndian.PutUint16(t[2:], m.port)
	if m.tcp {
		binary.BigEndian.PutUint32(t[4:], m.seq)
		t[12], t[13], t[14] = 5<<4, 0x10, 0x20
		m.seq += uint32(size)
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	}
	pseudo := header.PseudoSum(m.src.AsSlice(), m.dst.AsSlice(), len(t), protocol)
	if partial && size >= 2 && size%2 == 0 {
		// The last word makes the complete checksum the sum of the pseudo-header.
		t[len(t)-2], t[len(t)-1] = 0, 0
		rest, want := uint32(header.Sum(t, pseudo)), uint32(header.Fold(pseudo))
		binary.BigEndian.PutUint16(t[len(t)-2:], uint16((2*0xffff-want-rest)%0xffff))
	}
	sum := ^header.Sum(t, pseudo)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[m.checksumAt():], sum)
	return t
}

// packet puts an IP header in front of what fragment says.
func (m *mixture) packet(t []byte, tos byte, id, fragment uint16, kind string) []byte {
	if m.src.Is6() {
		extension := []byte(nil)
		next := m.protocol()
		switch kind {
		case "fragments":
			offset := fragment << 3
			if fragment == header.MF {
				offset = 1
			}
			extension = []byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, byte(id >> 8), byte(id)}
			next = header.FragmentHdr
		case "options":
			extension = []byte{next, 0, 1, 4, 0, 0, 0, 0}
			next = header.DestOptions
		}
		p := make([]byte, header.IPv6Len)
		p[0], p[1], p[6], p[7] = 0x60|tos>>4, tos<<4, next, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(extension)+len(t)))
		copy(p[8:], m.src.AsSlice())
		copy(p[24:], m.dst.AsSlice())
		return append(append(p, extension...), t...)
	}
	p := make([]byte, header.IPv4Len)
	p[0], p[1], p[8], p[9] = 0x45, tos, 64, m.protocol()
	if kind == "options" {
		p[0] = 0x46
		p = append(p, 1, 1, 1, 0)
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(t)))
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], fragment)
	copy(p[12:], m.src.AsSlice())
	copy(p[16:], m.dst.AsSlice())
	header.IPv4(p).SetChecksum()
	return append(p, t...)
}

// withoutMutable returns a packet without the fields that may change on the path: the hop limit, and
// an identification without meaning (RFC 6864).
func withoutMutable(p []byte) []byte {
	p = bytes.Clone(p)
	if header.Version(p) == 6 {
		p[7] = 0
		return p
	}
	if !header.IPv4(p).MayFragment() {
		p[4], p[5] = 0, 0
	}
	p[8], p[10], p[11] = 0, 0, 0
	return p
}

// flowOf returns the flow to which a packet belongs: the tests have one flow for each pair
// of source and protocol.
func flowOf(p []byte) string {
	if header.Version(p) == 4 {
		return fmt.Sprint(header.IPv4(p).Src(), header.IPv4(p).Protocol())
	}
	next := p[6]
	if next == header.FragmentHdr || next == header.DestOptions {
		next = p[header.IPv6Len]
	}
	return fmt.Sprint(header.IPv6(p).Src(), next)
}

// connectBehind makes a link from b to a host, over which packets are sent one by one, and
// captures there.
func connectBehind(t *testing.T, h hosts) *rig.Capture {
	t.Helper()
	far := newNamespace(t, "far")
	must(t, rig.Veth(h.b, "vf", far, "vg", 1500))
	must(t, h.b.Forward())
	for _, a := range []string{"10.9.0.1/24", "fc09::1/64"} {
		must(t, h.b.AddAddr("vf", netip.MustParsePrefix(a)))
	}
	mac, err := far.MAC("vg")
	must(t, err)
	for _, a := range []netip.Addr{beyond4, beyond6} {
		must(t, h.b.AddNeighbour("vf", a, mac))
	}
	for _, feature := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
		must(t, h.b.Ethtool("vf", feature, 0))
	}
	wire, err := far.Capture("vg")
	must(t, err)
	t.Cleanup(func() { wire.Close() })
	return wire
}

// The packets of a flow leave the tunnel unchanged and in their order, whatever they are
// and whatever is sent at the same time, in each way in which they can be carried.
func TestOrderWithinFlows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		config func(self int) string
		long   int
	}{
		{"gre", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, orderAddress(self)})
		}, 1300},
		{"gre, no offload", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `offload = "off"`, orderAddress(self)})
		}, 1300},
		{"gre through AF_XDP", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `io = "xdp"`, orderAddress(self)})
		}, 1300},
		{"gre through AF_XDP, no offload", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `io = "xdp"`, `offload = "off"`, orderAddress(self)})
		}, 1300},
		{"4in6in4", func(self int) string { return config("4in6in4", self, 3-self, []string{`keepalive = "0s"`}) }, 1300},
		{"gre, outer packets in fragments", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `pmtu = "static"`, `mtu = 1600`, orderAddress(self)})
		}, 1440},
		{"gre through AF_XDP, outer packets in fragments", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `io = "xdp"`, `pmtu = "static"`, `mtu = 1600`, orderAddress(self)})
		}, 1440},
		{"4in6in4, IPv6 in fragments", func(self int) string {
			return config("4in6in4", self, 3-self, []string{`keepalive = "0s"`, `mtu = 1480`})
		}, 1400},
		{"gre, several queues", func(self int) string {
			return config("gre", self, 3-self, []string{`keepalive = "0s"`, `queues = 3`, orderAddress(self)})
		}, 1300},
	} {
		t.Run(c.name, func(t *testing.T) { keepsOrder(t, c.config, c.long) })
	}
}

func orderAddress(self int) string {
	return fmt.Sprintf(`address = ["10.0.0.%d/30", "fc00::%d/64"]`, self, self)
}

func keepsOrder(t *testing.T, config func(self int) string, long int) {
	h := newHosts(t, 1500)
	a, b := start(t, h.a, config(1)), start(t, h.b, config(2))
	reachable(t, h.a, inB)
	if strings.Contains(config(1), "xdp") {
		eventually(t, "AF_XDP", func() error {
			for _, d := range []*daemon{a, b} {
				if _, tunnel := d.status(t); tunnel.State.IO != "xdp" {
					return fmt.Errorf("packets leave by %s", tunnel.State.IO)
				}
			}
			return nil
		})
	}
	wire := connectBehind(t, h)
	enter, err := h.a.Capture("six0")
	must(t, err)
	defer enter.Close()
	r := rand.New(rand.NewPCG(17, 18))
	var flows []*mixture
	whole := strings.Contains(config(1), "queues")
	for i, src := range []netip.Addr{inA, in6A} {
		dst := []netip.Addr{beyond4, beyond6}[i]
		flows = append(flows, &mixture{src: src, dst: dst, port: 7, long: long, whole: whole, r: r}, &mixture{src: src, dst: dst, port: 7, long: long, whole: whole, r: r, tcp: true})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	moved := make(map[string]int)
	const bursts, burst = 40, 100
	for range bursts {
		sent, total := make(map[string][][]byte), 0
		for total < burst {
			m := flows[r.IntN(len(flows))]
			for range 1 + r.IntN(6) { // that follow each other
				for _, p := range m.next() {
					must(t, enter.Inject(p))
					sent[flowOf(p)] = append(sent[flowOf(p)], withoutMutable(p))
					total++
				}
			}
		}
		for n := 0; n < total; {
			f, err := wire.Next(ctx)
			if err != nil {
				_, sa := a.status(t)
				_, sb := b.status(t)
				t.Fatalf("%d of %d packets: %v; %+v %+v", n, total, err, sa.Out, sb.In)
			}
			p := f.Packet()
			flow := sent[flowOf(p)]
			if f.Outgoing || flow == nil {
				continue
			}
			n++
			if got := withoutMutable(p); !bytes.Equal(got, flow[0]) {
				moved[flowOf(p)]++
				for i, s := range flow {
					if bytes.Equal(got, s) { // so that the following packets are compared with the right ones
						sent[flowOf(p)] = append(append([][]byte(nil), flow[:i]...), flow[i+1:]...)
						break
					}
				}
				continue
			}
			sent[flowOf(p)] = flow[1:]
		}
	}
	for flow, n := range moved {
		t.Errorf("%d packets of the flow of %s are not where they were, or not what they were", n, flow)
	}
}
