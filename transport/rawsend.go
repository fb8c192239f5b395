package transport

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/transport/wait"
)

// RawSender sends whole packets of one IP version, headers included. The kernel changes
// little: it computes the total length and the header checksum of IPv4 again, and
// replaces an identification of 0 only if DF is clear; it leaves IPv6 as it is.
//
// The kernel looks for a route and for an IPsec policy by the sender's protocol,
// although the socket itself has the protocol IPPROTO_RAW: a socket of the tunnel's
// protocol would also receive packets and ICMP errors.
type RawSender struct {
	fd       *wait.FD
	family   *family
	protocol byte // protocol that the kernel uses for its lookups; 0: none
	batch    *batch
	names    []name   // destination of each packet of the batch
	control  *control // ancillary data of each IPv4 packet; nil: none
	refused  error    // error for a packet that is not of this version
}

// DialRaw opens a sender of packets of one IP protocol, of the local address's IP
// version, in the network namespace of the calling thread. It is bound to that address,
// so that routing rules by source apply to it, and multicast leaves through the
// interface of that address. Rules and IPsec policies that select the protocol apply to
// it if the kernel supports it (Linux 6.4, and stable kernels from May 2023 on). A
// link-local address needs a zone. Without CAP_NET_RAW the error names the missing
// capability.
//
// Send refuses a packet of the other IP version, or whose Head is not a whole IP header,
// with an error that wraps EINVAL, and one larger than the device's MTU with EMSGSIZE.
func DialRaw(local netip.Addr, protocol int, o Options) (*RawSender, error) {
	op := fmt.Sprintf("open raw socket for protocol %d from %v", protocol, local)
	f, err := familyOf(local)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	own, err := f.open(unix.SOCK_RAW, unix.IPPROTO_RAW, netip.AddrPortFrom(local, 0), o, f.setUpSender)
	if err != nil {
		return nil, explain(op, err)
	}
	fd, err := wait.New(own)
	if err != nil {
		unix.Close(own)
		return nil, explain(op, err)
	}
	s := &RawSender{
		fd: fd, family: f, batch: newBatch(BatchSize), names: make([]name, BatchSize),
		refused: fmt.Errorf("send from %v: the bytes do not begin with an IPv%d header: %w", local, f.version, unix.EINVAL),
	}
	if f.takesProtocol(own, byte(protocol)) {
		s.protocol = byte(protocol)
	}
	if s.protocol != 0 && f.version == 4 {
		s.control = newControl(s.protocol)
	}
	for i := range s.names {
		s.names[i] = s.newName()
		if s.control != nil {
			s.batch.msgs[i].hdr.Control = &s.control.bytes[0]
			s.batch.msgs[i].hdr.SetControllen(len(s.control.bytes))
		}
		s.batch.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		s.batch.msgs[i].hdr.Namelen = f.nameLen()
	}
	return s, nil
}

// setUpSender makes a socket of IPPROTO_RAW, which sends packets with the header that
// they have, and which receives nothing.
func (f *family) setUpSender(fd int) error {
	// Without this the kernel does not report that a queue was full and the packet was
	// lost. ICMP errors do not come to this socket, which has another protocol.
	if err := unix.SetsockoptInt(fd, f.level, f.recvErr, 1); err != nil {
		return os.NewSyscallError("setsockopt RECVERR", err)
	}
	if f.version == 4 {
		if err := leaveOutLoop(fd); err != nil {
			return err
		}
	}
	// Received packets would only fill the socket's queue.
	return f.setFilter(fd, refuseAll)
}

// Queued reports whether a packet waits in a queue of the kernel, of the socket or of a
// device. It returns false if the kernel does not report this.
func (s *RawSender) Queued() bool {
	fd, err := s.fd.Acquire()
	if err != nil {
		return false
	}
	defer s.fd.Release()
	var info [memInfoSent + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && info[memInfoSent] > 0
}

// memInfoSent is the index in SO_MEMINFO of the number of bytes that were sent and are
// not freed yet (SK_MEMINFO_WMEM_ALLOC in linux/sock_diag.h).
const memInfoSent = 2

// Send implements Sender.
func (s *RawSender) Send(pkts []Packet) (int, error) {
	return sendAll(s.fd, s.batch, s, pkts, s.refused)
}

// filler points its batch at packets, up to the first one that must be refused.
type filler interface{ fill(pkts []Packet) }

// sendAll implements Sender.Send with a batch and what fills it. Refused is the error for
// a packet with which the batch is not filled.
func sendAll(w *wait.FD, b *batch, f filler, pkts []Packet, refused error) (sent int, err error) {
	fd, err := w.Acquire()
	if err != nil {
		return 0, net.ErrClosed
	}
	defer w.Release()
	b.failed = 0
	for sent < len(pkts) {
		if f.fill(pkts[sent:]); b.used == 0 {
			return sent, refused
		}
		for from := 0; from < b.used; {
			n, errno := b.send(fd, from)
			sent += b.packets(from, n)
			from += n
			switch errno {
			case 0:
			case unix.EAGAIN:
				if err := w.Wait(unix.POLLOUT); err != nil {
					return sent, closed(err)
				}
			default:
				forget(fd, errno)
				b.failed = int(b.counts[from])
				return sent, os.NewSyscallError("sendmmsg", errno)
			}
		}
	}
	return sent, nil
}

// fill implements filler.
func (s *RawSender) fill(pkts []Packet) {
	s.batch.empty()
	for i := range min(len(pkts), len(s.names)) {
		if !s.family.begins(pkts[i].Head) {
			return
		}
		s.family.setDest(&s.names[i], pkts[i].Head)
		s.batch.start()
		s.batch.add(&pkts[i], 0)
	}
}

// forget empties the error queue, in which the kernel explains that a packet was too
// large: until it is empty, the socket always seems ready.
func forget(fd int, why unix.Errno) {
	if why != unix.EMSGSIZE {
		return
	}
	for {
		if _, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// SendOne implements Sender.
func (s *RawSender) SendOne(pkt []byte) error {
	fd, err := s.fd.Acquire()
	if err != nil {
		return net.ErrClosed
	}
	defer s.fd.Release()
	if !s.family.begins(pkt) {
		return s.refused
	}
	to := s.newName()
	s.family.setDest(&to, pkt)
	return s.family.sendOne(fd, pkt, &to, s.control)
}

// sendOne implements Sender.SendOne.
func (f *family) sendOne(fd int, pkt []byte, to *name, c *control) error {
	for {
		switch errno := f.sendmsg(fd, pkt, to, c, unix.MSG_DONTWAIT); errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			return os.NewSyscallError("sendmsg", unix.ENOBUFS)
		default:
			forget(fd, errno)
			return os.NewSyscallError("sendmsg", errno)
		}
	}
}

// Close implements Sender.
func (s *RawSender) Close() error { return s.fd.Close() }
