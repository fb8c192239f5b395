// Package rtnl sends requests about interfaces, addresses and routes to the kernel
// (rtnetlink(7)), many with one system call, and parses the answers.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn queries and changes the kernel's routing tables, with many requests at once: one
// system call carries several requests, and sequence numbers match the answers to them.
// Each request must have a single answer, so dumps are not possible. A Conn stays in the
// namespace in which it was made. It may be used concurrently.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32 // of the last request
	out Builder
	in  []byte // valid while the Conn is in use
}

// answerBuffers holds the buffers of all Conns, of which few are in use at a time.
var answerBuffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// InFlight is how many requests are sent before their answers are read. The kernel puts
// the answers into the socket's buffer while it handles the requests, and drops those
// for which there is no room. An answer has at most one page while the kernel writes it,
// and a socket's buffer has 200 kB by default.
const InFlight = 32

// maxMessage is larger than any answer of the kernel, in bytes: netlink answers have a
// page or two.
const maxMessage = 64 << 10

// answerTimeout bounds the wait for an answer of the kernel.
const answerTimeout = 5 * time.Second

// errShort means that an answer is truncated.
var errShort = errors.New("the kernel's answer is too short")

// Dial opens a Conn in the namespace of the calling thread. The caller must close it.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	// The kernel has answered before the system call that sends the requests returns. So
	// this limit is normally never reached; without it, a lost answer would block
	// forever.
	limit := unix.NsecToTimeval(int64(answerTimeout))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) // from now on only the kernel can send to this socket
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Conn{fd: fd}, nil
}

// Close closes the connection. Requests after it fail.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	unix.Close(c.fd)
	c.fd = -1
}

// Exchange makes n requests. build writes request i. answer is called exactly once for
// each i, in any order, with the message after its netlink header, or with an error. The
// message is valid until answer returns. It is empty for a request that the kernel only
// acknowledges.
func (c *Conn) Exchange(n int, build func(b *Builder, i int), answer func(i int, message []byte, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	buffer := answerBuffers.Get().(*[maxMessage]byte)
	c.in = buffer[:]
	defer func() {
		c.in = nil
		answerBuffers.Put(buffer)
	}()
	for first := 0; first < n; first += InFlight {
		count := min(InFlight, n-first)
		if err := c.batch(first, count, build, answer); err != nil {
			for i := first + count; i < n; i++ {
				answer(i, nil, err)
			}
			return
		}
	}
}

// batch makes count requests from first on, which must be few enough for all their
// answers to have room in the socket's buffer. It returns an error of the socket, after
// passing it to answer for each request that has no answer because of it.
func (c *Conn) batch(first, count int, build func(b *Builder, i int), answer func(i int, message []byte, err error)) error {
	c.out = c.out[:0]
	base := c.seq + 1
	for i := range count {
		c.seq++
		start := len(c.out)
		build(&c.out, first+i)
		c.out.finish(start, c.seq)
	}
	var answered [InFlight]bool
	left := count
	_, err := again(func() (int, error) { return unix.Write(c.fd, c.out) })
	for left > 0 && err == nil {
		var size int
		if size, err = again(func() (int, error) { return unix.Read(c.fd, c.in) }); err != nil {
			break
		}
		err = each(c.in[:size], func(m message) {
			// Any other message is a late answer to a batch that was given up.
			if i := m.seq - base; i < uint32(count) && !answered[i] {
				answered[i] = true
				left--
				answer(first+int(i), m.body, m.err)
			}
		})
	}
	if err != nil {
		err = fmt.Errorf("netlink: %w", err)
		for i := range count {
			if !answered[i] {
				answer(first+i, nil, err)
			}
		}
	}
	return err
}

// again repeats a system call until no signal interrupts it.
func again(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// message is an answer: the content after the netlink header, or the error in it.
type message struct {
	seq  uint32
	body []byte
	err  error
}

// each calls f for each message of one read (linux/netlink.h: struct nlmsghdr).
func each(b []byte, f func(message)) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return errShort
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return errShort
		}
		m := message{seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.SizeofNlMsghdr:size]}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			if len(m.body) < 4 {
				return errShort
			}
			if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 {
				m.err = unix.Errno(-code)
			}
			m.body = nil
		}
		f(m)
		b = b[min(aligned(size), len(b)):]
	}
	return nil
}

// aligned returns a length including padding, for messages and attributes.
func aligned(n int) int { return (n + 3) &^ 3 }

// Builder holds requests, one after the other.
type Builder []byte

// Begin starts a request: its netlink header, without length and sequence number, and
// the header of its type, whose length is a multiple of 4 bytes.
func (b *Builder) Begin(kind, flags uint16, header []byte) {
	h := [unix.SizeofNlMsghdr]byte{}
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], unix.NLM_F_REQUEST|flags)
	*b = append(append(*b, h[:]...), header...)
}

// finish completes the request that starts at an offset.
func (b *Builder) finish(start int, seq uint32) {
	h := (*b)[start:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint32(h[8:], seq)
}

// Attribute adds an attribute (linux/rtnetlink.h: struct rtattr).
func (b *Builder) Attribute(kind uint16, value []byte) {
	at := len(*b)
	*b = append(slices.Grow(*b, unix.SizeofRtAttr+aligned(len(value))), 0, 0, 0, 0)
	binary.NativeEndian.PutUint16((*b)[at:], uint16(unix.SizeofRtAttr+len(value)))
	binary.NativeEndian.PutUint16((*b)[at+2:], kind)
	*b = append(*b, value...)
	*b = append(*b, make([]byte, aligned(len(value))-len(value))...)
}

// Number adds an attribute with a number in the host's byte order.
func (b *Builder) Number(kind uint16, v uint32) {
	b.Attribute(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// Short is Number for a number of 16 bits.
func (b *Builder) Short(kind, v uint16) {
	b.Attribute(kind, binary.NativeEndian.AppendUint16(nil, v))
}

// Address adds an attribute with an address.
func (b *Builder) Address(kind uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		b.Attribute(kind, v[:])
	} else {
		v := a.As16()
		b.Attribute(kind, v[:])
	}
}

// Nested adds an attribute that contains one numeric attribute.
func (b *Builder) Nested(outer, inner uint16, v uint32) {
	var in Builder
	in.Number(inner, v)
	b.Attribute(outer|unix.NLA_F_NESTED, in)
}

// Attributes calls f for each attribute after a header of the given length.
func Attributes(message []byte, header int, f func(a *nfnetlink.AttributeDecoder)) error {
	if len(message) < header {
		return errShort
	}
	d, err := nfnetlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return fmt.Errorf("the kernel's answer: %w", err)
	}
	for d.Next() {
		f(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("the kernel's answer: %w", err)
	}
	return nil
}

// Family returns the kernel's number for an address's family.
func Family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
