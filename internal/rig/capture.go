package rig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ethernetLen is the length of an Ethernet header in bytes.
const ethernetLen = 14

// captureBuffer is the receive buffer in bytes that a capture requests from the kernel,
// so that a burst is not lost while the test does something else.
const captureBuffer = 16 << 20

// Frame is a frame that a device sent or received.
type Frame struct {
	Time     time.Time // time stamp of the kernel
	Outgoing bool      // sent by the device's own namespace
	Type     uint16    // EtherType: 0x0800 IPv4, 0x86dd IPv6
	Data     []byte    // with the link-layer header, if the link has one
	network  int
}

// Packet returns the frame without the link-layer header.
func (f Frame) Packet() []byte { return f.Data[f.network:] }

// Capture is a packet socket on one device, which receives incoming and outgoing frames.
type Capture struct {
	file    *os.File
	raw     syscall.RawConn
	network int // length of the link-layer header
	buf     []byte
}

// Capture starts to capture on a device. Frames are recorded from the time at which
// Capture returns. Close it after use.
func (n *Namespace) Capture(dev string) (*Capture, error) {
	c := &Capture{buf: make([]byte, 1<<16+ethernetLen)}
	err := n.onLink(dev, "capture", func(l netlink.Link) error {
		if t := l.Attrs().EncapType; t == "ether" || t == "loopback" {
			c.network = ethernetLen
		}
		return n.Do(func() error { return c.open(l.Attrs().Index) })
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Capture) open(device int) error {
	// Protocol 0 receives nothing: the socket must receive only from the device given to
	// bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	c.file = os.NewFile(uintptr(fd), "capture")
	c.raw, err = c.file.SyscallConn()
	if err == nil {
		err = os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	}
	if err == nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer) != nil {
		// In a user namespace, the limit is net.core.rmem_max.
		err = os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer))
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: device}))
	}
	if err != nil {
		c.file.Close()
	}
	return err
}

// networkOrder returns v for a field of two big-endian bytes.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Next waits for the next frame. The caller owns its data.
func (c *Capture) Next(ctx context.Context) (f Frame, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.file.SetDeadline(time.Time{}); err != nil {
		return f, fmt.Errorf("capture: %w", err)
	}
	defer interruptOnDone(ctx, c.file)()
	rerr := c.raw.Read(func(fd uintptr) bool {
		f, err = c.receive(int(fd))
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		err = causeOf(ctx, rerr)
	}
	if err != nil {
		return Frame{}, fmt.Errorf("capture: %w", err)
	}
	return f, nil
}

func (c *Capture) receive(fd int) (Frame, error) {
	var oob [64]byte
	n, oobn, _, from, err := unix.Recvmsg(fd, c.buf, oob[:], 0)
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Data: append([]byte(nil), c.buf[:n]...), network: min(c.network, n)}
	if sa, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Outgoing = sa.Pkttype == unix.PACKET_OUTGOING
		f.Type = networkOrder(sa.Protocol)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return Frame{}, err
	}
	for _, m := range msgs {
		var ts unix.Timespec
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&ts)), unsafe.Sizeof(ts))
		if m.Header.Type == unix.SO_TIMESTAMPNS && copy(raw, m.Data) == len(raw) {
			f.Time = time.Unix(ts.Unix())
		}
	}
	return f, nil
}

// Find waits for a frame for which match returns true, and discards those before it.
// match must not change the frame.
func (c *Capture) Find(ctx context.Context, match func(Frame) bool) (Frame, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for seen := 0; ; seen++ {
		f, err := c.Next(ctx)
		if err != nil {
			return Frame{}, fmt.Errorf("%w (%d other frames were seen)", err, seen)
		}
		if match(f) {
			return f, nil
		}
	}
}

// Waiting returns the frames that have already arrived, without blocking.
func (c *Capture) Waiting() ([]Frame, error) {
	var frames []Frame
	for {
		var f Frame
		var err error
		cerr := c.raw.Control(func(fd uintptr) { f, err = c.receive(int(fd)) })
		switch {
		case cerr != nil:
			return frames, fmt.Errorf("capture: %w", cerr)
		case errors.Is(err, unix.EAGAIN):
			return frames, nil
		case err != nil:
			return frames, fmt.Errorf("capture: %w", err)
		}
		frames = append(frames, f)
	}
}

// Lost returns how many frames the kernel had no room for since the last call.
func (c *Capture) Lost() (lost int, err error) {
	cerr := c.raw.Control(func(fd uintptr) {
		var s *unix.TpacketStats
		if s, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = int(s.Drops)
		}
	})
	return lost, errors.Join(cerr, err)
}

// Inject sends a frame, with the link-layer header, through the device unchanged.
func (c *Capture) Inject(frame []byte) error {
	// The socket is bound to the device.
	if _, err := c.file.Write(frame); err != nil {
		return fmt.Errorf("inject %d bytes: %w", len(frame), err)
	}
	return nil
}

// Close ends the capture.
func (c *Capture) Close() error { return c.file.Close() }

// Ethernet prepends an Ethernet header to a packet.
func Ethernet(dst, src net.HardwareAddr, etherType uint16, packet []byte) []byte {
	f := make([]byte, 0, ethernetLen+len(packet))
	f = append(append(f, dst...), src...)
	return append(binary.BigEndian.AppendUint16(f, etherType), packet...)
}

// Raw sends whole IPv4 packets from inside a namespace, header included. The kernel
// routes them, overwrites total length and header checksum, and fills in a source or an
// identification of zero. To send wrong values there, use Capture.Inject.
type Raw struct{ fd int }

// OpenRaw opens a sender. Close it after use.
func (n *Namespace) OpenRaw() (*Raw, error) {
	r := &Raw{}
	err := n.Do(func() (err error) {
		// IPPROTO_RAW implies IP_HDRINCL, and receives nothing.
		r.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return nil, n.explain("open raw socket", err)
	}
	return r, nil
}

// Send sends a packet to the destination in its header.
func (r *Raw) Send(packet []byte) error {
	if len(packet) < 20 {
		return fmt.Errorf("send raw: %d bytes are no IPv4 packet", len(packet))
	}
	dst := netip.AddrFrom4([4]byte(packet[16:20]))
	if err := unix.Sendto(r.fd, packet, 0, &unix.SockaddrInet4{Addr: dst.As4()}); err != nil {
		return fmt.Errorf("send raw to %v: %w", dst, err)
	}
	return nil
}

// Close closes the socket.
func (r *Raw) Close() error { return unix.Close(r.fd) }
