package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// A flood of fragments that never make complete packets, from the peer's own address:
// memory stays bounded, and packets whose fragments arrive among them get through.
func TestFragmentFlood(t *testing.T) {
	n := newRouted(t)
	n.resolveNeighbours(t)
	a := start(t, n.a, configA())
	start(t, n.b, configB())
	reachable(t, n.a, inB)
	n.narrow(t, 1400)
	waitTooBig(t, n.b, inA, 1440-28, 1340)
	waitTooBig(t, n.a, inB, 1440-28, 1340)
	// Larger than the path allows, but not larger than the interface: two fragments.
	pings(t, n.b, inA, rig.PingOptions{Size: 1440 - 28})
	before := resident(t, a.cmd.Process.Pid)

	raw, err := n.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	pkt := slices.Concat(forge(t)[:inside], make([]byte, 8+1024))
	pkt[mid+6] = header.FragmentHdr
	var stop atomic.Bool
	flood := make(chan int)
	go func() {
		sent := 0
		for ; !stop.Load(); sent++ {
			frag := pkt[inside:]
			frag[0], frag[1] = header.ProtoIPv4, 0
			off := uint16(sent*8) &^ 7 % 60000
			binary.BigEndian.PutUint16(frag[2:], off|1)
			binary.BigEndian.PutUint32(frag[4:], uint32(sent)*2654435761)
			binary.BigEndian.PutUint16(pkt[mid+4:], uint16(len(pkt)-inside))
			binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
			header.IPv4(pkt).SetChecksum()
			if raw.Send(pkt) != nil {
				break
			}
		}
		flood <- sent
	}()
	got := 0
	for range 10 {
		res, err := rig.Ping(t.Context(), n.b, inA, rig.PingOptions{Size: 1440 - 28})
		must(t, err)
		got += res.Received
	}
	eventually(t, "the flood arrives", func() error {
		if _, s := a.status(t); s.In.Drops["fragment_limit"] < 100000 {
			return fmt.Errorf("%+v", s.In)
		}
		return nil
	})
	stop.Store(true)
	sent := <-flood
	after := resident(t, a.cmd.Process.Pid)
	t.Logf("%d hostile fragments, %d of 10 pings meanwhile, memory %d kB before and %d kB after", sent, got, before, after)
	if after > before+16<<10 && !rig.Race {
		t.Errorf("memory grew from %d kB to %d kB", before, after)
	}
	// A kernel whose raw sockets are full (seen with Linux 6.18) sends "protocol
	// unreachable", and b reports that to the senders of some packets (RFC 2003 section 5).
	eventually(t, "nobody is told of errors any more", func() error {
		res, err := rig.Ping(t.Context(), n.b, inA, rig.PingOptions{Size: 1440 - 28})
		must(t, err)
		if res.Received != 1 || len(res.ICMP) > 0 {
			return fmt.Errorf("%+v", res)
		}
		return nil
	})
	pings(t, n.b, inA, rig.PingOptions{Size: 1440 - 28})
}

// The MSS of a SYN is reduced to what fits the tunnel, unless that is switched off. Its
// checksum is right, otherwise the receiver would not answer.
func TestMSSClamp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want uint16
	}{{"", 1400}, {"mss_clamp = false", 1460}} {
		t.Run(fmt.Sprint(c.want), func(t *testing.T) {
			h := newHosts(t, 1500)
			start(t, h.a, configA(c.line))
			start(t, h.b, configB(c.line))
			reachable(t, h.a, inB)
			in, err := h.a.Capture("six0")
			must(t, err)
			defer in.Close()
			out, err := h.b.Capture("six0")
			must(t, err)
			defer out.Close()
			for _, odd := range []bool{false, true} {
				opts := []byte{2, 4, 5, 180, 1, 1, 1, 0} // MSS 1460
				if odd {
					opts = []byte{1, 2, 4, 5, 180, 1, 1, 0}
				}
				syn := append(make([]byte, 40), opts...)
				syn[0], syn[8], syn[9] = 0x45, 64, header.TCP
				binary.BigEndian.PutUint16(syn[2:], uint16(len(syn)))
				copy(syn[12:], netip.MustParseAddr("192.168.1.10").AsSlice())
				copy(syn[16:], inB.AsSlice())
				header.IPv4(syn).SetChecksum()
				tcp := syn[20:]
				binary.BigEndian.PutUint16(tcp, 4000)
				binary.BigEndian.PutUint16(tcp[2:], 9)
				tcp[12], tcp[13] = 7<<4, 0x02
				sum := header.Sum(tcp, header.PseudoSum(syn[12:16], syn[16:20], len(tcp), header.TCP))
				binary.BigEndian.PutUint16(tcp[16:], ^sum)
				must(t, in.Inject(syn))
				f, err := out.Find(t.Context(), func(f rig.Frame) bool {
					p := f.Packet()
					return len(p) == len(syn) && p[9] == header.TCP && bytes.Equal(p[12:16], syn[12:16])
				})
				must(t, err)
				p := f.Packet()
				at := 40 + bytes.IndexByte(p[40:], 2)
				if got := binary.BigEndian.Uint16(p[at+2:]); got != c.want {
					t.Errorf("MSS %d, want %d", got, c.want)
				}
				if header.Sum(p[20:], header.PseudoSum(p[12:16], p[16:20], len(p)-20, header.TCP)) != 0xffff {
					t.Error("wrong checksum")
				}
			}
		})
	}
}

// Tunnels through tunnels: two with four layers together carry packets. A third one that
// routes lead into them waits, with the reason.
func TestNesting(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	const second = `
[[tunnel]]
name = "six1"
mode = "4in6in4"
local = "10.0.0.%d"
remote = "10.0.0.%d"
local6 = "fd00::%[1]d"
remote6 = "fd00::%[2]d"
address = ["10.1.0.%[1]d/30"]
`
	third := `
[[tunnel]]
name = "six2"
mode = "6in4"
local = "auto"
remote = "10.9.0.2"
address = ["2001:db8::1/64"]
`
	a := launch(t, h.a, configA()+fmt.Sprintf(second, 1, 2)+third)
	start(t, h.b, configB()+fmt.Sprintf(second, 2, 1))
	reachable(t, h.a, netip.MustParseAddr("10.1.0.2"))
	pings(t, h.a, netip.MustParseAddr("10.1.0.2"), rig.PingOptions{Size: 1380 - 28, DF: true})
	transfer(t, h.a, h.b, netip.MustParseAddr("10.1.0.2"), 1<<20)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.9.0.0/24"), netip.Addr{}, "six1"))
	a.wait(t, "packets would be encapsulated more than 4 times")
	must(t, h.a.DelRoute(netip.MustParsePrefix("10.9.0.0/24"), netip.Addr{}, "six1"))
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.9.0.0/24"), netip.Addr{}, "six0"))
	a.wait(t, "ready")
}
