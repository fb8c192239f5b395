package transport

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is ancillary data that gives a socket of IPPROTO_RAW the IP protocol of a
// packet (ip(7): IP_PROTOCOL).
type control struct{ bytes []byte }

// ipProtocol is IP_PROTOCOL of linux/in.h.
const ipProtocol = 52

func newControl(protocol byte) *control {
	words := make([]uintptr, unix.CmsgSpace(4)/int(unsafe.Sizeof(uintptr(0)))) // aligned
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_IP, ipProtocol
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(protocol))
	return &control{bytes: b}
}

// newName returns a name without the address. For a socket of IPPROTO_RAW over IPv6 the
// port is the protocol.
func (s *RawSender) newName() name {
	n := s.family.newName()
	if s.family.version == 6 {
		n.Port = toNetwork(uint16(s.protocol))
	}
	return n
}

// toNetwork returns a number whose bytes in memory are in network byte order.
func toNetwork(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// takesProtocol reports whether the kernel can be given the protocol of what a socket of
// IPPROTO_RAW sends. It asks with a packet that MSG_PROBE keeps from being sent; an
// older kernel answers EINVAL before it has looked for a route.
func (f *family) takesProtocol(fd int, protocol byte) bool {
	to := f.newName()
	var c *control
	if f.version == 4 {
		(*unix.RawSockaddrInet4)(unsafe.Pointer(&to)).Addr = [4]byte{127, 0, 0, 1}
		c = newControl(protocol)
	} else {
		to.Addr[15] = 1 // IPv6's loopback address
		to.Port = toNetwork(uint16(protocol))
	}
	const probe = 0x10 // MSG_PROBE of linux/socket.h
	return f.sendmsg(fd, make([]byte, f.headerLen), &to, c, probe|unix.MSG_DONTWAIT) != unix.EINVAL
}

// sendmsg sends one packet.
func (f *family) sendmsg(fd int, pkt []byte, to *name, c *control, flags int) unix.Errno {
	var iov unix.Iovec
	iov.Base = unsafe.SliceData(pkt)
	iov.SetLen(len(pkt))
	msg := unix.Msghdr{Name: (*byte)(unsafe.Pointer(to)), Namelen: f.nameLen(), Iov: &iov}
	msg.SetIovlen(1)
	if c != nil {
		msg.Control = &c.bytes[0]
		msg.SetControllen(len(c.bytes))
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(flags))
	return errno
}
