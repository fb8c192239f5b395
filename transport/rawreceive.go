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
	"sixfour/transport/wait"
)

// receiveBuffer is the size in bytes that a receive socket requests from the kernel.
// With the default of some hundred packets, a burst that arrives while the receiver
// writes to the TUN device would be lost.
const receiveBuffer = 8 << 20

// RawReceiver receives the packets of one IP protocol that arrive at one local address,
// with their IP header and after the kernel has reassembled them.
//
// For IPv6 the kernel processes the IPv6 header and all extension headers, and returns
// only what follows them. RawReceiver rebuilds the IPv6 header from ancillary data: it
// has no extension headers, and a flow label of 0.
type RawReceiver struct {
	fd       *wait.FD
	batch    *batch
	arrivals *arrivals // IPv6 only
	known    *Segments // nil: segment sizes stay unknown
	segments []int     // of the packets of the last batch
}

// ListenRaw opens a receiver of a shard, in the network namespace of the calling thread.
// The local address need not exist yet; a link-local one needs a zone. For ICMPv6 the
// kernel delivers only messages with a correct checksum. Without CAP_NET_RAW the error
// names the missing capability.
func ListenRaw(local netip.Addr, protocol int, s Shard, o Options) (*RawReceiver, error) {
	op := fmt.Sprintf("open raw socket for protocol %d at %v", protocol, local)
	f, err := familyOf(local)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	own, err := f.open(protocol, local, o, func(fd int) error { return f.setUpReceiver(fd, o) })
	if err != nil {
		return nil, explain(op, err)
	}
	if err := begin(own, s.filter(f.version, protocol)); err != nil {
		unix.Close(own)
		return nil, fmt.Errorf("%s: filter for shard %d of %d: %w", op, s.Index, s.Count, err)
	}
	fd, err := wait.New(own)
	if err != nil {
		unix.Close(own)
		return nil, explain(op, err)
	}
	return newReceiver(fd, f, protocol, o.Segments), nil
}

func newReceiver(fd *wait.FD, f *family, protocol int, known *Segments) *RawReceiver {
	r := &RawReceiver{fd: fd, batch: newBatch(BatchSize), known: known, segments: make([]int, BatchSize)}
	if f.version == 6 {
		r.arrivals = newArrivals(r.batch, byte(protocol))
	}
	return r
}

func (f *family) setUpReceiver(fd int, o Options) error {
	if err := setFilter(fd, refuseAll); err != nil { // until begin
		return err
	}
	if o.ICMP != nil {
		if err := filterICMP(fd, f.version, o.ICMP); err != nil {
			return err
		}
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// Without CAP_NET_ADMIN, the limit is net.core.rmem_max.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if f.version == 6 {
		return tellArrivals(fd)
	}
	if o.Join.IsValid() {
		return join(fd, o.Join, o.JoinAt)
	}
	return nil
}

// begin replaces the filter of a socket that refuses all packets. A socket that is not
// bound yet gets packets to every address, and a socket without a filter gets those of
// all shards, so begin first discards what is in its queue. The kernel may have chosen
// the socket for a packet before the socket was bound, and not have run the filter yet:
// begin waits for such packets, which takes some milliseconds.
func begin(fd int, filter []bpf.Instruction) error {
	// The kernel waits for all readers of data that is protected by RCU (membarrier(2)).
	// On a kernel without this call, such a packet may still arrive.
	const membarrierGlobal = 1
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return setFilter(fd, filter)
		}
	}
}

// join makes the socket receive packets to an IPv4 group that arrive at the interface
// with an address, and no other packets.
func join(fd int, group, at netip.Addr) error {
	if !group.Is4() || !group.IsMulticast() || !at.Is4() {
		return fmt.Errorf("join %v at %v: a group is an IPv4 multicast address, and joined where an IPv4 address is", group, at)
	}
	err := unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: group.As4(), Interface: at.As4()})
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("join %v: no interface has the address %v: add it first (ip addr add %v/PREFIX dev DEV)", group, at, at)
	}
	if err != nil {
		return fmt.Errorf("join %v at %v: %w", group, at, err)
	}
	return os.NewSyscallError("setsockopt IP_MULTICAST_ALL", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
}

// Receive implements Receiver.
func (r *RawReceiver) Receive(bufs [][]byte, sizes []int) (int, error) {
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
			r.batch.sizes(sizes[:n])
			if r.arrivals != nil {
				r.arrivals.complete(bufs[:n], sizes[:n])
			}
			if r.known != nil {
				r.known.find(bufs[:n], sizes[:n], r.segments[:n])
			} else {
				assume(sizes[:n], r.segments[:n])
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

// Segment returns how many bytes of payload each segment of packet i of the last batch
// has, except for the last segment, which may have less, if the packet is an aggregate
// of one inner flow (see Segments). Otherwise it returns Single, Small or Unknown.
func (r *RawReceiver) Segment(i int) int { return r.segments[i] }

// Wake starts recording: see Segments.Wake.
func (r *RawReceiver) Wake() {
	if r.known != nil {
		r.known.Wake()
	}
}

// fill leaves room for the header that the kernel does not return.
func (r *RawReceiver) fill(bufs [][]byte) {
	if r.arrivals == nil {
		r.batch.fill(bufs, 0)
		return
	}
	r.batch.fill(bufs, header.IPv6Len)
	r.arrivals.expect(r.batch.used)
}

// Lost implements Receiver.
func (r *RawReceiver) Lost() (n uint32, ok bool) {
	fd, err := r.fd.Acquire()
	if err != nil {
		return 0, false
	}
	defer r.fd.Release()
	var info [unix.SK_MEMINFO_DROPS + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[unix.SK_MEMINFO_DROPS], errno == 0 // since Linux 4.12
}

// Close implements Receiver.
func (r *RawReceiver) Close() error { return r.fd.Close() }
