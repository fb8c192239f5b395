package bench

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

const (
	tunQueue  = 4096 // packets that the kernel can queue for us
	virtioLen = 10   // struct virtio_net_hdr
	segment   = 1400 // bytes of a segment's payload
	segments  = 40   // of a super-packet
)

// floorTUN opens a TUN device, with virtio headers, by system calls alone. It has the
// address 10.0.0.1/24.
func floorTUN(b *testing.B) (ns *rig.Namespace, fd int) {
	b.Helper()
	ns = floorWire(b)[0]
	must := func(op string, err error) {
		b.Helper()
		if err != nil {
			b.Fatalf("%s: %v", op, err)
		}
	}
	must("open TUN", ns.Do(func() (err error) {
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	}))
	b.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq("six0")
	must("interface name", err)
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must("ioctl TUNSETIFF", ns.Do(func() error { return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr) }))
	must("ioctl TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_USO4|unix.TUN_F_USO6))
	must("set queue", ns.Handle().LinkSetTxQLen(link(b, ns, "six0"), tunQueue))
	must("set up", ns.LinkUp("six0"))
	must("add address", ns.AddAddr("six0", netip.MustParsePrefix("10.0.0.1/24")))
	return ns, fd
}

// BenchmarkFloorTUNRead measures reading what the kernel has put into the device's
// queue: single packets, and super-packets whose segmentation is left to us. Only the
// reading is timed.
func BenchmarkFloorTUNRead(b *testing.B) {
	ns, fd := floorTUN(b)
	for _, c := range []struct {
		name     string
		segments int
	}{{"single", 1}, {"segments", segments}} {
		b.Run(c.name, func(b *testing.B) {
			var s *net.UDPConn
			err := ns.Do(func() (err error) {
				s, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:9")))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if c.segments > 1 {
				raw, err := s.SyscallConn()
				if err != nil {
					b.Fatal(err)
				}
				var serr error
				cerr := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment) })
				if err := errors.Join(cerr, serr); err != nil {
					b.Fatalf("setsockopt UDP_SEGMENT: %v", err)
				}
			}
			_ = s.SetWriteBuffer(64 << 20) // up to the limit of the system: it bounds the queue
			content, buf := make([]byte, segment*c.segments), make([]byte, 1<<17)
			var packets int
			var elapsed time.Duration
			for packets < b.N {
				for n := 0; n < 64; n++ {
					if _, err := s.Write(content); err != nil {
						b.Fatal(err)
					}
				}
				start := time.Now()
				for {
					n, err := unix.Read(fd, buf)
					if errors.Is(err, unix.EAGAIN) {
						break
					}
					if err != nil {
						b.Fatal(os.NewSyscallError("read", err))
					}
					packets += (n - virtioLen + segment - 1) / segment
				}
				elapsed += time.Since(start)
			}
			reportFloor(b, packets, elapsed)
		})
	}
}

// BenchmarkFloorTUNWrite measures writing packets to the kernel: single ones, and
// super-packets. They have an unreachable destination and end in the routing, so the
// cost of an application is not included.
func BenchmarkFloorTUNWrite(b *testing.B) {
	_, fd := floorTUN(b)
	b.Run("single", func(b *testing.B) { writeTUN(b, fd, tcpPacket(1), 1) })
	b.Run("segments", func(b *testing.B) { writeTUN(b, fd, tcpPacket(segments), segments) })
}

func writeTUN(b *testing.B, fd int, pkt []byte, segments int) {
	start, packets := time.Now(), 0
	for ; packets < b.N; packets += segments {
		if _, err := unix.Write(fd, pkt); err != nil {
			b.Fatal(os.NewSyscallError("write", err))
		}
	}
	reportFloor(b, packets, time.Since(start))
}

// tcpPacket returns a packet with a virtio header, as TUN accepts it, whose checksum the
// kernel does not verify, or must compute.
func tcpPacket(segments int) []byte {
	const headers = header.IPv4Len + 20
	b := make([]byte, virtioLen+headers+segments*segment)
	b[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	if segments > 1 {
		b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
		binary.NativeEndian.PutUint16(b[2:], headers)
		binary.NativeEndian.PutUint16(b[4:], segment)
	}
	binary.NativeEndian.PutUint16(b[6:], header.IPv4Len) // where the sum starts
	binary.NativeEndian.PutUint16(b[8:], 16)             // and the checksum is, from there
	ip := b[virtioLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 0, 0, 2, 10, 0, 0, 3})
	header.IPv4(ip).SetChecksum()
	tcp := ip[header.IPv4Len:]
	binary.BigEndian.PutUint16(tcp[0:], 40000)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[13] = 5<<4, 0x10 // header length; ACK
	return b
}
