package e2e

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// The path carries 1280 bytes, and nobody says so. Packets of 1500 bytes with DF pass in both
// directions from the first one on, also UDP and TCP beside them.
func TestReserve(t *testing.T) {
	t.Parallel()
	kind6in4 := kind{"6in4", "mode = \"6in4\"\n" + over4 + inner6, "", ip6A, ip6B, 20, nil}
	kind4in6in4 := kind{"4in6in4", "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, "", ip4A, ip4B, 60, nil}
	const reserve = "reserve = 1500\n"
	var kinds []kind
	for _, k := range []kind{kind4in6in4, kind6in4, kind4in4, kindGRE, kindStack, kind6in4.with(" through AF_XDP", "io = \"xdp\"\n")} {
		kinds = append(kinds, k.with("", reserve))
	}
	kindSEAL := kind{"seal", "mode = \"seal\"\n" + over4 + innerAB, "", bothA, bothB, 28, nil}
	for _, k := range append(kinds, kind4in4.with("", reserve).in("fou", 8), kindSEAL, kindSEAL.in("fou", 8), kindSEAL.with(" in UDP", "udp_port = 45000\nidentification = 1\n"), kindSEAL.with(" through AF_XDP", "io = \"xdp\"\n")) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n := newRouted(t)
			n.silent(t, 1280)
			a := start(t, n.a, k.atA())
			b := start(t, n.b, k.atB())
			for i, to := range k.toB {
				pings(t, n.a, to, rig.PingOptions{Size: 1500 - headersOf(to), Count: 20, Interval: 20 * time.Millisecond, DF: true})
				pings(t, n.b, k.toA[i], rig.PingOptions{Size: 1500 - headersOf(to), Count: 20, Interval: 20 * time.Millisecond, DF: true})
				ds, err := rig.UDPExchange(t.Context(), n.a, n.b, netip.AddrPortFrom(to, 5002), []int{1500 - headersOf(to), 100, 1300}, rig.UDPOptions{DF: true})
				if err != nil || rig.Intact(ds) != len(ds) {
					t.Errorf("UDP: %+v, %v", ds, err)
				}
				transfer(t, n.a, n.b, to, 1<<20)
			}
			for _, d := range []*daemon{a, b} {
				_, s := d.status(t)
				for _, r := range []string{"too_big", "fragment", "fragment_limit", "fragment_timeout", "sequence", "spoof"} {
					if n := s.In.Drops[r] + s.Out.Drops[r]; n != 0 {
						t.Errorf("%d dropped as %s", n, r)
					}
				}
			}
		})
	}
}

// silent makes both routers drop packets that are larger than mtu, without a word.
func (n routed) silent(t *testing.T, mtu int) {
	t.Helper()
	for _, ns := range []*rig.Namespace{n.r, n.s} {
		must(t, ns.DropUnreachable())
	}
	must(t, n.r.SetMTU("rs", mtu))
	must(t, n.s.SetMTU("sr", mtu))
}

// headersOf returns the length of the headers of an echo request or a datagram to an address.
func headersOf(a netip.Addr) int {
	if a.Is4() {
		return 28
	}
	return 48
}

// IPv6 packets in pieces also pass if the other end has no reserve: the host to which they go
// reassembles them, as any fragments.
func TestReserveAtOneEnd(t *testing.T) {
	t.Parallel()
	n := newRouted(t)
	n.silent(t, 1280)
	a := start(t, n.a, plainA("reserve = 1500"))
	start(t, n.b, plainB())
	reachable(t, n.a, in6B)
	capture, err := n.b.Capture("six0")
	must(t, err)
	defer capture.Close()
	ds, err := rig.UDPExchange(t.Context(), n.a, n.b, netip.AddrPortFrom(in6B, 5002), []int{1452}, rig.UDPOptions{Timeout: 300 * time.Millisecond})
	must(t, err)
	pieces := 0
	frames, err := capture.Waiting()
	must(t, err)
	for _, f := range frames {
		if p := f.Packet(); len(p) > 48 && p[6] == 44 && p[43]&2 != 0 {
			pieces++
		}
	}
	if pieces < 2 {
		t.Errorf("%d pieces arrived at the host", pieces)
	}
	if _, s := a.status(t); s.Out.Drops["too_big"] != 0 {
		t.Errorf("%+v", s.Out)
	}
	// The answer is too large for the path: b's host learns that, and sends fragments.
	eventually(t, "an answer of 1452 bytes", func() error {
		ds, err = rig.UDPExchange(t.Context(), n.a, n.b, netip.AddrPortFrom(in6B, 5002), []int{1452}, rig.UDPOptions{Timeout: 300 * time.Millisecond})
		if err == nil && rig.Intact(ds) != 1 {
			err = errors.New("none")
		}
		return err
	})
}
