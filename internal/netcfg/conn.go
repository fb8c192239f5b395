package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// conn asks the kernel's routing tables, and changes them, many times at once:
// one system call carries a number of requests, and the answers are told apart
// by their sequence numbers. It is for requests that have one answer each, which
// a dump has not. It stays in the namespace in which it was made. Any number of
// goroutines may use it.
type conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32 // of the last request
	out builder
	in  []byte // while it is in use
}

// answerBuffers are those of all conns, of which few are in use at a time.
var answerBuffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// inFlight is how many requests are sent before their answers are read. The
// kernel puts these into the socket's buffer while it takes the requests, and
// throws away what has no room: one is a page at most while it is being written,
// and a socket has room for 200 kB by default.
const inFlight = 32

// maxMessage is more than one answer of the kernel ever is, in bytes: netlink's
// are a page or two.
const maxMessage = 64 << 10

// errShort is an answer that ends before it should.
var errShort = errors.New("the kernel's answer is too short")

// dial opens a conn in the namespace of the calling thread. Close it.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	// The kernel has answered before it returns from taking the requests. So the
	// limit is one that is never reached; without it, an answer that was lost
	// would be waited for for ever.
	limit := unix.NsecToTimeval(int64(answerLimit))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) // from now on only the kernel can send to us
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	unix.Close(c.fd)
	c.fd = -1
}

// exchange makes n requests: build writes the i-th, and answer is called with
// what came of it, exactly once for each i, in any order: with the message behind
// its netlink header, which it may use until it returns, or the error. A request
// that the kernel only acknowledges has an empty message.
func (c *conn) exchange(n int, build func(b *builder, i int), answer func(i int, message []byte, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	buffer := answerBuffers.Get().(*[maxMessage]byte)
	c.in = buffer[:]
	defer func() {
		c.in = nil
		answerBuffers.Put(buffer)
	}()
	for first := 0; first < n; first += inFlight {
		count := min(inFlight, n-first)
		if err := c.batch(first, count, build, answer); err != nil {
			for i := first + count; i < n; i++ {
				answer(i, nil, err)
			}
			return
		}
	}
}

// batch makes the requests from first on, so many that all their answers have
// room in the socket's buffer. The error is the socket's: those that lack an
// answer because of it have been told.
func (c *conn) batch(first, count int, build func(b *builder, i int), answer func(i int, message []byte, err error)) error {
	c.out = c.out[:0]
	base := c.seq + 1
	for i := range count {
		c.seq++
		start := len(c.out)
		build(&c.out, first+i)
		c.out.finish(start, c.seq)
	}
	var answered [inFlight]bool
	left := count
	_, err := again(func() (int, error) { return unix.Write(c.fd, c.out) })
	for left > 0 && err == nil {
		var size int
		if size, err = again(func() (int, error) { return unix.Read(c.fd, c.in) }); err != nil {
			break
		}
		err = each(c.in[:size], func(m message) {
			// What is none of ours is the late answer to a batch that was given up.
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

// again makes a system call until no signal interrupts it.
func again(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// message is an answer: what follows the netlink header, or the error that it is.
type message struct {
	seq  uint32
	body []byte
	err  error
}

// each takes what one read gave apart (linux/netlink.h: struct nlmsghdr).
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

// aligned is a length with the padding that follows it, of messages and
// attributes alike.
func aligned(n int) int { return (n + 3) &^ 3 }

// builder is requests, one behind the other.
type builder []byte

// begin starts a request: its netlink header, without length and sequence
// number, and the header of its kind, which has a multiple of 4 bytes.
func (b *builder) begin(kind, flags uint16, header []byte) {
	h := [unix.SizeofNlMsghdr]byte{}
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], unix.NLM_F_REQUEST|flags)
	*b = append(append(*b, h[:]...), header...)
}

// finish completes the request that starts at an offset.
func (b *builder) finish(start int, seq uint32) {
	h := (*b)[start:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint32(h[8:], seq)
}

// attribute adds an attribute (linux/rtnetlink.h: struct rtattr).
func (b *builder) attribute(kind uint16, value []byte) {
	at := len(*b)
	*b = append(slices.Grow(*b, unix.SizeofRtAttr+aligned(len(value))), 0, 0, 0, 0)
	binary.NativeEndian.PutUint16((*b)[at:], uint16(unix.SizeofRtAttr+len(value)))
	binary.NativeEndian.PutUint16((*b)[at+2:], kind)
	*b = append(*b, value...)
	*b = append(*b, make([]byte, aligned(len(value))-len(value))...)
}

func (b *builder) number(kind uint16, v uint32) {
	b.attribute(kind, binary.NativeEndian.AppendUint32(nil, v))
}

func (b *builder) address(kind uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		b.attribute(kind, v[:])
	} else {
		v := a.As16()
		b.attribute(kind, v[:])
	}
}

// nested adds an attribute that has one attribute in it, a number.
func (b *builder) nested(outer, inner uint16, v uint32) {
	var in builder
	in.number(inner, v)
	b.attribute(outer|unix.NLA_F_NESTED, in)
}

// attributes calls f for each attribute behind a header of so many bytes.
func attributes(message []byte, header int, f func(a *nfnetlink.AttributeDecoder)) error {
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

// family is the kernel's number of an address's family.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
