package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/rig"
)

// routed is a network with a link between two routers that can be narrow:
//
//	namespace a                        r             s                       namespace b
//	203.0.113.10/28 va ─── ra .1/28    rs ─────── sr     sb .17/28 ─── vb 203.0.113.20/28
//	six0 10.0.0.1/30, fc00::1/64     .33/30       .34/30         six0 10.0.0.2/30, fc00::2/64
type routed struct {
	hosts
	r, s *rig.Namespace
}

func newRouted(t *testing.T) routed {
	t.Helper()
	n := routed{hosts{newNamespace(t, "a"), newNamespace(t, "b")}, newNamespace(t, "r"), newNamespace(t, "s")}
	must(t, rig.Veth(n.a, "va", n.r, "ra", 1500))
	must(t, rig.Veth(n.r, "rs", n.s, "sr", 1500))
	must(t, rig.Veth(n.s, "sb", n.b, "vb", 1500))
	for _, l := range []struct {
		ns   *rig.Namespace
		dev  string
		addr string
	}{
		{n.a, "va", "203.0.113.10/28"}, {n.r, "ra", "203.0.113.1/28"},
		{n.r, "rs", "203.0.113.33/30"}, {n.s, "sr", "203.0.113.34/30"},
		{n.s, "sb", "203.0.113.17/28"}, {n.b, "vb", "203.0.113.20/28"},
	} {
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.addr)))
		must(t, l.ns.LinkUp(l.dev))
	}
	for _, l := range []struct {
		ns       *rig.Namespace
		via, dev string
	}{{n.a, "203.0.113.1", "va"}, {n.r, "203.0.113.34", "rs"}, {n.s, "203.0.113.33", "sr"}, {n.b, "203.0.113.17", "vb"}} {
		must(t, l.ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(l.via), l.dev))
	}
	must(t, n.r.Forward())
	must(t, n.s.Forward())
	return n
}

// resolveNeighbours makes all hosts resolve their neighbours, so that a flood does not overload
// ARP.
func (n routed) resolveNeighbours(t *testing.T) {
	t.Helper()
	for _, l := range []struct {
		ns, other       *rig.Namespace
		dev, peer, addr string
	}{
		{n.a, n.r, "va", "ra", "203.0.113.1"}, {n.r, n.a, "ra", "va", "203.0.113.10"},
		{n.r, n.s, "rs", "sr", "203.0.113.34"}, {n.s, n.r, "sr", "rs", "203.0.113.33"},
		{n.s, n.b, "sb", "vb", "203.0.113.20"}, {n.b, n.s, "vb", "sb", "203.0.113.17"},
	} {
		mac, err := l.other.MAC(l.peer)
		must(t, err)
		must(t, l.ns.AddNeighbour(l.dev, netip.MustParseAddr(l.addr), mac))
	}
}

// narrow sets the MTU of the link between the routers, which report it by ICMP.
func (n routed) narrow(t *testing.T, mtu int) {
	t.Helper()
	must(t, n.r.SetMTU("rs", mtu))
	must(t, n.s.SetMTU("sr", mtu))
}

// dropLarge makes the far end of that link drop larger packets without an ICMP error to a.
// (The kernel accepts four bytes more than the MTU.)
func (n routed) dropLarge(t *testing.T, mtu int) {
	t.Helper()
	must(t, n.r.SetMTU("rs", 1500))
	must(t, n.s.SetMTU("sr", mtu-4))
}

// pathMTU waits until a daemon has this path MTU, from this source.
func (d *daemon) pathMTU(t *testing.T, want int, by string) {
	t.Helper()
	eventually(t, fmt.Sprintf("path MTU %d by %s", want, by), func() error {
		if _, s := d.status(t); s.State.PathMTU != want || s.State.PathMTUBy != by {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// ends are the tunnel of one mode between a and b.
type ends struct {
	mode   string
	a, b   func(...string) string
	toA    netip.Addr
	toB    netip.Addr
	over   int // what the mode adds to an inner packet
	header int // of an echo request
}

var modes = []ends{
	{"4in6in4", configA, configB, inA, inB, 60, 28},
	{"6in4", plainA, plainB, in6A, in6B, 20, 48},
	{"4in6in4 through AF_XDP", xdp(configA), xdp(configB), inA, inB, 60, 28},
}

// xdp is a configuration whose packets leave and arrive through AF_XDP.
func xdp(config func(...string) string) func(...string) string {
	return func(lines ...string) string { return config(append(lines, `io = "xdp"`)...) }
}

// waitTooBig sends large packets until the sender learns an MTU, by ICMP, or, if it has learnt it
// before, from its own kernel.
func waitTooBig(t *testing.T, from *rig.Namespace, to netip.Addr, size, mtu int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the sender is told of an MTU of %d", mtu), func() error {
		res, err := rig.Ping(t.Context(), from, to, rig.PingOptions{Size: size, DF: true, Timeout: 300 * time.Millisecond})
		must(t, err)
		for _, e := range res.ICMP {
			if e.MTU == mtu {
				return nil
			}
		}
		for _, e := range res.Errors {
			if errors.Is(e, unix.EMSGSIZE) {
				return nil
			}
		}
		return fmt.Errorf("%+v", res)
	})
}

// answered waits until the peer has answered the two probes of a round: from then on probes
// decide, not routers.
func (d *daemon) answered(t *testing.T) {
	t.Helper()
	eventually(t, "the peer answers probes", func() error {
		if _, s := d.status(t); s.Probes.Answered < 2 {
			return fmt.Errorf("%+v", s.Probes)
		}
		return nil
	})
}

// A router on the path reports its narrow link: the sender of a large packet that must not
// be fragmented learns which size fits; then everything passes.
func TestPathMTULearnt(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(m.mode, func(t *testing.T) {
			n := newRouted(t)
			n.narrow(t, 1400)
			a := start(t, n.a, m.a())
			b := start(t, n.b, m.b())
			reachable(t, n.a, m.toB)
			waitTooBig(t, n.a, m.toB, 1500-m.over-m.header, 1400-m.over)
			a.pathMTU(t, 1400, "icmp")
			pings(t, n.a, m.toB, rig.PingOptions{Size: 1400 - m.over - m.header, DF: true})
			transfer(t, n.a, n.b, m.toB, 20<<20)
			transfer(t, n.b, n.a, m.toA, 20<<20)
			waitTooBig(t, n.b, m.toA, 1500-m.over-m.header, 1400-m.over)
			pings(t, n.a, m.toB, rig.PingOptions{Size: 4000})
			b.pathMTU(t, 1400, "icmp")
			_, s := a.status(t)
			if s.State.TunnelMTU != 1500-m.over {
				t.Errorf("the interface's MTU is %d", s.State.TunnelMTU)
			}
			if s.ICMP.Received == 0 || s.ICMP.Ignored != 0 || s.ICMP.Sent == 0 {
				t.Errorf("%+v", s.ICMP)
			}
		})
	}
}

// No router reports the narrow link. It appears during a transfer, which continues; then
// the path MTU is known exactly.
func TestBlackHole(t *testing.T) {
	for _, m := range modes {
		t.Run(m.mode, func(t *testing.T) {
			n := newRouted(t)
			a := start(t, n.a, m.a())
			start(t, n.b, m.b())
			reachable(t, n.a, m.toB)
			transfer(t, n.a, n.b, m.toB, 5<<20)
			done := make(chan struct{})
			go func() {
				defer close(done)
				transfer(t, n.a, n.b, m.toB, 400<<20)
			}()
			time.Sleep(300 * time.Millisecond)
			n.dropLarge(t, 1404)
			// The answers of b come back over a path of 1400.
			eventually(t, "the path MTU is found by probes", func() error {
				if _, s := a.status(t); s.State.PathMTU < 1400 || s.State.PathMTU > 1404 || s.State.PathMTUBy != "probe" || s.Probes.Answered == 0 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			<-done
			pings(t, n.a, m.toB, rig.PingOptions{Size: 1400 - m.over - m.header, DF: true})
		})
	}
}

// router is a host on the path that has seen a packet of a, of 1488 bytes, and can send
// errors about it to a.
func (n routed) router(t *testing.T) (seen []byte, say func(typ, code byte, mtu uint32, quote []byte)) {
	t.Helper()
	capture, err := n.r.Capture("ra")
	must(t, err)
	defer capture.Close()
	pings(t, n.a, inB, rig.PingOptions{Size: 1400, DF: true})
	frame, err := capture.Find(t.Context(), func(f rig.Frame) bool {
		p := f.Packet()
		return len(p) == 1488 && p[9] == header.ProtoIPv6 && netip.AddrFrom4([4]byte(p[12:16])) == outerA
	})
	must(t, err)
	raw, err := n.r.OpenRaw()
	must(t, err)
	t.Cleanup(func() { raw.Close() })
	return frame.Packet(), func(typ, code byte, mtu uint32, quote []byte) {
		msg := icmp.Append(nil, typ, code, mtu, quote, nil)
		pkt := make([]byte, header.IPv4Len, header.IPv4Len+len(msg))
		pkt[0], pkt[8], pkt[9] = 0x45, 60, header.ICMP
		binary.BigEndian.PutUint16(pkt[2:], uint16(header.IPv4Len+len(msg)))
		copy(pkt[12:], []byte{198, 51, 100, 7})
		copy(pkt[16:], outerA.AsSlice())
		header.IPv4(pkt).SetChecksum()
		must(t, raw.Send(append(pkt, msg...)))
	}
}

// A flood of errors about packets that a has sent: the tunnel continues, memory does not
// grow, and inner senders get ten errors a second.
func TestErrorFlood(t *testing.T) {
	n := newRouted(t)
	n.resolveNeighbours(t)
	a := start(t, n.a, configA())
	start(t, n.b, configB())
	reachable(t, n.a, inB)
	a.answered(t)
	seen, say := n.router(t)
	before, began := resident(t, a.cmd.Process.Pid), time.Now()
	lost := 0
	for round := range 20 {
		for i := range 5000 {
			switch i % 4 {
			case 0:
				say(icmp.Unreachable4, 1, 0, seen)
			case 1:
				say(icmp.Unreachable4, 1, 0, seen[:28])
			case 2:
				say(icmp.Unreachable4, icmp.FragNeeded, uint32(68+i%1400), seen)
			case 3:
				say(icmp.Unreachable4, icmp.FragNeeded, uint32(i), seen[:60])
			}
		}
		res, err := rig.Ping(t.Context(), n.a, inB, rig.PingOptions{Size: 100 + round})
		must(t, err)
		lost += 1 - res.Received
	}
	// While an error waits for a packet, these packets are not tunnel packets.
	inner, err := n.a.Capture("six0")
	must(t, err)
	defer inner.Close()
	for _, runt := range [][]byte{{0x45}, {0x60, 0, 0, 0}, make([]byte, 19), append([]byte{0x4f}, make([]byte, 19)...), append([]byte{0x50}, make([]byte, 60)...)} {
		say(icmp.Unreachable4, 1, 0, seen[:28])
		_ = inner.Inject(runt) // the kernel may refuse it, too
	}
	after := resident(t, a.cmd.Process.Pid)
	_, s := a.status(t)
	t.Logf("%+v, %+v, %d of 20 pings lost, memory %d kB before and %d kB after", s.ICMP, s.State, lost, before, after)
	if most := 10 + 10*uint64(time.Since(began)/time.Second+1); s.ICMP.Sent > 2*most || s.ICMP.Limited == 0 {
		t.Errorf("%d errors sent, at most %d may be", s.ICMP.Sent, most)
	}
	if after > before+24<<10 && !rig.Race { // the garbage between two collections
		t.Errorf("memory grew from %d kB to %d kB", before, after)
	}
	pings(t, n.a, inB, rig.PingOptions{Size: 4000})
	a.pathMTU(t, 1500, "route") // when the probes have shown that all the errors were false
}

// Errors that are not about our packets, or that are false, change nothing.
func TestForgedErrors(t *testing.T) {
	t.Parallel()
	n := newRouted(t)
	a := start(t, n.a, configA())
	b := start(t, n.b, configB())
	reachable(t, n.a, inB)
	a.answered(t)
	real, say := n.router(t)
	edit := func(change func(b []byte)) []byte {
		b := append([]byte(nil), real...)
		change(b)
		header.IPv4(b).SetChecksum()
		return b
	}
	lies := []struct {
		name  string
		mtu   uint32
		quote []byte
	}{
		{"identification", 1300, edit(func(b []byte) { b[5] = 1 })},
		{"DF clear", 1300, edit(func(b []byte) { b[6] = 0 })},
		{"source", 1300, edit(func(b []byte) { b[15] = 11 })},
		{"destination", 1300, edit(func(b []byte) { b[19] = 99 })},
		{"protocol", 1300, edit(func(b []byte) { b[9] = 4 })},
		{"length", 1300, edit(func(b []byte) { b[3]-- })},
		{"inner length", 1300, edit(func(b []byte) { b[25]-- })},
		{"inner version", 1300, edit(func(b []byte) { b[60] = 0x65 })},
		{"options", 1300, edit(func(b []byte) { b[0] = 0x46 })},
		{"MTU not less than the packet", 1488, real},
		{"MTU of 67", 67, real},
		{"MTU of 65535", 65535, real},
		{"truncated quote", 1300, real[:27]},
		{"no quote", 1300, nil},
		{"a true quote", 1300, real}, // which the probes show to be false
		{"a short true quote", 1300, real[:28]},
	}
	for _, l := range lies {
		say(icmp.Unreachable4, icmp.FragNeeded, l.mtu, l.quote)
		pings(t, n.a, inB, rig.PingOptions{Size: 1440 - 28, DF: true, Count: 1})
		if _, s := a.status(t); s.State.PathMTU != 1500 {
			t.Errorf("%s: path MTU %d", l.name, s.State.PathMTU)
		}
	}
	// Unreachable: the inner sender gets an error only if the quoted packet is a real one.
	for _, l := range lies[:9] {
		say(icmp.Unreachable4, 1, 0, l.quote)
	}
	pings(t, n.a, inB, rig.PingOptions{Count: 5})
	if _, s := a.status(t); s.ICMP.Sent != 0 || s.ICMP.Ignored == 0 {
		t.Errorf("%+v", s.ICMP)
	}
	say(icmp.Unreachable4, 1, 0, real)
	eventually(t, "one error to the inner sender", func() error {
		if _, s := a.status(t); s.ICMP.Sent != 1 {
			return fmt.Errorf("%+v", s.ICMP)
		}
		return nil
	})
	// If the peer answers no probes, an error with a real quoted packet is believed.
	b.end(t, syscall.SIGKILL)
	eventually(t, "an error that cannot be verified is believed", func() error {
		say(icmp.Unreachable4, icmp.FragNeeded, 1300, real)
		if _, s := a.status(t); s.State.PathMTU != 1300 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// The peer's host is gone: the inner sender gets one error for each error of the router in
// front of the peer.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(m.mode, func(t *testing.T) {
			n := newRouted(t)
			start(t, n.a, m.a())
			start(t, n.b, m.b())
			reachable(t, n.a, m.toB)
			must(t, n.b.LinkDown("vb"))
			eventually(t, "the inner sender is told", func() error {
				res, err := rig.Ping(t.Context(), n.a, m.toB, rig.PingOptions{Size: 500, Count: 3, Timeout: 2 * time.Second})
				must(t, err)
				for _, e := range res.ICMP {
					if m.toB.Is4() && e.Type == 3 && e.Code == 1 || m.toB.Is6() && e.Type == 1 && e.Code == 3 {
						return nil
					}
				}
				return fmt.Errorf("%+v", res)
			})
		})
	}
}
