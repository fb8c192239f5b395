package jsontun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/jsontun"
	"sixfour/transport/queue"
)

// Limits of what waits for a connection, beside what is in the kernel.
const (
	maxWaiting      = 256
	maxWaitingBytes = 256 << 10
	maxAllBytes     = 64 << 20 // for all connections of a server
)

// outgoing are packets that a socket has not taken yet.
type outgoing struct {
	part  *queue.Packet // the rest of a packet whose beginning was sent; nil: none
	q     queue.Ring    // whole packets
	bytes int
	lost  uint64
}

func (o *outgoing) empty() bool { return o.part == nil && o.q.Len() == 0 }

// put takes a packet. If there are too many, the oldest ones are dropped.
func (o *outgoing) put(packet []byte, all *atomic.Int64) {
	p := queue.New(len(packet))
	copy(p.B, packet)
	p.Since = time.Now()
	o.q.Push(p)
	o.bytes += len(packet)
	all.Add(int64(len(packet)))
	for o.q.Len() > maxWaiting || o.bytes > maxWaitingBytes || all.Load() > maxAllBytes || p.Since.Sub(o.q.First().Since) > queue.MaxWait {
		o.lost++
		o.drop(all)
		if o.q.Len() == 0 {
			return
		}
	}
}

// drop removes the oldest packet.
func (o *outgoing) drop(all *atomic.Int64) {
	p := o.q.Pop()
	o.bytes -= len(p.B)
	all.Add(-int64(len(p.B)))
	p.Free()
}

// clear removes all packets.
func (o *outgoing) clear(all *atomic.Int64) {
	if o.part != nil {
		o.part.Free()
		o.part = nil
	}
	for o.q.Len() > 0 {
		o.lost++
		o.drop(all)
	}
	o.q = queue.Ring{}
}

// flush writes what waits, as far as the socket takes it.
func (o *outgoing) flush(write func([]byte) (int, error), all *atomic.Int64) error {
	for {
		if o.part != nil {
			n, err := write(o.part.B)
			if err != nil {
				return err
			}
			if o.part.B = o.part.B[n:]; len(o.part.B) > 0 {
				return nil
			}
			o.part.Free()
			o.part = nil
		}
		if o.q.Len() == 0 {
			o.q = queue.Ring{}
			return nil
		}
		p := o.q.First()
		if time.Since(p.Since) > queue.MaxWait {
			o.lost++
			o.drop(all)
			continue
		}
		n, err := write(p.B)
		if err != nil || n == 0 {
			return err
		}
		o.sent(p.B, n)
		o.drop(all)
	}
}

// sent notes that the first n bytes of a packet were sent.
func (o *outgoing) sent(packet []byte, n int) {
	if n < len(packet) {
		o.part = queue.New(len(packet) - n)
		copy(o.part.B, packet[n:])
	}
}

// Errors of Send.
var (
	errNotConnected = fmt.Errorf("there is no connection: %w", unix.ENOTCONN)
	errNotIPv6      = fmt.Errorf("the packet is not a whole IPv6 packet of at most %d bytes: %w", jsontun.MaxPacket, unix.EINVAL)
)

// whole reports whether b is one IPv6 packet: with another one the two ends would not agree any
// more where packets begin.
func whole(b []byte) bool {
	return len(b) >= header.IPv6Len && header.Version(b) == 6 && header.IPv6Len+header.IPv6(b).PayloadLen() == len(b) && len(b) <= jsontun.MaxPacket
}

// Send implements access.Link.
func (c *client) Send(packet []byte) error {
	if !whole(packet) {
		return errNotIPv6
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return errNotConnected
	}
	o := &c.outgoing
	if !o.empty() {
		o.put(packet, &c.loop.server.waiting)
		return nil
	}
	n, err := c.write(packet)
	switch {
	case err != nil:
		c.shutdown()
		return err
	case n == len(packet):
		return nil
	case n == 0:
		o.put(packet, &c.loop.server.waiting)
	default:
		o.sent(packet, n)
	}
	return c.arm()
}

// say sends a message of the dialogue. Nothing else waits at that time, so that there is room
// for it. The caller holds mu.
func (c *client) say(m jsontun.Message) error {
	b := m.Append(nil)
	if n, err := c.write(b); err != nil || n == len(b) {
		return err
	}
	return errors.New("the socket takes no message")
}

// flush writes what waits. The caller holds mu.
func (c *client) flush() {
	if c.fd < 0 {
		return
	}
	err := c.outgoing.flush(c.write, &c.loop.server.waiting)
	if err == nil && c.outgoing.empty() {
		err = c.arm()
	}
	if err != nil {
		c.shutdown()
	}
}

// arm says to the loop for what to wait. The caller holds mu.
func (c *client) arm() error {
	if c.fd < 0 || c.detached {
		return nil
	}
	var events uint32
	if !c.busy {
		events |= unix.EPOLLIN
	}
	if !c.outgoing.empty() {
		events |= unix.EPOLLOUT
	}
	return c.control(unix.EPOLL_CTL_MOD, events)
}

// write writes to the socket, and returns how many bytes it has taken, which may be 0. The
// caller holds mu.
func (c *client) write(b []byte) (int, error) { return send(c.fd, b) }

// send writes to a socket, and returns how many bytes it has taken, which may be 0. With
// MSG_EOR the kernel adds nothing of what is written later to the same segment (since Linux
// 4.7): ends of the original program take what one read returns for one packet.
func send(fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL|unix.MSG_EOR, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("send", errno)
		}
	}
}
