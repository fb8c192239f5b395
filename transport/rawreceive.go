package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport/filter"
	"sixfour/transport/wait"
)

// receiveBuffer is the size in bytes that a receive socket requests from the kernel.
// With the default of some hundred packets, a burst that arrives while the receiver
// writes to the TUN device would be lost.
const receiveBuffer = 8 << 20

// RawPort is a Port for one IP protocol and one local address. It receives packets with
// their IP header, after the kernel has reassembled them. Each of its senders has a
// socket of its own, see RawSender.
//
// For IPv6 the kernel processes the IPv6 header and all extension headers, and returns
// only what follows them. RawPort rebuilds the IPv6 header from ancillary data: it
// has no extension headers, and a flow label of 0.
type RawPort struct {
	fd       *wait.FD
	batch    *batch
	arrivals *arrivals // IPv6 only
	known    *Segments // nil: segment sizes stay unknown
	local    netip.Addr
	protocol int
}

// ListenRaw opens a port of a shard, in the network namespace of the calling thread.
// The local address need not exist yet; a link-local one needs a zone. For ICMPv6 the
// kernel delivers only messages with a correct checksum. Without CAP_NET_RAW the error
// names the missing capability.
func ListenRaw(local netip.Addr, protocol int, s Shard, o Options) (*RawPort, error) {
	op := fmt.Sprintf("open raw socket for protocol %d at %v", protocol, local)
	f, err := familyOf(local)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	own, err := f.open(unix.SOCK_RAW, protocol, netip.AddrPortFrom(local, 0), o, func(fd int) error { return f.setUpReceiver(fd, o) })
	if err != nil {
		return nil, explain(op, err)
	}
	if err := f.begin(own, filter.Shard(s.Index, s.Count, f.version, protocol)); err != nil {
		unix.Close(own)
		return nil, fmt.Errorf("%s: filter for shard %d of %d: %w", op, s.Index, s.Count, err)
	}
	fd, err := wait.New(own)
	if err != nil {
		unix.Close(own)
		return nil, explain(op, err)
	}
	return newRawPort(fd, f, local, protocol, o.Segments), nil
}

func newRawPort(fd *wait.FD, f *family, local netip.Addr, protocol int, known *Segments) *RawPort {
	r := &RawPort{fd: fd, batch: newBatch(BatchSize), known: known, local: local, protocol: protocol}
	if f.version == 6 {
		r.arrivals = newArrivals(r.batch, byte(protocol))
	}
	return r
}

func (f *family) setUpReceiver(fd int, o Options) error {
	if err := f.setFilter(fd, refuseAll); err != nil { // until begin
		return err
	}
	if o.ICMP != nil {
		if err := f.filterICMP(fd, o.ICMP); err != nil {
			return err
		}
	}
	widen(fd)
	if f.version == 6 {
		return describeArrivals(fd)
	}
	if o.Join.IsValid() {
		return join(fd, o.Join, o.JoinOn)
	}
	return nil
}

// widen makes a socket's receive buffer larger.
func widen(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// Without CAP_NET_ADMIN, the limit is net.core.rmem_max.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
}

// begin replaces the filter of a socket that refuses all packets. A socket that is not
// bound yet gets packets to every address, and a socket without a filter gets those of
// all shards, so begin first discards what is in its queue. The kernel may have chosen
// the socket for a packet before the socket was bound, and not have run the filter yet:
// begin waits for such packets, which takes some milliseconds.
func (f *family) begin(fd int, filter []bpf.Instruction) error {
	// The kernel waits for all readers of data that is protected by RCU (membarrier(2)).
	// On a kernel without this call, such a packet may still arrive.
	const membarrierGlobal = 1
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return f.setFilter(fd, filter)
		}
	}
}

// Receive implements Receiver.
func (r *RawPort) Receive(bufs [][]byte, meta []Meta) (int, error) {
	fd, err := r.fd.Acquire()
	if err != nil {
		return 0, net.ErrClosed
	}
	defer r.fd.Release()
	r.fill(bufs)
	for {
		n, errno := r.batch.receive(fd)
		switch errno {
		case 0:
			r.batch.sizes(meta[:n])
			if r.arrivals != nil {
				r.arrivals.complete(bufs[:n], meta[:n])
			}
			if r.known != nil {
				r.known.find(bufs[:n], meta[:n])
			} else {
				assume(meta[:n])
			}
			return n, nil
		case unix.EAGAIN:
			if err := r.fd.Wait(unix.POLLIN); err != nil {
				return 0, closed(err)
			}
		default:
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// Wake starts recording: see Segments.Wake.
func (r *RawPort) Wake() {
	if r.known != nil {
		r.known.Wake()
	}
}

// fill leaves room for the header that the kernel does not return.
func (r *RawPort) fill(bufs [][]byte) {
	if r.arrivals == nil {
		r.batch.fill(bufs, 0)
		return
	}
	r.batch.fill(bufs, header.IPv6Len)
	r.arrivals.expect(r.batch.used)
}

// Lost implements Receiver.
func (r *RawPort) Lost() (n uint32, ok bool) { return lost(r.fd) }

// lost returns the number of packets for which a socket had no room.
func lost(w *wait.FD) (n uint32, ok bool) {
	fd, err := w.Acquire()
	if err != nil {
		return 0, false
	}
	defer w.Release()
	var info [unix.SK_MEMINFO_DROPS + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[unix.SK_MEMINFO_DROPS], errno == 0 // since Linux 4.12
}

// Sender implements Port: see DialRaw. The sender uses no memory and no descriptor of
// the port, which may be closed before it.
func (r *RawPort) Sender(o Options) (Sender, error) { return DialRaw(r.local, r.protocol, o) }

// KernelHeaders implements Port.
func (r *RawPort) KernelHeaders() int { return 0 }

// Streams implements Port.
func (r *RawPort) Streams() bool { return false }

// Close implements Port.
func (r *RawPort) Close() error { return r.fd.Close() }
