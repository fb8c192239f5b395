package kernel_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
	"sixfour/transport/wiretest"
	"sixfour/tun"
)

// end is one end of a tunnel: an interface with the programs, in a namespace with eth0.
type end struct {
	ns      *rig.Namespace
	dev     *tun.Device
	tunnel  int // index of the interface
	device  int // index of eth0
	program *kernel.Programs
}

// newEnd makes the interface six0, and attaches the programs to it and to eth0.
func newEnd(t testing.TB, ns *rig.Namespace, s tun.Settings, load func(t testing.TB, tunnel int) *kernel.Programs) *end {
	t.Helper()
	e := &end{ns: ns}
	s.Name, s.Queues = "six0", 1
	rigtest.Must(t, ns.Do(func() (err error) {
		e.dev, err = tun.Open(s)
		return err
	}))
	t.Cleanup(func() { e.dev.Close() })
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/six0/addr_gen_mode", "1")) // the kernel sends nothing itself
	rigtest.Must(t, ns.LinkUp("six0"))
	e.tunnel, e.device = index(t, ns, "six0"), index(t, ns, "eth0")
	e.program = load(t, e.tunnel)
	rigtest.Must(t, ns.Do(func() error {
		out, err := e.program.AttachTunnel(e.tunnel)
		if err != nil {
			return err
		}
		t.Cleanup(func() { rigtest.Must(t, out.Close()) })
		in, err := e.program.AttachDevice(e.device)
		if err != nil {
			return err
		}
		t.Cleanup(func() { rigtest.Must(t, in.Close()) })
		return nil
	}))
	return e
}

func index(t testing.TB, ns *rig.Namespace, dev string) int {
	t.Helper()
	l, err := ns.Handle().LinkByName(dev)
	rigtest.Must(t, err)
	return l.Attrs().Index
}

// neighbours makes the hardware addresses of the two namespaces known to each other for good.
func neighbours(t testing.TB, a, b *rig.Namespace, e wiretest.Ends) (macA, macB net.HardwareAddr) {
	t.Helper()
	macA, err := a.MAC("eth0")
	rigtest.Must(t, err)
	macB, err = b.MAC("eth0")
	rigtest.Must(t, err)
	rigtest.Must(t, a.AddNeighbour("eth0", e.Right, macB))
	rigtest.Must(t, b.AddNeighbour("eth0", e.Left, macA))
	return macA, macB
}

// TestSend: the program writes the headers that package encap writes, and leaves a packet
// unchanged to the process if package encap would not carry it, or would write something else
// into the next packet.
func TestSend(t *testing.T) {
	t.Parallel()
	left, right := wiretest.Two(t)
	neighbours(t, left, right, wiretest.Ends4)
	neighbours(t, left, right, wiretest.Ends6)
	e := newEnd(t, left, tun.Settings{MTU: 1500}, load)
	inject := wiretest.Capture(t, left, "six0")
	wire := wiretest.Capture(t, right, "eth0")
	peers := table(t)
	const packets = 1200
	var all uint64 // large packets
	for i, layers := range variants() {
		r := rand.New(rand.NewPCG(18, uint64(i)))
		rigtest.Must(t, e.program.Count(thePeer))
		var stack *encap.Stack
		var headers [2]error
		var want kernel.Traffic
		described, large := 0, uint64(0)
		for n := range packets {
			if n%40 == 0 {
				stack = stackOf(t, layers, []encap.PathMTU{1500, 1400, 1292, 552}[r.IntN(4)], options(r))
				for j, version := range []int{4, 6} {
					var h encap.Headers
					if h, headers[j] = stack.Headers(version); headers[j] == nil {
						described++
						rigtest.Must(t, e.program.Send(thePeer, version, kernel.Hop{Device: e.device}, h))
					} else {
						rigtest.Must(t, e.program.StopSending(thePeer, version))
					}
				}
			}
			inner, plain := packet(r, 1500)
			if len(inner) > 1500 {
				continue
			}
			rigtest.Must(t, inject.Inject(inner))
			outer, carried := e.arrived(t, wire, inner)
			got, why := wrap(stack, inner)
			to, _ := peers.To(inner)
			version := header.Version(inner)
			what := fmt.Sprintf("%v %d: % x", layers[len(layers)-1].Kind, n, inner)
			switch {
			case carried && (why != drop.None || to != thePeer):
				t.Fatalf("%s\nis carried for peer %d, but the reason to drop it is %v", what, to, why)
			case carried && !bytes.Equal(outer, got):
				t.Fatalf("%s\nis carried as\n% x, not\n% x", what, outer, got)
			case !carried && why == drop.None && to == thePeer && plain && headers[version/6] == nil && !special(inner) && !mayFragment(got):
				t.Fatalf("%s\nis not carried", what)
			}
			if carried {
				want.Packets++
				want.Bytes += uint64(len(inner))
				if len(outer) > 1300 {
					large++
				}
			}
		}
		if described == 0 || want.Packets < packets/100 {
			t.Errorf("%v: only %d of %d packets were carried, with %d headers", layers[0].Kind, want.Packets, packets, described)
		}
		got, err := e.program.Counts(thePeer)
		rigtest.Must(t, err)
		if got.Sent != want || got.Large != large {
			t.Errorf("%v: counts %+v, want %+v, large %d", layers[0].Kind, got, want, large)
		}
		all += large
		for _, version := range []int{4, 6} {
			rigtest.Must(t, e.program.StopSending(thePeer, version))
		}
	}
	if all == 0 {
		t.Error("no large packet was carried")
	}
}

// special reports whether the destination of a packet is one that the programs leave to the
// process.
func special(inner []byte) bool {
	dst := header.Dest(inner)
	return dst.Is6() && (dst.IsMulticast() || dst.IsLinkLocalUnicast()) || dst.Is4() && dst.As4()[0] >= 224
}

// mayFragment reports whether an outer packet is one of IPv4 without DF.
func mayFragment(outer []byte) bool {
	return header.Version(outer) == 4 && header.IPv4(outer).MayFragment()
}

// arrived returns what became of a packet that was sent to the interface: the outer packet
// that the other end of the wire received, or the packet as the process reads it.
func (e *end) arrived(t *testing.T, wire *rig.Capture, inner []byte) (outer []byte, carried bool) {
	t.Helper()
	ctx := wiretest.Soon(t)
	b := make([]byte, tun.VirtioLen+tun.MaxRead)
	for {
		n, err := e.dev.Queues()[0].Read(b)
		if err == nil && bytes.Equal(b[tun.VirtioLen:n], inner) {
			return nil, false
		}
		if err != nil && !errors.Is(err, tun.ErrEmpty) {
			t.Fatal(err)
		}
		frames, err := wire.Waiting()
		rigtest.Must(t, err)
		for _, f := range frames {
			if !f.Outgoing && isTunnel(f.Packet()) {
				return f.Packet(), true
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("the packet was lost: % x", inner)
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil)
	}
}

// isTunnel reports whether a packet has the protocol of a tunnel.
func isTunnel(pkt []byte) bool {
	protocol := byte(0)
	switch {
	case header.Version(pkt) == 4 && len(pkt) >= header.IPv4Len:
		protocol = header.IPv4(pkt).Protocol()
	case header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len:
		protocol = header.IPv6(pkt).NextHeader()
	}
	return slices.Contains(wiretest.TunnelProtocols, protocol)
}
