package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// The loads use blocking sockets on threads of their own. The sockets of package rig use
// Go's poller, which wakes one thread to wake another, and this program measures the
// cost of wake-ups.

const (
	// tick is how long a system call of a load blocks before the load checks whether its
	// time is over.
	tick = 100 * time.Millisecond
	// connectPatience is how long making a connection may take.
	connectPatience = 5 * time.Second
	udpBuffer       = 8 << 20 // bytes, of a socket's queue
)

// end is one end of a load: a namespace and an address in it.
type end struct {
	ns   *rig.Namespace
	addr netip.Addr
}

// socket is a blocking socket whose calls end after a tick.
type socket struct{ fd int }

// open opens a socket inside the namespace, bound to the end's address and a
// free port.
func (e end) open(kind int) (s socket, err error) {
	err = e.ns.Do(func() error {
		s.fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.Bind(s.fd, &unix.SockaddrInet4{Addr: e.addr.As4()}); err != nil {
			unix.Close(s.fd)
			return fmt.Errorf("bind to %v: %w", e.addr, err)
		}
		return nil
	})
	return s, err
}

func (s socket) close() { unix.Close(s.fd) }

func (s socket) setTimeout(d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
		}
	}
	return nil
}

// name returns the socket's own address.
func (s socket) name() (unix.Sockaddr, error) {
	a, err := unix.Getsockname(s.fd)
	return a, os.NewSyscallError("getsockname", err)
}

// udpPair returns two sockets that are connected to each other.
func udpPair(a, b end) (sa, sb socket, err error) {
	if sa, err = a.open(unix.SOCK_DGRAM); err != nil {
		return sa, sb, err
	}
	if sb, err = b.open(unix.SOCK_DGRAM); err != nil {
		sa.close()
		return sa, sb, err
	}
	set := func(s, other socket) error {
		name, err := other.name()
		if err != nil {
			return err
		}
		if err := unix.Connect(s.fd, name); err != nil {
			return os.NewSyscallError("connect", err)
		}
		for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, udpBuffer); err != nil {
				return os.NewSyscallError("setsockopt SO_RCVBUFFORCE", err)
			}
		}
		return s.setTimeout(tick)
	}
	if err := errors.Join(set(sa, sb), set(sb, sa)); err != nil {
		sa.close()
		sb.close()
		return sa, sb, err
	}
	return sa, sb, nil
}

// tcpPair makes a connection and returns its two ends.
func tcpPair(from, to end) (src, dst socket, err error) {
	l, err := to.open(unix.SOCK_STREAM)
	if err != nil {
		return src, dst, err
	}
	defer l.close()
	if err := unix.Listen(l.fd, 1); err != nil {
		return src, dst, os.NewSyscallError("listen", err)
	}
	name, err := l.name()
	if err != nil {
		return src, dst, err
	}
	if src, err = from.open(unix.SOCK_STREAM); err != nil {
		return src, dst, err
	}
	err = errors.Join(l.setTimeout(connectPatience), src.setTimeout(connectPatience))
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(src.fd, name))
	}
	if err == nil {
		dst.fd, _, err = unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		err = os.NewSyscallError("accept", err)
	}
	if err != nil {
		src.close()
		return src, dst, fmt.Errorf("TCP from %v to %v: %w", from.addr, to.addr, err)
	}
	if err := errors.Join(src.setTimeout(tick), dst.setTimeout(tick)); err != nil {
		src.close()
		dst.close()
		return src, dst, err
	}
	return src, dst, nil
}

// passing reports whether a system call only has to be repeated.
func passing(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)
}

// onThread runs f on a thread of its own.
func onThread(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- f()
	}()
	return done
}

// onProcessor is onThread with the thread bound to one of the processors that this
// program may use.
func onProcessor(i int, f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, and its affinity, end with the goroutine
		done <- func() error {
			var all, one unix.CPUSet
			if err := unix.SchedGetaffinity(0, &all); err != nil {
				return os.NewSyscallError("sched_getaffinity", err)
			}
			i %= all.Count()
			for cpu := 0; ; cpu++ {
				if !all.IsSet(cpu) {
					continue
				}
				if i == 0 {
					one.Set(cpu)
					break
				}
				i--
			}
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return os.NewSyscallError("sched_setaffinity", err)
			}
			return f()
		}()
	}()
	return done
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// messages is the argument of sendmmsg and recvmmsg.
type messages struct {
	msgs []mmsghdr
	bufs [][]byte
}

func newMessages(count, size int) *messages {
	m := &messages{msgs: make([]mmsghdr, count), bufs: make([][]byte, count)}
	iovs := make([]unix.Iovec, count)
	for i := range m.msgs {
		m.bufs[i] = make([]byte, size)
		iovs[i].Base = &m.bufs[i][0]
		iovs[i].SetLen(size)
		m.msgs[i].hdr.Iov = &iovs[i]
		m.msgs[i].hdr.SetIovlen(1)
	}
	return m
}

// send sends all messages, or the first ones, and returns how many.
func (m *messages) send(s socket) (int, error) { return m.call(unix.SYS_SENDMMSG, s, 0) }

// receive waits for one message, and returns it and those that have already arrived.
func (m *messages) receive(s socket) (int, error) {
	return m.call(unix.SYS_RECVMMSG, s, unix.MSG_WAITFORONE)
}

func (m *messages) call(nr uintptr, s socket, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(nr, uintptr(s.fd), uintptr(unsafe.Pointer(&m.msgs[0])), uintptr(len(m.msgs)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
