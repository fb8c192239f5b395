package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"sixfour/transport/wait"
)

// receiveBuffer is what a receive socket asks the kernel for, in bytes. With
// the default of some hundred packets, a burst that arrives while the receiver
// writes to the TUN device would be lost.
const receiveBuffer = 8 << 20

// RawReceiver receives the packets of one IP protocol that arrive at one local
// IPv4 address, with their IP header and after the kernel has reassembled them.
type RawReceiver struct {
	fd    *wait.FD
	batch *batch
}

// ListenRaw4 opens a receiver of a shard. The local address need not be there
// yet. Without CAP_NET_RAW the error says so.
func ListenRaw4(local netip.Addr, protocol int, s Shard, o Options) (*RawReceiver, error) {
	lc := net.ListenConfig{Control: o.control(func(fd int) error {
		if err := leavePathMTU(fd); err != nil {
			return err
		}
		if o.ICMP != nil {
			if err := filterICMP(fd, o.ICMP); err != nil {
				return err
			}
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			// Without CAP_NET_ADMIN: as much as net.core.rmem_max allows.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		return nil
	})}
	pc, err := lc.ListenPacket(context.Background(), "ip4:"+strconv.Itoa(protocol), local.String())
	if err != nil {
		return nil, explain(fmt.Sprintf("open raw socket for protocol %d at %v", protocol, local), err)
	}
	conn := pc.(*net.IPConn)
	if s.Count > 1 {
		if err := setFilter(conn, s.filter()); err != nil {
			pc.Close()
			return nil, fmt.Errorf("filter for shard %d of %d: %w", s.Index, s.Count, err)
		}
	}
	fd, err := detach(conn)
	if err != nil {
		return nil, err
	}
	return &RawReceiver{fd, newBatch(BatchSize)}, nil
}

// detach takes a socket out of the runtime's poller. It ends the connection.
func detach(c *net.IPConn) (*wait.FD, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var own int
	cerr := raw.Control(func(fd uintptr) { own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("fcntl F_DUPFD_CLOEXEC: %w", err)
	}
	fd, err := wait.New(own)
	if err != nil {
		unix.Close(own)
	}
	return fd, err
}

// Receive is described at the interface Receiver.
func (r *RawReceiver) Receive(bufs [][]byte, sizes []int) (int, error) {
	fd, err := r.fd.Acquire()
	if err != nil {
		return 0, net.ErrClosed
	}
	defer r.fd.Release()
	r.batch.fill(bufs)
	for {
		n, errno := r.batch.receive(fd)
		switch errno {
		case 0:
			r.batch.sizes(sizes[:n])
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

// Close is described at the interface Receiver.
func (r *RawReceiver) Close() error { return r.fd.Close() }

// RawSender sends whole IPv4 packets, headers included, to one remote address.
// The kernel completes nothing that matters to us: it computes the header
// checksum again, and replaces an identification of 0 only if DF is clear.
type RawSender struct {
	fd    *wait.FD
	batch *batch
}

// DialRaw4 opens a sender. It is bound to the local address, so that routing
// rules by source hold for it. Without CAP_NET_RAW the error says so.
func DialRaw4(local, remote netip.Addr, o Options) (*RawSender, error) {
	op := fmt.Sprintf("open raw socket from %v to %v", local, remote)
	d := net.Dialer{LocalAddr: &net.IPAddr{IP: local.AsSlice()}, Control: o.control(leavePathMTU)}
	c, err := d.Dial("ip4:"+strconv.Itoa(unix.IPPROTO_RAW), remote.String())
	if err != nil {
		return nil, explain(op, err)
	}
	conn := c.(*net.IPConn)
	if err := setUpSender(conn); err != nil {
		c.Close()
		return nil, explain(op, err)
	}
	fd, err := detach(conn)
	if err != nil {
		return nil, explain(op, err)
	}
	return &RawSender{fd, newBatch(BatchSize)}, nil
}

func setUpSender(c *net.IPConn) error {
	if _, err := ipv4.NewRawConn(c); err != nil { // sets IP_HDRINCL
		return err
	}
	// Without this the kernel does not tell that a queue was full and the packet is
	// lost. ICMP errors do not come to this socket, which has another protocol.
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("setsockopt IP_RECVERR: %w", err)
	}
	// It only sends: whatever arrives would fill its queue for nothing.
	return setFilter(c, []bpf.Instruction{bpf.RetConstant{Val: 0}})
}

func setFilter(c *net.IPConn, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	return ipv4.NewPacketConn(c).SetBPF(raw)
}

// Send is described at the interface Sender.
func (s *RawSender) Send(pkts []Packet) (int, error) {
	fd, err := s.fd.Acquire()
	if err != nil {
		return 0, net.ErrClosed
	}
	defer s.fd.Release()
	sent := 0
	for sent < len(pkts) {
		s.batch.fillPackets(pkts[sent:])
		for from := 0; from < s.batch.used; {
			n, errno := s.batch.send(fd, from)
			from += n
			sent += n
			switch errno {
			case 0:
			case unix.EAGAIN:
				if err := s.fd.Wait(unix.POLLOUT); err != nil {
					return sent, closed(err)
				}
			default:
				forget(fd, errno)
				return sent, os.NewSyscallError("sendmmsg", errno)
			}
		}
	}
	return sent, nil
}

// forget empties the error queue, in which the kernel explains that a packet was
// too large: while there is something in it, the socket always seems ready.
func forget(fd int, why error) {
	if !errors.Is(why, unix.EMSGSIZE) {
		return
	}
	for {
		if _, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// SendOne is described at the interface Sender.
func (s *RawSender) SendOne(pkt []byte) error {
	fd, err := s.fd.Acquire()
	if err != nil {
		return net.ErrClosed
	}
	defer s.fd.Release()
	for {
		_, err := unix.Write(fd, pkt)
		switch err {
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.fd.Wait(unix.POLLOUT); err != nil {
				return closed(err)
			}
		default:
			forget(fd, err)
			return os.NewSyscallError("write", err)
		}
	}
}

// Close is described at the interface Sender.
func (s *RawSender) Close() error { return s.fd.Close() }

// control sets the common socket options, then those of more, before the
// socket is bound or connected.
func (o Options) control(more func(fd int) error) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			// The local address may come later, or leave for a while.
			if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
				err = os.NewSyscallError("setsockopt IP_FREEBIND", err)
				return
			}
			if o.Mark != 0 {
				if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)); err != nil {
					err = os.NewSyscallError("setsockopt SO_MARK", err)
					return
				}
			}
			if more != nil {
				err = more(int(fd))
			}
		})
		return errors.Join(cerr, err)
	}
}

// leavePathMTU leaves the path MTU to the owner of the tunnel. The kernel would
// believe every ICMP error about a packet of a receiver's protocol, and hold what
// is sent against that, or cut it; but not every error is to be believed (RFC
// 5927).
func leavePathMTU(fd int) error {
	return os.NewSyscallError("setsockopt IP_MTU_DISCOVER",
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE))
}

// explain adds the way out to an error of opening a socket.
func explain(op string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN (setcap cap_net_raw,cap_net_admin+ep)", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// closed turns the error for a closed descriptor into net.ErrClosed.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
