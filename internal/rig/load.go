package rig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// LoadOptions say what to send, and for how long.
type LoadOptions struct {
	UDP      bool
	Duration time.Duration // default 1 s
	Streams  int           // TCP connections, or UDP sockets with a port each; default 1
	Size     int           // UDP: bytes of a datagram's content; default 1000
	Rate     int           // UDP: datagrams per second of each stream; default: as many as the kernel takes
	Segments int           // UDP: datagrams passed to and from the kernel as one (UDP_SEGMENT); default 1
	// Drain is how long to wait for another datagram after the last one was sent, while
	// some have not arrived (UDP); default 300 ms.
	Drain time.Duration
}

// LoadResult is the result of a load. Bytes are payload, counted at the receiver.
type LoadResult struct {
	Bytes     int64
	Elapsed   time.Duration // from the first byte to the last one, at the receiver
	Sent      int64         // UDP: datagrams that the kernel took
	Received  int64         // UDP: datagrams that arrived
	Overrun   int64         // UDP: datagrams for which the receiving socket had no room
	Reordered int64         // UDP: datagrams that arrived after a later one of their stream
	Gap       time.Duration // UDP: the longest time between two datagrams of a stream
}

// BytesPerSecond returns the throughput.
func (r LoadResult) BytesPerSecond() float64 { return rate(r.Bytes, r.Elapsed) }

// PacketsPerSecond returns the rate at which datagrams arrived.
func (r LoadResult) PacketsPerSecond() float64 { return rate(r.Received, r.Elapsed) }

// Lost returns how many datagrams did not arrive.
func (r LoadResult) Lost() int64 { return r.Sent - r.Received }

func rate(n int64, elapsed time.Duration) float64 {
	if elapsed <= 0 {
		return 0
	}
	return float64(n) / elapsed.Seconds()
}

const (
	loadBatch  = 64      // datagrams per system call
	loadBuffer = 4 << 20 // receive buffer in bytes that a socket requests
	loadDrain  = 300 * time.Millisecond
	// loadGrace is how much longer than its duration a load may take.
	loadGrace = 10 * time.Second
)

// Load sends as much as it can, or at a fixed rate, from one namespace to an address of
// another for a while, and counts what arrives. It does not check the content;
// TCPTransfer and UDPExchange do.
func Load(ctx context.Context, from, to *Namespace, addr netip.AddrPort, o LoadOptions) (LoadResult, error) {
	if o.Duration == 0 {
		o.Duration = time.Second
	}
	if o.Size == 0 {
		o.Size = 1000
	}
	if o.Drain == 0 {
		o.Drain = loadDrain
	}
	o.Streams, o.Segments = max(o.Streams, 1), max(o.Segments, 1)
	if o.UDP && (o.Size < loadHeaderLen || o.Size*o.Segments > 0xffff) {
		return LoadResult{}, fmt.Errorf("load of %d datagrams of %d bytes at a time: sizes go from %d to %d, together", o.Segments, o.Size, loadHeaderLen, 0xffff)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Duration+o.Drain+loadGrace)
	defer cancel()
	stream := tcpStream
	if o.UDP {
		stream = udpStream
	}
	m := &meter{}
	errs := make([]error, o.Streams)
	var wg sync.WaitGroup
	for i := range o.Streams {
		a := addr
		if addr.Port() != 0 {
			a = netip.AddrPortFrom(addr.Addr(), addr.Port()+uint16(i))
		}
		wg.Go(func() {
			if errs[i] = stream(ctx, from, to, a, o, m); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return m.result(), errors.Join(errs...)
}

// meter adds up the results of the receivers of a load.
type meter struct {
	bytes, sent, received, reordered, overrun atomic.Int64

	mu          sync.Mutex
	first, last time.Time
	gap         time.Duration
}

// extend extends the period in which data arrived.
func (m *meter) extend(first, last time.Time, gap time.Duration) {
	if first.IsZero() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap = max(m.gap, gap)
	if m.first.IsZero() || first.Before(m.first) {
		m.first = first
	}
	if last.After(m.last) {
		m.last = last
	}
}

func (m *meter) result() LoadResult {
	return LoadResult{
		Bytes:     m.bytes.Load(),
		Elapsed:   m.last.Sub(m.first),
		Sent:      m.sent.Load(),
		Received:  m.received.Load(),
		Overrun:   m.overrun.Load(),
		Reordered: m.reordered.Load(),
		Gap:       m.gap,
	}
}

// tcpStream runs one connection: it writes for the duration, then closes it.
func tcpStream(ctx context.Context, from, to *Namespace, addr netip.AddrPort, o LoadOptions, m *meter) error {
	l, err := to.ListenTCP(addr)
	if err != nil {
		return err
	}
	defer l.Close()
	defer interruptOnDone(ctx, l)()
	received := make(chan error, 1)
	go func() { received <- tcpSink(ctx, l, m) }()
	err = tcpSource(ctx, from, l.Addr().(*net.TCPAddr).AddrPort(), o.Duration)
	if err != nil {
		l.Close() // the sink may be waiting for a connection that never comes
	}
	return errors.Join(err, <-received)
}

func tcpSource(ctx context.Context, from *Namespace, addr netip.AddrPort, d time.Duration) error {
	c, err := from.DialTCP(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer interruptOnDone(ctx, c)()
	buf := make([]byte, 128<<10)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := c.Write(buf); err != nil {
			return from.explain("load "+addr.String(), causeOf(ctx, err))
		}
	}
	// The data in the buffers arrives before the end of the connection.
	if err := c.CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return causeOf(ctx, err)
}

func tcpSink(ctx context.Context, l *net.TCPListener, m *meter) error {
	c, err := l.AcceptTCP()
	if err != nil {
		return causeOf(ctx, err)
	}
	defer c.Close()
	defer interruptOnDone(ctx, c)()
	var first, last time.Time
	defer func() { m.extend(first, last, 0) }()
	for buf := make([]byte, 256<<10); ; {
		n, err := c.Read(buf)
		if n > 0 {
			last = time.Now()
			if first.IsZero() {
				first = last
			}
			m.bytes.Add(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
}

// loadHeaderLen is the length in bytes of a datagram's number within its stream.
const loadHeaderLen = 8

// batcher is the common part of ipv4.PacketConn and ipv6.PacketConn.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

func batches(c *net.UDPConn, v6 bool) batcher {
	if v6 {
		return ipv6.NewPacketConn(c)
	}
	return ipv4.NewPacketConn(c)
}

func messages(size int) []ipv4.Message {
	ms := make([]ipv4.Message, loadBatch)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, size)}
	}
	return ms
}

// udpStream runs one socket at each end.
func udpStream(ctx context.Context, from, to *Namespace, addr netip.AddrPort, o LoadOptions, m *meter) error {
	sink, err := to.ListenUDP(addr)
	if err != nil {
		return err
	}
	defer sink.Close()
	_ = sink.SetReadBuffer(loadBuffer) // as much as net.core.rmem_max allows
	buffer := o.Size
	if o.Segments > 1 {
		buffer = 0xffff
		if err := setUDP(sink, unix.UDP_GRO, 1); err != nil {
			return err
		}
	}
	dst := sink.LocalAddr().(*net.UDPAddr)
	v6 := dst.IP.To4() == nil

	drained, cancel := context.WithCancel(ctx)
	defer cancel()
	defer interruptOnDone(drained, sink)()
	received := make(chan error, 1)
	go func() { received <- udpSink(drained, batches(sink, v6), buffer, o.Size, m) }()
	err = udpSource(ctx, from, dst, v6, o, m)
	if err == nil {
		drain(ctx, m, o.Drain)
	}
	cancel()
	err = errors.Join(err, <-received)
	overrun, lostErr := overrunOf(sink)
	m.overrun.Add(int64(overrun))
	return errors.Join(err, lostErr)
}

// drain waits until all datagrams that were sent have arrived, or none has arrived for
// a while.
func drain(ctx context.Context, m *meter, idle time.Duration) {
	const step = 10 * time.Millisecond
	received := m.received.Load()
	for waited := time.Duration(0); waited < idle && received < m.sent.Load(); waited += step {
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return
		}
		if n := m.received.Load(); n != received {
			received, waited = n, 0
		}
	}
}

// overrunOf returns how many datagrams a socket had no room for.
func overrunOf(c *net.UDPConn) (lost uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info [unix.SK_MEMINFO_DROPS + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("getsockopt SO_MEMINFO", errno)
	}
	return info[unix.SK_MEMINFO_DROPS], err
}

func udpSource(ctx context.Context, from *Namespace, dst *net.UDPAddr, v6 bool, o LoadOptions, m *meter) error {
	var c *net.UDPConn
	err := from.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, dst)
		return err
	})
	if err != nil {
		return from.explain("load "+dst.String(), err)
	}
	defer c.Close()
	defer interruptOnDone(ctx, c)()
	if o.Segments > 1 {
		if err := setUDP(c, unix.UDP_SEGMENT, o.Size); err != nil {
			return err
		}
	}
	conn, ms := batches(c, v6), messages(o.Size*o.Segments)
	start, n := time.Now(), uint64(0)
	for {
		now := time.Since(start)
		if now >= o.Duration {
			return nil
		}
		count := loadBatch
		if o.Rate > 0 {
			due := uint64(now.Seconds()*float64(o.Rate)) + 1
			if n >= due {
				time.Sleep(time.Duration(o.Segments) * time.Second / time.Duration(o.Rate))
				continue
			}
			count = int(min((due-n-1)/uint64(o.Segments)+1, loadBatch))
		}
		for i := range count * o.Segments {
			binary.BigEndian.PutUint64(ms[i/o.Segments].Buffers[0][i%o.Segments*o.Size:], n+uint64(i))
		}
		sent, err := conn.WriteBatch(ms[:count], 0)
		taken := max(sent, 0) * o.Segments
		n += uint64(taken)
		m.sent.Add(int64(taken))
		if err != nil && !transient(err) {
			return from.explain("load "+dst.String(), causeOf(ctx, err))
		}
	}
}

// transient reports whether an error costs only one datagram: a full queue, or an ICMP
// error about an earlier one.
func transient(err error) bool {
	for _, e := range []error{unix.ENOBUFS, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// setUDP sets a socket option of UDP.
func setUDP(c *net.UDPConn, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, option, value) })
	return errors.Join(err, os.NewSyscallError("setsockopt", failed))
}

// udpSink counts datagrams of a size. One buffer may receive several of them.
func udpSink(ctx context.Context, conn batcher, buffer, size int, m *meter) error {
	var first, last time.Time
	var gap time.Duration
	defer func() { m.extend(first, last, gap) }()
	ms := messages(buffer)
	for next := uint64(0); ; {
		n, err := conn.ReadBatch(ms, 0)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := time.Now()
		if first.IsZero() {
			first = now
		} else {
			gap = max(gap, now.Sub(last))
		}
		last = now
		for i := range ms[:n] {
			for b := ms[i].Buffers[0][:ms[i].N]; len(b) >= size; b = b[size:] {
				m.received.Add(1)
				m.bytes.Add(int64(size))
				number := binary.BigEndian.Uint64(b)
				if number < next {
					m.reordered.Add(1)
				} else {
					next = number + 1
				}
			}
		}
	}
}
