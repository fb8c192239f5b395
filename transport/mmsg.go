package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the argument of recvmmsg and sendmmsg, allocated once. The batches of x/net
// allocate an address for each packet that they receive.
type batch struct {
	msgs   []mmsghdr
	iovs   []unix.Iovec
	counts []uint8 // packets in each message to send
	used   int     // messages
	points int     // iovs
	failed int     // packets in the message that sendAll could not send; 0: there is none
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

func newBatch(size int) *batch {
	return &batch{msgs: make([]mmsghdr, size), iovs: make([]unix.Iovec, 2*size), counts: make([]uint8, size)}
}

// fill points the batch at the buffers, as many as it has room for, and leaves the first
// front bytes of each free. The buffers must stay in place until the batch is used.
func (b *batch) fill(bufs [][]byte, front int) {
	b.empty()
	for _, buf := range bufs[:min(len(bufs), len(b.msgs))] {
		b.start()
		b.point(buf[min(front, len(buf)):])
	}
}

// empty removes all messages.
func (b *batch) empty() { b.used, b.points = 0, 0 }

// start starts a message without content. The batch must have room for it.
func (b *batch) start() {
	b.msgs[b.used].hdr.Iov = &b.iovs[b.points]
	b.msgs[b.used].hdr.SetIovlen(0)
	b.counts[b.used] = 0
	b.used++
}

// point adds bytes to the last message.
func (b *batch) point(p []byte) {
	v := &b.iovs[b.points]
	v.Base = unsafe.SliceData(p)
	v.SetLen(len(p))
	b.points++
	b.msgs[b.used-1].hdr.Iovlen++
}

// add adds a packet to the last message, without the first cut bytes of its Head. A batch
// has room for as many packets as messages.
func (b *batch) add(p *Packet, cut int) {
	b.point(p.Head[cut:])
	if len(p.Body) > 0 {
		b.point(p.Body)
	}
	b.counts[b.used-1]++
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

// send sends the messages from index from on, and returns how many were sent.
func (b *batch) send(fd, from int) (int, unix.Errno) {
	return b.call(unix.SYS_SENDMMSG, fd, from)
}

// packets returns how many packets are in the n messages from index from on.
func (b *batch) packets(from, n int) (sum int) {
	for _, count := range b.counts[from : from+n] {
		sum += int(count)
	}
	return sum
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
