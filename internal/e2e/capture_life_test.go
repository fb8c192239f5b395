package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/capture"
	"sixfour/internal/control/client"
	"sixfour/internal/pcapng"
	"sixfour/internal/rig"
)

// An inner packet that is sent in fragments is linked to each of them.
func TestCaptureFragments(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	const lines = "pmtu = \"static\"\nmtu = 3000"
	a, b := start(t, h.a, configA(lines)), start(t, h.b, configB(lines))
	reachable(t, h.a, inB)
	atA, atB := a.record(t, capture.Request{Tunnel: "six0", Filter: "icmp or ip[6:2] & 0x3fff != 0"}), b.record(t, capture.Request{Tunnel: "six0", Filter: "icmp"})
	const size = 2000
	pings(t, h.a, inB, rig.PingOptions{Count: 1, Size: size})
	inner := atA.find(t, "the request", func(p seen) bool { return p.at == "inner" && isICMP(p.Data, 8, inA) })
	eventually(t, "its fragments", func() error {
		var bytes, last int
		for _, p := range atA.packets(t) {
			if p.ID == inner.ID && p.at == "outer" {
				ip := header.IPv4(p.Data)
				if len(p.Data) > 1500 || !ip.IsFragment() || p.Direction != pcapng.Outbound {
					t.Fatalf("%+v", p)
				}
				bytes += len(ip.Payload())
				if ip.Fragment()&header.MF == 0 {
					last++
				}
			}
		}
		if bytes != header.IPv6Len+len(inner.Data) || last != 1 {
			return fmt.Errorf("%d bytes in fragments, %d of them the last, of %d", bytes, last, len(inner.Data))
		}
		return nil
	})
	arrived := atB.find(t, "what arrives", func(p seen) bool { return p.at == "inner" && isICMP(p.Data, 8, inA) })
	if outer, ok := atB.counterpart(t, arrived); !ok || len(outer.Data) != header.IPv4Len+header.IPv6Len+len(arrived.Data) {
		t.Errorf("the kernel has put together %+v", outer.Packet)
	}
}

// A capture continues when the tunnel's section changes, and ends with a reason when the
// tunnel is removed.
func TestCaptureReload(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, configA()+other("gre0", 1, 2))
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	rec := a.record(t, capture.Request{Tunnel: "six0", Filter: "ip proto 41", Sides: capture.Outer})
	seenTTL := func(ttl byte) {
		t.Helper()
		pings(t, h.a, inB, rig.PingOptions{})
		rec.find(t, fmt.Sprintf("TTL %d", ttl), func(p seen) bool { return header.IPv4(p.Data).Src() == outerA && p.Data[8] == ttl })
	}
	seenTTL(64)
	a.mustReload(t, configA("ttl = 77")+other("gre0", 1, 2)) // in place
	seenTTL(77)
	a.mustReload(t, configA("ttl = 78", "offload = \"off\"")+other("gre0", 1, 2)) // with another interface
	reachable(t, h.a, inB)
	seenTTL(78)
	a.mustReload(t, other("gre0", 1, 2))
	<-rec.done
	if rec.err == nil || !strings.Contains(rec.err.Error(), "tunnel six0 was removed") {
		t.Errorf("it ends with %v", rec.err)
	}
	c := client.New(a.socket)
	if _, err := c.Capture(t.Context(), capture.Request{Tunnel: "six0"}); err == nil || !strings.Contains(err.Error(), `there is no tunnel "six0": choose gre0`) {
		t.Error(err)
	}
}

// A reader that stops reading has no effect on packets: they are carried, and memory does
// not grow. Once the reader is disconnected, another one can capture.
func TestCaptureReaderStops(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	c := client.New(a.socket)
	before := resident(t, a.cmd.Process.Pid)
	for range capture.MaxTaps {
		stream, err := c.Capture(t.Context(), capture.Request{Tunnel: "six0"})
		must(t, err)
		defer stream.Close() // and nobody reads
	}
	if _, err := c.Capture(t.Context(), capture.Request{Tunnel: "six0"}); err == nil || !strings.Contains(err.Error(), "captures are already running") {
		t.Errorf("one more: %v", err)
	}
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	pkt := ip4(outerB, outerA, header.ProtoIPv6, ip6(in6B, in6A, header.ProtoIPv4, ip4(inB, inA, 253, make([]byte, 1000))))
	const packets = 30000 // far more than has room
	for range packets {
		must(t, raw.Send(pkt))
	}
	eventually(t, "all packets are counted", func() error {
		if s, tun := a.status(t); total(tun.In)+total(s.Stray) < packets {
			return fmt.Errorf("%d of %d", total(tun.In)+total(s.Stray), packets)
		}
		return nil
	})
	pings(t, h.a, inB, rig.PingOptions{Count: 20})
	if after := resident(t, a.cmd.Process.Pid); after > before+capture.MaxTaps*16<<10 && !rig.Race {
		t.Errorf("memory grew from %d kB to %d kB", before, after)
	}
	eventually(t, "room for another", func() error {
		stream, err := c.Capture(t.Context(), capture.Request{Tunnel: "six0", Filter: "icmp", Count: 1})
		if err == nil {
			stream.Close()
		}
		return err
	})
	pings(t, h.a, inB, rig.PingOptions{Count: 3})
}
