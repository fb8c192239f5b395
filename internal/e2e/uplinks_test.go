package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// newProviders is newUplinks with a provider on each of the two uplinks.
func newProviders(t *testing.T) (h hosts, providers [2]*rig.Provider) {
	t.Helper()
	h = hosts{newNamespace(t, "a"), newNamespace(t, "b")}
	for i, link := range []struct {
		a, b         string
		addrA, addrB netip.Addr
	}{
		{"va", "vb", outerA, outerB},
		{"wa", "wb", netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("198.51.100.20")},
	} {
		p, err := rig.Through(h.a, link.a, h.b, link.b, 1500)
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		must(t, h.a.AddAddr(link.a, netip.PrefixFrom(link.addrA, 24)))
		must(t, h.b.AddAddr(link.b, netip.PrefixFrom(link.addrB, 24)))
		providers[i] = p
	}
	return h, providers
}

// With select = "fastest", packets use the path that has become the faster one, for both
// directions each end decides for itself, and no packet is lost when they change.
func TestFastestFollowsDelay(t *testing.T) {
	t.Parallel()
	h, p := newProviders(t)
	lines := func(self, other int) string {
		return "select = \"fastest\"\nkeepalive = \"1s\"\n" + secondUplink(self, other)
	}
	const slow = 25 * time.Millisecond
	p[1].Delay(slow)
	a, b := start(t, h.a, configA(lines(1, 2))), start(t, h.b, configB(lines(2, 1)))
	a.bothAnswer(t)
	b.bothAnswer(t)

	counted := readLosses(t, h, a, b)
	end := h.load(t, inB, 500, 35*time.Second)
	p[0].Delay(3 * slow)
	a.usesPath(t, 1, api.Up, api.Up)
	b.usesPath(t, 1, api.Up, api.Up)
	// They are averages: an answer may have come back by the other path, before the change.
	eventually(t, "the round-trip times are those of the paths", func() error {
		_, s := a.status(t)
		if first, second := s.Paths[0].Liveness.RTT, s.Paths[1].Liveness.RTT; second < (2*slow).Seconds() || first < second {
			return fmt.Errorf("%v s and %v s", first, second)
		}
		return nil
	})
	p[0].Delay(0)
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	_, s := a.status(t)
	if why := s.Paths[1].Why; why != "not clearly faster than path 1" {
		t.Errorf("the second path is not used, because %s", why)
	}
	checkPlanned(t, end(), counted, readLosses(t, h, a, b))
}

// The paths have different MTUs. That of the interface fits each encapsulation over the first
// hop with the largest MTU. TCP passes by each path, also if packets are too large for it
// somewhere in the network, and the provider does not report that.
func TestPathsOfDifferentMTU(t *testing.T) {
	t.Parallel()
	h, p := newProviders(t)
	for _, end := range []struct {
		ns  *rig.Namespace
		dev string
	}{{h.a, "wa"}, {h.b, "wb"}} {
		must(t, end.ns.SetMTU(end.dev, 1400))
	}
	const narrow = 1300
	p[1].Drop(func(packet []byte) bool { return len(packet) > narrow })
	lines := func(self, other int) string { return secondUplink(self, other) + "encap = \"fou\"\n" }
	a, b := start(t, h.a, configA(lines(1, 2))), start(t, h.b, configB(lines(2, 1)))
	a.bothAnswer(t)
	b.bothAnswer(t)
	_, s := a.status(t)
	const overhead = header.IPv4Len + header.UDPLen + header.IPv6Len
	if s.State.TunnelMTU != 1500-overhead || s.Paths[0].State.PathMTU != 1500 {
		t.Errorf("the interface has an MTU of %d, and the first path one of %d", s.State.TunnelMTU, s.Paths[0].State.PathMTU)
	}
	transfer(t, h.a, h.b, inB, 1<<20)

	p[0].Drop(func(packet []byte) bool { return true })
	a.usesPath(t, 1, notUp, api.Up)
	b.usesPath(t, 1, notUp, api.Up)
	transfer(t, h.a, h.b, inB, 1<<20)
	_, s = a.status(t)
	if mtu := s.Paths[1].State.PathMTU; mtu > narrow || mtu < narrow-overhead {
		t.Errorf("the second path has an MTU of %d", mtu)
	}
	p[0].Drop(nil)
	a.usesPath(t, 0, api.Up, api.Up)
	transfer(t, h.a, h.b, inB, 1<<20)
	if _, s := a.status(t); s.Paths[0].State.PathMTU != 1500 {
		t.Errorf("the first path has an MTU of %d", s.Paths[0].State.PathMTU)
	}
}

// With select = "balance", a path fails silently: only its flows lose packets, until they move
// to the other path. When it works again, only such flows return to it, and no packet is lost.
func TestBalanceMovesOnlyFlowsOfFailedPath(t *testing.T) {
	t.Parallel()
	h, p := newProviders(t)
	lines := func(self, other int) string { return "select = \"balance\"\n" + secondUplink(self, other) }
	a, b := start(t, h.a, configA(lines(1, 2))), start(t, h.b, configB(lines(2, 1)))
	for _, d := range []*daemon{a, b} {
		d.usesBoth(t)
	}
	flows := newFlows(t, h, 24)
	var mu sync.Mutex
	var second map[uint16]bool // source ports of packets on the second path
	watch := func(drop bool) {
		mu.Lock()
		second = map[uint16]bool{}
		mu.Unlock()
		p[1].Drop(func(packet []byte) bool {
			if port, ok := innerPort(packet); ok {
				mu.Lock()
				second[port] = true
				mu.Unlock()
			}
			return drop
		})
	}
	watched := func() map[uint16]bool {
		mu.Lock()
		defer mu.Unlock()
		return second
	}
	// settled sends packets of all flows until none of them is lost.
	settled := func() {
		t.Helper()
		eventually(t, "packets of all flows arrive", func() error {
			if lost := flows.send(t); len(lost) > 0 {
				return fmt.Errorf("packets of flows %v are lost", lost)
			}
			return nil
		})
	}
	settled()
	watch(false)
	settled()
	before := watched()
	if n := len(before); n == 0 || n == flows.n {
		t.Fatalf("%d of %d flows use the second path", n, flows.n)
	}

	watch(true)
	var moved int
	eventually(t, "the flows of the second path move", func() error {
		lost := flows.send(t)
		for _, port := range lost {
			if !before[port] {
				t.Errorf("a packet of a flow of the first path is lost: port %d", port)
			}
		}
		moved = max(moved, len(lost))
		if len(lost) > 0 {
			return fmt.Errorf("packets of %d flows are lost", len(lost))
		}
		return nil
	})
	if moved == 0 {
		t.Error("no packet was lost")
	}

	watch(false)
	b.usesBoth(t)
	eventually(t, "the path is used again", func() error {
		if lost := flows.send(t); len(lost) > 0 {
			t.Errorf("packets of flows %v are lost on the way back", lost)
		}
		if _, s := a.status(t); !s.Paths[0].Used || !s.Paths[1].Used {
			return fmt.Errorf("%+v", s.Paths)
		}
		return nil
	})
	watch(false)
	if lost := flows.send(t); len(lost) > 0 {
		t.Errorf("packets of flows %v are lost", lost)
	}
	after := watched()
	if len(after) == 0 { // fewer than before while its recent loss counts
		t.Error("no flow uses the second path")
	}
	for port := range after {
		if !before[port] {
			t.Errorf("the flow of port %d, which did not use the second path before, does now", port)
		}
	}
}

// usesBoth waits until packets use both paths, on which the peer has answered.
func (d *daemon) usesBoth(t *testing.T) {
	t.Helper()
	eventually(t, "packets use both paths", func() error {
		_, s := d.status(t)
		for _, p := range s.Paths {
			if !p.Used || p.Liveness.RTT == 0 {
				return fmt.Errorf("%+v", s.Paths)
			}
		}
		return nil
	})
}

// innerPort returns the source port of a UDP packet from a to b in a packet of mode 4in6in4.
func innerPort(packet []byte) (uint16, bool) {
	if len(packet) < 2*header.IPv4Len+header.IPv6Len+header.UDPLen || header.IPv4(packet).Protocol() != header.ProtoIPv6 {
		return 0, false
	}
	inner := header.IPv4(packet[header.IPv4Len+header.IPv6Len:])
	if header.Version(inner) != 4 || inner.Protocol() != header.UDP || inner.Src() != inA {
		return 0, false
	}
	return binary.BigEndian.Uint16(inner.Payload()), true
}

// flows are UDP flows from a to b.
type flows struct {
	n     int
	from  []*net.UDPConn
	to    *net.UDPConn
	round uint32
}

// newFlows returns a number of flows, each with another source port.
func newFlows(t *testing.T, h hosts, n int) *flows {
	t.Helper()
	f := &flows{n: n}
	var err error
	f.to, err = h.b.ListenUDP(netip.AddrPortFrom(inB, 0))
	must(t, err)
	t.Cleanup(func() { f.to.Close() })
	for range n {
		c, err := h.a.ListenUDP(netip.AddrPortFrom(inA, 0))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		f.from = append(f.from, c)
	}
	return f
}

// send sends a packet of each flow, and returns the source ports of those that do not arrive.
func (f *flows) send(t *testing.T) (lost []uint16) {
	t.Helper()
	f.round++
	waiting := map[uint16]bool{}
	b := binary.BigEndian.AppendUint32(nil, f.round)
	for _, c := range f.from {
		waiting[c.LocalAddr().(*net.UDPAddr).AddrPort().Port()] = true
		_, err := c.WriteTo(b, f.to.LocalAddr())
		must(t, err)
	}
	must(t, f.to.SetReadDeadline(time.Now().Add(2*time.Second)))
	for len(waiting) > 0 {
		_, from, err := f.to.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		must(t, err)
		if binary.BigEndian.Uint32(b) == f.round {
			delete(waiting, from.Port())
		}
	}
	return slices.Collect(maps.Keys(waiting))
}
