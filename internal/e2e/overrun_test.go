package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/api"
)

// total returns the number of packets counted in one direction, carried or dropped.
func total(t api.Traffic) (n uint64) {
	n = t.Packets
	for _, drops := range t.Drops {
		n += drops
	}
	return n
}

// While the daemon is stopped, the queues of the interface and of the receiver fill up.
// Packets for which they have no room are counted, so that none is missing.
func TestOverrun(t *testing.T) {
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA()), start(t, h.b, configB())
	reachable(t, h.a, inB)
	_ = b
	// A socket receives the packets: otherwise a's kernel would answer some of them,
	// through the tunnel.
	var taker int
	must(t, h.a.Do(func() (err error) {
		taker, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experiment)
		if err == nil {
			err = unix.SetsockoptInt(taker, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
		}
		return err
	}))
	defer unix.Close(taker)
	before, tunBefore := a.status(t)
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	const out, in = 5000, 60000
	must(t, h.a.Do(func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(inB, 9)))
		if err != nil {
			return err
		}
		defer c.Close()
		for range out {
			_, _ = c.Write([]byte("out"))
		}
		return nil
	}))
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	pkt := ip4(outerB, outerA, header.ProtoIPv6, ip6(in6B, in6A, header.ProtoIPv4, experimental(inB, inA)))
	for range in {
		must(t, raw.Send(pkt))
	}
	must(t, a.cmd.Process.Signal(syscall.SIGCONT))
	eventually(t, "all packets are counted", func() error {
		now, tun := a.status(t)
		gone, came := total(tun.Out)-total(tunBefore.Out), total(tun.In)+total(now.Stray)-total(tunBefore.In)-total(before.Stray)
		lostOut, lostIn := tun.Out.Drops["no_room"], now.Stray.Drops["no_room"]
		// In addition b answers packets to closed ports, and kernels send packets of their
		// own.
		if gone < out || gone > out+100 || came < in || came > in+out+100 || lostOut == 0 || lostIn == 0 {
			return fmt.Errorf("%d of %d went out, %d for lack of room not; %d of %d came in, %d for lack of room not", gone, out, lostOut, came, in, lostIn)
		}
		return nil
	})
}
