package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
	"sixfour/transport/xdp"
)

// The floors are the costs of a packet in this machine's kernel at the places through
// which a tunnel must send it: no daemon on this machine can be faster. They need root.
// Those of the TUN device are in floor_tun_test.go.

// nobody is an address on the wire whose hardware address no host has: the far end of
// the wire discards what is sent to it.
var nobody = netip.MustParseAddr("203.0.113.99")

const nobodyMAC = "02:00:00:00:00:99"

// floorWire returns two namespaces joined by a veth pair.
func floorWire(b *testing.B) (ns [2]*rig.Namespace) {
	b.Helper()
	if os.Getuid() != 0 {
		b.Fatal("floors are measured with raw sockets in network namespaces: run as root")
	}
	for i, name := range []string{"near", "far"} {
		n, err := rig.New(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(n.Close)
		ns[i] = n
	}
	if err := rig.Veth(ns[0], "va", ns[1], "vb", 1500); err != nil {
		b.Fatal(err)
	}
	for i, dev := range []string{"va", "vb"} {
		if err := ns[i].AddAddr(dev, netip.PrefixFrom([]netip.Addr{left.Local, left.Remote}[i], 24)); err != nil {
			b.Fatal(err)
		}
	}
	mac, _ := net.ParseMAC(nobodyMAC)
	err := ns[0].Handle().NeighAdd(&netlink.Neigh{
		LinkIndex: link(b, ns[0], "va").Attrs().Index, State: netlink.NUD_PERMANENT, IP: nobody.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		b.Fatalf("add neighbour %v: %v", nobody, err)
	}
	waitFor(b, ns[0], left.Remote)
	return ns
}

func link(b *testing.B, n *rig.Namespace, dev string) netlink.Link {
	b.Helper()
	l, err := n.Handle().LinkByName(dev)
	if err != nil {
		b.Fatalf("device %s: %v", dev, err)
	}
	return l
}

// floorSender is the part of a transport.Sender that is measured.
type floorSender interface {
	Send([]transport.Packet) (int, error)
	Close() error
}

// floorSenders are the ways to send an outer packet, by name.
var floorSenders = []struct {
	name string
	open func(va netlink.Link, to netip.Addr, mac net.HardwareAddr) (floorSender, error)
}{
	{"raw", func(_ netlink.Link, to netip.Addr, _ net.HardwareAddr) (floorSender, error) {
		return transport.DialRaw(left.Local, 41, transport.Options{})
	}},
	{"packet", func(va netlink.Link, _ netip.Addr, mac net.HardwareAddr) (floorSender, error) {
		return newPacketSender(va, mac)
	}},
	{"xdp", func(va netlink.Link, to netip.Addr, mac net.HardwareAddr) (floorSender, error) {
		port, err := xdp.Open(va.Attrs().Index, 0, va.Attrs().MTU)
		if err != nil {
			return nil, err
		}
		other, err := transport.DialRaw(left.Local, 41, transport.Options{})
		if err != nil {
			port.Close()
			return nil, err
		}
		return &xdpFloor{xdp.NewSender(port, [6]byte(va.Attrs().HardwareAddr), [6]byte(mac), other), port}, nil
	}},
}

// xdpFloor is an xdp.Sender that owns its port.
type xdpFloor struct {
	*xdp.Sender
	port *xdp.Port
}

func (x *xdpFloor) Close() error { return errors.Join(x.Sender.Close(), x.port.Close()) }

// BenchmarkFloorSend measures only sending, to an address that no host has.
func BenchmarkFloorSend(b *testing.B) {
	ns := floorWire(b)
	mac, _ := net.ParseMAC(nobodyMAC)
	eachSender(b, ns, nobody, mac, func(b *testing.B, send func(n int)) {
		start := time.Now()
		send(b.N)
		reportFloor(b, b.N, time.Since(start))
	})
}

// BenchmarkFloorSendReceive also measures a raw socket, which must receive as fast.
func BenchmarkFloorSendReceive(b *testing.B) {
	ns := floorWire(b)
	mac, err := ns[1].MAC("vb")
	if err != nil {
		b.Fatal(err)
	}
	eachSender(b, ns, left.Remote, mac, func(b *testing.B, send func(n int)) {
		var r *transport.RawPort
		err := ns[1].Do(func() (err error) {
			r, err = transport.ListenRaw(left.Remote, header.ProtoIPv6, transport.Shard{}, transport.Options{})
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		var received atomic.Int64
		done := make(chan error, 1)
		go func() { done <- receiveAll(r, &received) }()
		start := time.Now()
		send(b.N)
		elapsed := time.Since(start)
		arrived := int(received.Load()) // packets in the queue have not arrived yet
		r.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			b.Fatal(err)
		}
		reportFloor(b, max(arrived, 1), elapsed)
	})
}

func receiveAll(r transport.Receiver, received *atomic.Int64) error {
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for {
		n, err := r.Receive(bufs, meta)
		if err != nil {
			return err
		}
		received.Add(int64(n))
	}
}

// eachSender runs f with each way to send, for small and for large packets.
func eachSender(b *testing.B, ns [2]*rig.Namespace, to netip.Addr, mac net.HardwareAddr, f func(b *testing.B, send func(n int))) {
	va := link(b, ns[0], "va")
	for _, way := range floorSenders {
		var s floorSender // one for all sizes: after an AF_XDP socket a device's queue is busy for a moment
		err := ns[0].Do(func() (err error) { s, err = way.open(va, to, mac); return err })
		if err != nil {
			b.Fatalf("%s: %v", way.name, err)
		}
		for _, size := range []int{64, 1440} {
			b.Run(fmt.Sprintf("%s/%d", way.name, size), func(b *testing.B) {
				pkts := outerPackets(b, to, size)
				f(b, func(n int) {
					for n > 0 {
						sent, err := s.Send(pkts[:min(n, len(pkts))])
						if err != nil && !errors.Is(err, unix.ENOBUFS) {
							b.Fatal(err)
						}
						n -= max(sent, 1) // a full queue costs one packet
					}
				})
			})
		}
		s.Close()
	}
}

// outerPackets returns a batch of packets with size bytes of inner packet.
func outerPackets(b *testing.B, to netip.Addr, size int) []transport.Packet {
	b.Helper()
	e := left
	e.Remote = to
	outer, r := stack(b, "4in6in4", e, encap.DefaultOptions).Encapsulate(packet("4in6in4", size), encap.Headroom)
	if r != drop.None {
		b.Fatal(r)
	}
	pkts := make([]transport.Packet, transport.BatchSize)
	for i := range pkts {
		pkts[i].Head = append([]byte(nil), outer...)
	}
	return pkts
}

// reportFloor reports a rate instead of the time per iteration.
func reportFloor(b *testing.B, packets int, elapsed time.Duration) {
	b.ReportMetric(float64(packets)/elapsed.Seconds(), "packets/s")
	b.ReportMetric(float64(elapsed.Nanoseconds())/float64(packets), "ns/packet")
	b.ReportMetric(0, "ns/op")
}

// packetSender sends through AF_PACKET, which the transport does not use. Like AF_XDP it
// bypasses routing and the packet filter, but needs a buffer for each packet.
type packetSender struct {
	fd   int
	eth  []byte
	msgs []packetMessage
	iovs [][2]unix.Iovec
}

// packetMessage is struct mmsghdr of sendmmsg(2).
type packetMessage struct {
	hdr unix.Msghdr
	n   uint32
}

func newPacketSender(va netlink.Link, mac net.HardwareAddr) (*packetSender, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: it receives nothing
	if err != nil {
		return nil, os.NewSyscallError("socket AF_PACKET", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: va.Attrs().Index}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind AF_PACKET", err)
	}
	return &packetSender{
		fd: fd, eth: rig.Ethernet(mac, va.Attrs().HardwareAddr, unix.ETH_P_IP, nil),
		msgs: make([]packetMessage, transport.BatchSize), iovs: make([][2]unix.Iovec, transport.BatchSize),
	}, nil
}

func (s *packetSender) Close() error { return unix.Close(s.fd) }

// Send sends packets without a body.
func (s *packetSender) Send(pkts []transport.Packet) (int, error) {
	for i, p := range pkts {
		s.iovs[i][0].Base, s.iovs[i][1].Base = &s.eth[0], &p.Head[0]
		s.iovs[i][0].SetLen(len(s.eth))
		s.iovs[i][1].SetLen(len(p.Head))
		s.msgs[i].hdr.Iov = &s.iovs[i][0]
		s.msgs[i].hdr.SetIovlen(2)
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs[0])), uintptr(len(pkts)), 0, 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("sendmmsg", errno)
	}
	return int(n), nil
}
