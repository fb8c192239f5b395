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
)

// receiveBuffer is what a receive socket asks the kernel for, in bytes. With
// the default of some hundred packets, a burst that arrives while the receiver
// writes to the TUN device would be lost.
const receiveBuffer = 8 << 20

// RawReceiver receives the packets of one IP protocol that arrive at one local
// IPv4 address, with their IP header and after the kernel has reassembled them.
type RawReceiver struct {
	conn  *net.IPConn
	raw   syscall.RawConn
	batch *batch
	read  func(fd uintptr) bool // made once: a closure per call would allocate
	n     int
	errno unix.Errno
}

// ListenRaw4 opens a receiver. The local address need not be there yet. Without
// CAP_NET_RAW the error says so.
func ListenRaw4(local netip.Addr, protocol int, o Options) (*RawReceiver, error) {
	lc := net.ListenConfig{Control: o.control(func(fd int) error {
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
	r := &RawReceiver{conn: pc.(*net.IPConn), batch: newBatch(BatchSize)}
	if r.raw, err = r.conn.SyscallConn(); err != nil {
		pc.Close()
		return nil, err
	}
	r.read = r.readBatch
	return r, nil
}

// Receive is described at the interface Receiver.
func (r *RawReceiver) Receive(bufs [][]byte, sizes []int) (int, error) {
	r.batch.fill(bufs)
	if err := r.raw.Read(r.read); err != nil {
		return 0, closed(err)
	}
	if r.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", r.errno)
	}
	r.batch.sizes(sizes[:r.n])
	return r.n, nil
}

// readBatch is one attempt; false asks the poller to wait until there is more.
func (r *RawReceiver) readBatch(fd uintptr) bool {
	r.n, r.errno = r.batch.receive(int(fd))
	return r.errno != unix.EAGAIN
}

// Close is described at the interface Receiver.
func (r *RawReceiver) Close() error { return r.conn.Close() }

// RawSender sends whole IPv4 packets, headers included, to one remote address.
// The kernel completes nothing that matters to us: it computes the header
// checksum again, and replaces an identification of 0 only if DF is clear.
type RawSender struct {
	conn  *net.IPConn
	raw   syscall.RawConn
	batch *batch
	write func(fd uintptr) bool
	from  int // the next packet of the batch
	n     int
	errno unix.Errno
}

// DialRaw4 opens a sender. It is bound to the local address, so that routing
// rules by source hold for it. Without CAP_NET_RAW the error says so.
func DialRaw4(local, remote netip.Addr, o Options) (*RawSender, error) {
	op := fmt.Sprintf("open raw socket from %v to %v", local, remote)
	d := net.Dialer{LocalAddr: &net.IPAddr{IP: local.AsSlice()}, Control: o.control(nil)}
	c, err := d.Dial("ip4:"+strconv.Itoa(unix.IPPROTO_RAW), remote.String())
	if err != nil {
		return nil, explain(op, err)
	}
	s := &RawSender{conn: c.(*net.IPConn), batch: newBatch(BatchSize)}
	if err := s.setUp(); err != nil {
		c.Close()
		return nil, explain(op, err)
	}
	return s, nil
}

func (s *RawSender) setUp() error {
	if _, err := ipv4.NewRawConn(s.conn); err != nil { // sets IP_HDRINCL
		return err
	}
	// It only sends: whatever arrives would fill its queue for nothing.
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return err
	}
	if err := ipv4.NewPacketConn(s.conn).SetBPF(nothing); err != nil {
		return err
	}
	s.raw, err = s.conn.SyscallConn()
	s.write = s.writeBatch
	return err
}

// Send is described at the interface Sender.
func (s *RawSender) Send(pkts [][]byte) (int, error) {
	sent := 0
	for sent < len(pkts) {
		part := pkts[sent:min(sent+BatchSize, len(pkts))]
		s.batch.fill(part)
		s.from = 0
		for s.from < len(part) {
			if err := s.raw.Write(s.write); err != nil {
				return sent + s.from, closed(err)
			}
			if s.errno != 0 {
				return sent + s.from, os.NewSyscallError("sendmmsg", s.errno)
			}
			s.from += s.n
		}
		sent += len(part)
	}
	return sent, nil
}

func (s *RawSender) writeBatch(fd uintptr) bool {
	s.n, s.errno = s.batch.send(int(fd), s.from)
	return s.errno != unix.EAGAIN
}

// SendOne is described at the interface Sender.
func (s *RawSender) SendOne(pkt []byte) error {
	_, err := s.conn.Write(pkt)
	return err
}

// Close is described at the interface Sender.
func (s *RawSender) Close() error { return s.conn.Close() }

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

// explain adds the way out to an error of opening a socket.
func explain(op string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN (setcap cap_net_raw,cap_net_admin+ep)", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// closed turns the runtime's error for a closed file into net.ErrClosed.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
