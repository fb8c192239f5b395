package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// TestReplacedUnderTraffic replaces the path and its tables under traffic, again and
// again. No packet is reordered, and each packet that does not arrive is counted by the
// daemon, by an interface, or by the receiving socket: a busy machine may overrun a queue,
// but a replaced path loses nothing.
func TestReplacedUnderTraffic(t *testing.T) {
	rate := 5000 // packets per second
	if rig.Race {
		rate = 2000
	}
	for _, io := range []string{"socket", "xdp"} {
		t.Run(io, func(t *testing.T) {
			h := newHosts(t, 1500)
			a := start(t, h.a, configA(`io = "`+io+`"`, `queues = 1`))
			b := start(t, h.b, configB(`queues = 1`))
			reachable(t, h.a, inB)
			eventually(t, "packets leave by "+io, func() error {
				if _, s := a.status(t); s.State.IO != io {
					return fmt.Errorf("by %s", s.State.IO)
				}
				return nil
			})
			before := readLosses(t, h, a, b)
			done := make(chan rig.LoadResult)
			go func() {
				defer close(done)
				r, err := rig.Load(t.Context(), h.a, h.b, netip.AddrPortFrom(inB, 5000),
					rig.LoadOptions{UDP: true, Duration: 3 * time.Second, Size: 200, Rate: rate, Drain: 2 * time.Second})
				if err != nil {
					t.Error(err)
				}
				done <- r
			}()
			replaced := 0
			for r, ended := (rig.LoadResult{}), false; !ended; {
				select {
				case r = <-done:
					ended = true
					after := readLosses(t, h, a, b)
					after.check(t, before, r)
				default:
					replacePath(t, h, a, 1400+replaced%2*100)
					replaced++
				}
			}
			if replaced < 5 {
				t.Errorf("the path was replaced %d times under traffic, which shows nothing", replaced)
			}
		})
	}
}

// replacePath changes the MTU of the link between the hosts, and waits until the daemon of
// a has another path MTU. Which one depends on the probes that arrive.
func replacePath(t *testing.T, h hosts, a *daemon, mtu int) {
	t.Helper()
	_, before := a.status(t)
	// a never sends packets that are too large for vb.
	if mtu > before.State.PathMTU {
		must(t, h.b.SetMTU("vb", mtu))
		must(t, h.a.SetMTU("va", mtu))
	} else {
		must(t, h.a.SetMTU("va", mtu))
		must(t, h.b.SetMTU("vb", mtu))
	}
	eventually(t, fmt.Sprintf("another path MTU than %d", before.State.PathMTU), func() error {
		if _, s := a.status(t); s.State.PathMTU == before.State.PathMTU {
			return errors.New("it is the same")
		}
		return nil
	})
}

// losses are the counters of all places between two hosts where a packet from a to b can
// be lost, except for the receiving socket of the test.
type losses struct {
	out    map[string]uint64 // by reason: in the daemon of a, and in the queue of its interface
	in     map[string]uint64 // by reason: in the daemon of b, and in the queue of its socket
	link   uint64            // packets that the link between the hosts did not take
	others uint64            // packets of the daemons' own that left a: not losses, but each of them can be one
}

// readLosses reads the counters.
func readLosses(t *testing.T, h hosts, a, b *daemon) losses {
	t.Helper()
	_, out := a.status(t)
	all, in := b.status(t)
	l := losses{out: out.Out.Drops, in: map[string]uint64{}}
	for _, drops := range []map[string]uint64{in.In.Drops, all.Stray.Drops} {
		for reason, n := range drops {
			l.in[reason] += n
		}
	}
	va, err := h.a.Handle().LinkByName("va")
	must(t, err)
	l.link = va.Attrs().Statistics.TxDropped
	// An answer of the daemon of a to a probe that is larger than the path has become is
	// counted as too_big.
	l.others = out.Probes.Sent + out.Liveness.Sent + out.Answered + l.out["too_big"]
	return l
}

// check compares what the counters have grown by with what a load has lost.
func (l losses) check(t *testing.T, before losses, r rig.LoadResult) {
	t.Helper()
	counted := uint64(r.Overrun) + l.link - before.link
	add := func(now, before map[string]uint64, usual ...string) {
		for reason, n := range now {
			switch grown := n - before[reason]; {
			case grown == 0 || reason == "too_big": // no packet of the load is too big
			case slices.Contains(usual, reason):
				counted += grown
			default:
				t.Errorf("%d packets dropped as %s", grown, reason)
			}
		}
	}
	add(l.out, before.out, "no_room", "no_buffer")
	add(l.in, before.in, "no_room")
	lost, others := uint64(r.Lost()), l.others-before.others
	if lost > counted || counted > lost+others {
		t.Errorf("%d packets lost, %d counted, and %d of the daemons' own sent", lost, counted, others)
	}
	if lost > 0 || t.Failed() {
		t.Logf("load: %+v; before: %+v; after: %+v", r, before, l)
	}
	if r.Reordered != 0 || r.Received < 1000 {
		t.Errorf("%+v", r)
	}
}

// An interface that loses its offloads under traffic, and gets them back, still carries
// packets.
func TestOffloadsComeAndGo(t *testing.T) {
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA()), start(t, h.b, configB())
	reachable(t, h.a, inB)
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := range 20 {
			for _, ns := range []*rig.Namespace{h.a, h.b} {
				for _, feature := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
					if err := ns.Ethtool("six0", feature, uint32(i%2)); err != nil {
						t.Error(err)
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for range 3 {
		transfer(t, h.a, h.b, inB, 50<<20)
	}
	<-done
	for _, d := range []*daemon{a, b} {
		_, s := d.status(t)
		delete(s.Out.Drops, "no_room") // TCP without segmentation offload may fill the interface's queue
		if len(s.In.Drops)+len(s.Out.Drops) > 0 {
			t.Errorf("drops: %+v %+v", s.In, s.Out)
		}
	}
}

// An uplink that is slower than the sender loses packets under one reason, and not under
// others.
func TestUplinkFull(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	must(t, h.a.Throttle("va", 1<<20, 5000, 5000))
	r, err := rig.Load(t.Context(), h.a, h.b, netip.AddrPortFrom(inB, 5000), rig.LoadOptions{UDP: true, Duration: time.Second, Size: 200})
	must(t, err)
	if r.Received == 0 {
		t.Error("nothing arrived")
	}
	_, s := a.status(t)
	delete(s.Out.Drops, "no_room") // the sender is faster than the daemon, too
	if s.Out.Drops["no_buffer"] == 0 || len(s.Out.Drops) != 1 {
		t.Errorf("drops: %v, want no_buffer alone", s.Out.Drops)
	}
	reachable(t, h.a, inB) // as soon as the queue has room
}

// A slow uplink delays the daemon: the socket's buffer is full again and again, and what
// the daemon has read is sent when there is room.
func TestUplinkSlow(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	must(t, h.a.Throttle("va", 1<<20, 5000, 100<<20))
	r, err := rig.Load(t.Context(), h.a, h.b, netip.AddrPortFrom(inB, 5000), rig.LoadOptions{UDP: true, Duration: time.Second, Size: 200})
	must(t, err)
	if r.Received < 1000 || r.Reordered > 0 {
		t.Errorf("%+v", r)
	}
	_, s := a.status(t)
	delete(s.Out.Drops, "no_room") // while the daemon waits, the interface's queue fills
	if len(s.Out.Drops) > 0 {
		t.Errorf("drops: %v", s.Out.Drops)
	}
	reachable(t, h.a, inB)
}

// Many tunnels in one daemon: each carries packets, memory is bounded, and nothing is left
// behind.
func TestManyTunnels(t *testing.T) {
	const n, mostKiB = 500, 200 << 10
	h := newHosts(t, 1500)
	var a, b strings.Builder
	for i := range n {
		remote := netip.AddrFrom4([4]byte{203, 0, 113, 20})
		if i > 0 {
			remote = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) // nobody is there
		}
		fmt.Fprintf(&a, "[[tunnel]]\nname = \"t%d\"\nmode = \"6in4\"\nlocal = \"203.0.113.10\"\nremote = \"%v\"\naddress = [\"fd00:%x::1/64\"]\n", i, remote, i)
	}
	b.WriteString("[[tunnel]]\nname = \"t0\"\nmode = \"6in4\"\nlocal = \"203.0.113.20\"\nremote = \"203.0.113.10\"\naddress = [\"fd00:0::2/64\"]\n")
	must(t, h.a.AddRoute(netip.MustParsePrefix("198.18.0.0/15"), outerB, ""))
	start(t, h.b, b.String())
	d := start(t, h.a, a.String())
	reachable(t, h.a, netip.MustParseAddr("fd00:0::2"))
	transfer(t, h.a, h.b, netip.MustParseAddr("fd00:0::2"), 20<<20)
	if kib := resident(t, d.cmd.Process.Pid); kib > mostKiB && !rig.Race {
		t.Errorf("%d KiB resident with %d tunnels, more than %d", kib, n, mostKiB)
	}
	d.end(t, syscall.SIGTERM)
	if left := leftovers(t, h.a); len(left) > 0 {
		t.Errorf("%d things stayed behind: %v", len(left), left[:1])
	}
}

// Two daemons on one host, each with its own tunnels, and another host with one daemon and
// two tunnels at one address.
func TestTwoDaemonsOnOneHost(t *testing.T) {
	h := newHosts(t, 1500)
	second := netip.MustParseAddr("203.0.113.11")
	must(t, h.a.AddAddr("va", netip.PrefixFrom(second, 24)))
	other := `[[tunnel]]
name = "%s"
mode = "4in6in4"
local = "%l"
remote = "%r"
local6 = "fc01::%s6"
remote6 = "fc01::%r6"
address = ["10.0.1.%s4/30"]
io = "xdp"
`
	fill := func(pairs ...string) string {
		s := other
		for i := 0; i < len(pairs); i += 2 {
			s = replaceAll(s, pairs[i], pairs[i+1])
		}
		return s
	}
	// b first: probes that arrive before their tunnel exists belong to no tunnel.
	b := start(t, h.b, configB(`io = "xdp"`)+fill("%l", "203.0.113.20", "%r6", "1", "%r", "203.0.113.11", "%s6", "2", "%s4", "2", "%s", "six1"))
	start(t, h.a, configA(`io = "xdp"`)) // a device serves only one process in this way
	start(t, h.a, fill("%l", "203.0.113.11", "%r6", "2", "%r", "203.0.113.20", "%s6", "1", "%s4", "1", "%s", "six1"))
	pings(t, h.a, inB, rig.PingOptions{Count: 20})
	pings(t, h.a, netip.MustParseAddr("10.0.1.2"), rig.PingOptions{Count: 20})
	transfer(t, h.b, h.a, netip.MustParseAddr("10.0.1.1"), 1<<20)
	s, _ := b.status(t)
	if len(s.Tunnels) != 2 || len(s.Stray.Drops) != 0 {
		t.Errorf("%+v", s)
	}
}

// A card that aggregates TCP segments hands a raw socket packets of up to 64 KB
// without a checksum (GRO). They must get through, not be lost or cut.
func TestAggregatedByGRO(t *testing.T) {
	h := newHosts(t, 1500)
	enableGRO(t, h)
	start(t, h.a, plainA())
	b := start(t, h.b, plainB())
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	transfer(t, h.a, h.b, in6B, 20<<20)
	frames, err := wire.Waiting()
	must(t, err)
	large := 0
	for _, f := range frames {
		if len(f.Packet()) > 1500 {
			large++
		}
	}
	if large == 0 {
		t.Errorf("none of %d frames was aggregated: the test tests nothing", len(frames))
	}
	if _, s := b.status(t); len(s.In.Drops) > 0 {
		t.Errorf("drops: %+v", s.In)
	}
}
