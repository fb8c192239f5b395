package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the argument of recvmmsg and sendmmsg, allocated once. The batches of x/net
// allocate an address for each packet that they receive.
type batch struct {
	msgs []mmsghdr
	iovs [][2]unix.Iovec
	used int
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

func newBatch(size int) *batch {
	b := &batch{msgs: make([]mmsghdr, size), iovs: make([][2]unix.Iovec, size)}
	for i := range b.msgs {
		b.msgs[i].hdr.Iov = &b.iovs[i][0]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// fill points the batch at the buffers, as many as it has room for, and leaves the first
// front bytes of each free. The buffers must stay in place until the batch is used.
func (b *batch) fill(bufs [][]byte, front int) {
	b.used = min(len(bufs), len(b.msgs))
	for i, buf := range bufs[:b.used] {
		point(&b.iovs[i][0], buf[min(front, len(buf)):])
	}
}

// add adds a packet to send, without the first cut bytes of its Head. The batch must have
// room for it.
func (b *batch) add(p *Packet, cut int) {
	i, pieces := b.used, 1
	point(&b.iovs[i][0], p.Head[cut:])
	if len(p.Body) > 0 {
		pieces = 2
		point(&b.iovs[i][1], p.Body)
	}
	b.msgs[i].hdr.SetIovlen(pieces)
	b.used++
}

func point(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// receive does not block: if there is no packet, the error is EAGAIN.
func (b *batch) receive(fd int) (int, unix.Errno) {
	return b.call(unix.SYS_RECVMMSG, fd, 0)
}

// sizes reads the lengths of the received packets. A truncated packet gets size 0,
// because its content cannot be used.
func (b *batch) sizes(meta []Meta) {
	for i := range meta {
		meta[i].Size = int(b.msgs[i].n)
		if b.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			meta[i].Size = 0
		}
	}
}

// send sends the packets from index from on, and returns how many were sent.
func (b *batch) send(fd, from int) (int, unix.Errno) {
	return b.call(unix.SYS_SENDMMSG, fd, from)
}

func (b *batch) call(nr uintptr, fd, from int) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(nr, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[from])), uintptr(b.used-from), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
