// Package xdp sends and receives outer packets through AF_XDP sockets.
//
// Such a socket passes Ethernet frames to a device's driver without routing, packet
// filter and queueing disciplines. A packet costs about half of what it costs on a raw
// socket. The kernel copies from the socket's memory (XDP_COPY): with zero-copy drivers
// the socket would own the queue's receive side, too.
package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/wait"
)

// Sizes of a Port.
const (
	sendFrames    = 1024 // packets that are being sent; a power of two
	receiveFrames = 4096 // packets that may wait to be received; a power of two
	frameSize     = 2048 // bytes; twice that for devices with a larger MTU
	headroom      = 256  // bytes of a frame that the kernel reserves before a received packet
	ethernetLen   = 14
)

// Port sends and receives through one queue of one Ethernet device. A device's queue
// can have only one port in the whole system, which all Senders share.
type Port struct {
	mu     sync.Mutex
	fd     int // -1 after Close
	mem    []byte
	size   int // bytes of a frame
	free   []uint64
	tx     *ring[unix.XDPDesc]
	done   *ring[uint64] // frames that the kernel returns
	broken bool

	// For the receiver.
	arrivals *wait.FD
	rx       *ring[unix.XDPDesc]
	fill     *ring[uint64] // frames that the kernel may fill
	descs    []unix.XDPDesc
}

// Open opens a queue of a device, for packets of up to mtu bytes.
func Open(device, queue, mtu int) (*Port, error) {
	p := &Port{size: frameSize}
	if mtu > p.MTU() {
		p.size *= 2 // a page, which is the maximum
	}
	if mtu > p.MTU() {
		return nil, fmt.Errorf("open AF_XDP socket: an MTU of %d is more than the %d bytes that a frame takes", mtu, p.MTU())
	}
	var err error
	if p.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open AF_XDP socket: %w", err)
	}
	if err := p.setUp(device, queue); err != nil {
		p.Close()
		return nil, fmt.Errorf("open AF_XDP socket: %w", err)
	}
	return p, nil
}

func (p *Port) setUp(device, queue int) error {
	// Packets that wait in the device count against the send buffer.
	buffer := 2 * sendFrames * p.size
	if unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	}
	_ = unix.SetsockoptInt(p.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, transport.BatchSize) // since Linux 6.18
	var err error
	if p.mem, err = newFrames(p.fd, sendFrames+receiveFrames, p.size); err != nil {
		return err
	}
	for ring, size := range map[int]int{
		unix.XDP_UMEM_FILL_RING: receiveFrames, unix.XDP_RX_RING: receiveFrames,
		unix.XDP_UMEM_COMPLETION_RING: sendFrames, unix.XDP_TX_RING: sendFrames,
	} {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_XDP, ring, size); err != nil {
			return os.NewSyscallError("setsockopt XDP ring", err)
		}
	}
	o, err := offsets(p.fd)
	if err != nil {
		return err
	}
	if p.fill, err = mapRing[uint64](p.fd, unix.XDP_UMEM_PGOFF_FILL_RING, o.Fr, receiveFrames); err != nil {
		return err
	}
	if p.rx, err = mapRing[unix.XDPDesc](p.fd, unix.XDP_PGOFF_RX_RING, o.Rx, receiveFrames); err != nil {
		return err
	}
	if p.done, err = mapRing[uint64](p.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, o.Cr, sendFrames); err != nil {
		return err
	}
	if p.tx, err = mapRing[unix.XDPDesc](p.fd, unix.XDP_PGOFF_TX_RING, o.Tx, sendFrames); err != nil {
		return err
	}
	p.free = make([]uint64, 0, sendFrames)
	for i := range sendFrames {
		p.free = append(p.free, uint64(i*p.size))
	}
	for i := range receiveFrames {
		p.fill.put(uint64((sendFrames + i) * p.size))
	}
	p.fill.publish()
	if err := unix.Bind(p.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(device), QueueID: uint32(queue)}); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("bind: %w: another program, perhaps a sixfourd, has the device's queue %d", err, queue)
		}
		return os.NewSyscallError("bind", err)
	}
	own, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	if p.arrivals, err = wait.New(own); err != nil {
		unix.Close(own)
	}
	return err
}

// MTU returns the size of the largest packet that fits, in bytes.
func (p *Port) MTU() int { return p.size - headroom - ethernetLen }

// Close closes the port and ends its Receive. Its Senders continue with their other
// socket.
func (p *Port) Close() error {
	if p.arrivals != nil {
		p.arrivals.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	err := unix.Close(p.fd)
	p.fd, p.broken = -1, true
	p.tx.unmap()
	p.done.unmap()
	p.fill.unmap()
	p.rx.unmap()
	if p.mem != nil {
		_ = unix.Munmap(p.mem)
	}
	return os.NewSyscallError("close", err)
}

// Broken reports that the port can no longer send. It may be replaced by a new one.
func (p *Port) Broken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// Receive implements transport.Receiver. It returns the packets that a Filter takes.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	if _, err := p.arrivals.Acquire(); err != nil {
		return 0, net.ErrClosed
	}
	defer p.arrivals.Release()
	for p.rx.ready() == 0 {
		if err := p.arrivals.Wait(unix.POLLIN); errors.Is(err, os.ErrClosed) {
			return 0, net.ErrClosed
		} else if err != nil {
			return 0, err
		}
	}
	p.descs = p.rx.takeSome(p.descs[:0], min(len(bufs), len(meta)))
	for i, d := range p.descs {
		pkt := p.mem[d.Addr+ethernetLen : d.Addr+uint64(d.Len)]
		meta[i] = transport.Meta{Size: len(pkt)} // the kernel merges no packets before they reach the socket
		if copy(bufs[i], pkt) < len(pkt) {
			meta[i].Size = 0
		}
		p.fill.put(d.Addr &^ uint64(p.size-1))
	}
	p.fill.publish()
	return len(p.descs), nil
}

// Lost implements transport.Receiver.
func (p *Port) Lost() (n uint32, ok bool) {
	fd, err := p.arrivals.Acquire()
	if err != nil {
		return 0, false
	}
	defer p.arrivals.Release()
	var s unix.XDPStatistics
	size := uint32(unsafe.Sizeof(s))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&size)), 0)
	return uint32(s.Rx_dropped + s.Rx_ring_full), errno == 0
}

// Sender sends to one next hop through a Port. Packets that the port does not take go
// through another transport.Sender, which Sender closes. Packets from the other Sender
// may wait in the device's queueing discipline, which packets of the port bypass: as
// long as they wait, all packets go through the other Sender, so that the order is kept.
type Sender struct {
	port   *Port
	eth    [ethernetLen]byte // without the EtherType
	detour atomic.Bool       // the last packet went through the other Sender
	transport.Sender
}

// Queuer is a transport.Sender that reports whether a packet that it sent has not left the host
// yet.
type Queuer interface{ Queued() bool }

var (
	_ Queuer             = (*transport.RawSender)(nil)
	_ transport.Receiver = (*Port)(nil)
	_ transport.Sender   = (*Sender)(nil)
)

// NewSender returns a sender from the device's hardware address to the next hop's,
// for IPv4 and IPv6 packets.
func NewSender(p *Port, from, to [6]byte, other transport.Sender) *Sender {
	s := &Sender{port: p, Sender: other}
	copy(s.eth[0:], to[:])
	copy(s.eth[6:], from[:])
	s.detour.Store(true) // earlier packets went that way
	return s
}

// Send implements transport.Sender.
func (s *Sender) Send(pkts []transport.Packet) (int, error) {
	if s.detour.Load() {
		if q, ok := s.Sender.(Queuer); ok && q.Queued() {
			return s.Sender.Send(pkts)
		}
		s.detour.Store(false)
	}
	sent := 0
	for sent < len(pkts) {
		batch := pkts[sent:min(sent+transport.BatchSize, len(pkts))]
		n := s.port.send(&s.eth, batch)
		sent += n
		if n < len(batch) {
			s.detour.Store(true)
			n, err := s.Sender.Send(pkts[sent:])
			return sent + n, err
		}
	}
	return sent, nil
}

// send sends a batch of at most BatchSize packets and returns how many were sent.
func (p *Port) send(eth *[ethernetLen]byte, pkts []transport.Packet) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || !p.reclaim(len(pkts)) {
		return 0
	}
	for i := range pkts {
		pkt := &pkts[i]
		size, etherType := ethernetLen+pkt.Len(), etherTypeOf(pkt.Head)
		if size > p.size || etherType == 0 {
			break // the device's MTU has grown, or the other Sender returns the error
		}
		at := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		f := p.mem[at : at+uint64(size)]
		copy(f, eth[:])
		binary.BigEndian.PutUint16(f[12:], etherType)
		copy(f[ethernetLen:], pkt.Head)
		copy(f[ethernetLen+len(pkt.Head):], pkt.Body)
		p.tx.put(unix.XDPDesc{Addr: at, Len: uint32(size)})
		n++
	}
	if n == 0 {
		return 0
	}
	p.tx.publish()
	p.broken = !p.kick()
	return n - p.tx.pending() // they are sent in order, so the pending ones are the last
}

// etherTypeOf returns the EtherType for a packet's IP version, or 0 for any other.
func etherTypeOf(pkt []byte) uint16 {
	switch header.Version(pkt) {
	case 4:
		return unix.ETH_P_IP
	case 6:
		return unix.ETH_P_IPV6
	}
	return 0
}

// How long to wait for a device whose queue is full.
const (
	pause    = 20 * time.Microsecond
	patience = 1000 // pauses
)

// reclaim takes back the frames that were sent, and waits until n are free.
func (p *Port) reclaim(n int) bool {
	for range patience {
		p.free = p.done.take(p.free)
		if len(p.free) >= n {
			return true
		}
		time.Sleep(pause)
	}
	return false
}

// kick makes the kernel send everything in the ring. It returns false if the device
// takes no more.
func (p *Port) kick() bool {
	for range patience {
		before := p.tx.pending()
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(p.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		left := p.tx.pending()
		switch {
		case errno != 0 && errno != unix.EAGAIN && errno != unix.ENOBUFS && errno != unix.EBUSY && errno != unix.EINTR:
			return false
		case left == 0:
			return true
		case left == before:
			time.Sleep(pause)
		}
	}
	return false
}
