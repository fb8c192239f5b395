package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/capture"
	"sixfour/internal/rig"
)

const inKernel = `io = "kernel"`

// carriedInKernel transfers bytes from a to b and back, and expects that the kernel carries most of
// them, and that the daemons count them: the kernel does not show them in the interface's counters.
func carriedInKernel(t *testing.T, h hosts, a, b *daemon, toB, toA netip.Addr) {
	t.Helper()
	const size = 4 << 20
	_, before := a.status(t)
	shown := interfaceBytes(t, h.a)
	transfer(t, h.a, h.b, toB, size)
	transfer(t, h.b, h.a, toA, size)
	_, after := a.status(t)
	if after.Out.Bytes-before.Out.Bytes < size || after.In.Bytes-before.In.Bytes < size {
		t.Errorf("after transfers of %d bytes the counters of a are %+v and %+v, before %+v and %+v", size, after.Out, after.In, before.Out, before.In)
	}
	if n := interfaceBytes(t, h.a) - shown; n > size/2 {
		t.Errorf("%d bytes passed the interface's queues", n)
	}
	if lost := lost(t, a, b); strings.Contains(lost, ":") {
		t.Errorf("drops: %s", lost)
	}
}

// interfaceBytes returns the bytes that the daemon has read from the interface.
func interfaceBytes(t *testing.T, ns *rig.Namespace) uint64 {
	t.Helper()
	l, err := ns.Handle().LinkByName("six0")
	must(t, err)
	return l.Attrs().Statistics.TxBytes
}

// Packets are carried in the kernel unless something needs them in the daemon, and again when
// that has ended.
func TestKernel(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA(inKernel)), start(t, h.b, configB(inKernel))
	a.waitIO(t, "kernel")
	b.waitIO(t, "kernel")
	reachable(t, h.a, inB)
	carriedInKernel(t, h, a, b, inB, inA)
	carriedInKernel(t, h, a, b, in6B, in6A)

	// A capture shows all packets of connections that were carried in the kernel before.
	rec := a.record(t, capture.Request{Tunnel: "six0", Filter: "tcp", Sides: capture.Inner})
	if _, s := a.status(t); s.State.IO != "socket" || s.State.IOWanted != "kernel" || s.State.IOWhy != "a capture is running" {
		t.Errorf("during a capture: %+v", s.State)
	}
	transfer(t, h.a, h.b, inB, 100_000)
	rec.find(t, "data", func(p seen) bool { return header.IPv4(p.Data).Src() == inA && len(p.Data) > 500 })
	rec.end()
	a.waitIO(t, "kernel")
	carriedInKernel(t, h, a, b, inB, inA)

	// A reload, in place and with another interface.
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	for i, lines := range []string{"ttl = 77", "ttl = 78\noffload = \"off\"", "ttl = 79\nqueues = 2"} {
		a.mustReload(t, configA(inKernel, lines))
		reachable(t, h.a, inB)
		a.waitIO(t, "kernel")
		carriedInKernel(t, h, a, b, inB, inA)
		find(t, wire, fmt.Sprintf("TTL %d", 77+i), func(ip header.IPv4) bool { return ip.Src() == outerA && ip.TTL() == byte(77+i) && len(ip) > 500 })
	}

	// Killed, and another one.
	a.end(t, syscall.SIGKILL)
	a = start(t, h.a, configA(inKernel))
	a.waitIO(t, "kernel")
	reachable(t, h.a, inB)
	carriedInKernel(t, h, a, b, inB, inA)
	a.mustReload(t, configA())
	reachable(t, h.a, inB)
	if _, s := a.status(t); s.State.IO != "socket" || s.State.IOWhy != "" {
		t.Errorf("without the kernel: %+v", s.State)
	}
	transfer(t, h.b, h.a, inA, 1<<20)
}

// find reads what was captured until there is an IPv4 packet of a kind.
func find(t *testing.T, wire *rig.Capture, what string, is func(header.IPv4) bool) {
	t.Helper()
	eventually(t, what, func() error {
		f, err := wire.Next(t.Context())
		if err != nil {
			return err
		}
		if ip := header.IPv4(f.Packet()); header.Version(ip) == 4 && len(ip) >= header.IPv4Len && is(ip) {
			return nil
		}
		return fmt.Errorf("a frame of %d bytes", len(f.Packet()))
	})
}

// A path that becomes narrow, with or without ICMP errors, is found as without the kernel: TCP
// goes on.
func TestKernelPathMTU(t *testing.T) {
	t.Parallel()
	n := newRouted(t)
	a, b := start(t, n.a, configA(inKernel)), start(t, n.b, configB(inKernel))
	a.waitIO(t, "kernel")
	b.waitIO(t, "kernel")
	reachable(t, n.a, inB)
	carriedInKernel(t, n.hosts, a, b, inB, inA)
	n.narrow(t, 1400)
	transfer(t, n.a, n.b, inB, 4<<20)
	a.pathMTU(t, 1400, "icmp")
	carriedInKernel(t, n.hosts, a, b, inB, inA)
	n.dropLarge(t, 1340)
	transfer(t, n.a, n.b, inB, 4<<20)
	eventually(t, "a path MTU found by probes", func() error {
		if _, s := a.status(t); s.State.PathMTU > 1340 || s.State.PathMTU < 1300 || s.State.PathMTUBy != "probe" {
			return fmt.Errorf("%+v", s.State)
		}
		return nil
	})
}

// While packets are carried in the kernel and then by the daemon, again and again, none is lost.
func TestKernelSwitch(t *testing.T) {
	h := newHosts(t, 1500)
	// A veth device leaves the inner checksum to the receiver, which the daemon there cannot know.
	must(t, h.a.Ethtool("va", unix.ETHTOOL_STXCSUM, 0))
	a, b := start(t, h.a, configA(inKernel)), start(t, h.b, configB(inKernel))
	a.waitIO(t, "kernel")
	b.waitIO(t, "kernel")
	reachable(t, h.a, inB)
	stop := make(chan struct{})
	done := make(chan int)
	go func() {
		times := 0
		for d := a; ; times++ {
			select {
			case <-stop:
				done <- times
				return
			case <-time.After(10 * time.Millisecond):
			}
			d.record(t, capture.Request{Tunnel: "six0", Filter: "icmp"}).end()
			if d = a; times%2 == 0 {
				d = b
			}
		}
	}()
	r := flow(t, h, 5000, time.Second)
	close(stop)
	if times := <-done; times < 3 || r.Lost() != 0 || r.Sent < 1000 {
		t.Errorf("%d switches, %+v", times, r)
	}
	if _, s := a.status(t); s.Out.Packets < uint64(r.Sent) {
		t.Errorf("of %d packets, %d are counted", r.Sent, s.Out.Packets)
	}
}

// A hub carries the packets of each of its peers in the kernel, and takes none of one peer from
// another. The others are not disturbed by one that goes.
func TestKernelHub(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	peers := func(n int) string {
		c := "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\n" + inKernel + "\n"
		for i := range n {
			c += fmt.Sprintf("[[tunnel.peer]]\nname = \"p%d\"\nremote = \"203.0.113.%d\"\nallowed = [\"10.0.0.%d/32\"]\n", i, 20+i, 2+i)
		}
		return c
	}
	a := start(t, h.a, peers(3))
	start(t, h.b, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.20\"\nremote = \"203.0.113.10\"\naddress = [\"10.0.0.2/24\"]\n%s\n", inKernel))
	reachable(t, h.a, inB)
	eventually(t, "all peers in the kernel", func() error {
		_, s := a.status(t)
		for _, p := range s.Peers {
			if p.State.IO != "kernel" {
				return fmt.Errorf("%+v", p.State)
			}
		}
		return nil
	})
	transfer(t, h.a, h.b, inB, 4<<20)
	_, s := a.status(t)
	if p := peerOf(s, "p0"); p.Out.Bytes < 4<<20 {
		t.Errorf("%+v", p)
	}
	a.mustReload(t, peers(1))
	transfer(t, h.a, h.b, inB, 4<<20)
}

// peerOf returns the status of a peer.
func peerOf(s api.TunnelStatus, name string) (p api.PeerStatus) {
	for _, p := range s.Peers {
		if p.Peer == name {
			return p
		}
	}
	return p
}
