// Package netsock opens TCP and UDP sockets in the network namespace of one thread, from any
// thread. Sockets have the options of a port, and may have local addresses that do not exist
// yet.
package netsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport"
)

// Sockets opens sockets in the network namespace of one thread, from any thread.
type Sockets struct {
	options transport.Options
	calls   chan func() // nil: the namespace is the process's own
}

// New returns Sockets for the namespace of the calling thread.
func New(o transport.Options) (*Sockets, error) {
	s := &Sockets{options: o}
	var own, process unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/thread-self/ns/net", &own), unix.Stat("/proc/self/ns/net", &process)); err != nil {
		return nil, fmt.Errorf("identify the network namespace: %w", err)
	}
	if own.Ino == process.Ino && own.Dev == process.Dev {
		return s, nil
	}
	fd, err := namespace()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of the thread: %w", err)
	}
	s.calls = make(chan func())
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
		unix.Close(fd)
		entered <- err
		if err == nil {
			for f := range s.calls {
				f()
			}
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	return s, nil
}

// namespace returns a descriptor of the calling thread's network namespace. A process that
// may not open the file can ask a socket (SIOCGSKNS of linux/sockios.h).
func namespace() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		return fd, nil
	}
	of, other := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if other != nil {
		return -1, err
	}
	defer unix.Close(of)
	fd, other = unix.IoctlRetInt(of, unix.SIOCGSKNS)
	return fd, errors.Join(other)
}

// Options returns the options of all sockets.
func (s *Sockets) Options() transport.Options { return s.options }

// Close ends the goroutine. No socket may be opened afterwards.
func (s *Sockets) Close() {
	if s.calls != nil {
		close(s.calls)
	}
}

// in calls f in the namespace. F must not block.
func (s *Sockets) in(f func() (int, error)) (fd int, err error) {
	if s.calls == nil {
		return f()
	}
	done := make(chan struct{})
	s.calls <- func() {
		defer close(done)
		fd, err = f()
	}
	<-done
	return fd, err
}

// open opens a socket that is bound to a local address and port, which need not exist yet.
func (s *Sockets) open(kind int, local netip.AddrPort) (int, error) {
	return s.in(func() (int, error) {
		domain, level, freebind := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
		if local.Addr().Is4() {
			domain, level, freebind = unix.AF_INET, unix.IPPROTO_IP, unix.IP_FREEBIND
		}
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1, os.NewSyscallError("socket", err)
		}
		set := func(name string, level, option, value int) {
			if err == nil {
				err = os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(fd, level, option, value))
			}
		}
		set("FREEBIND", level, freebind, 1)
		if domain == unix.AF_INET6 {
			set("IPV6_V6ONLY", level, unix.IPV6_V6ONLY, 1)
		}
		if kind == unix.SOCK_STREAM {
			set("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if s.options.Device != 0 {
			set("SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, s.options.Device)
		}
		if s.options.Mark != 0 {
			set("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(s.options.Mark))
		}
		if err == nil {
			err = os.NewSyscallError("bind", unix.Bind(fd, sockaddr(local)))
		}
		if errors.Is(err, unix.EACCES) && local.Port() != 0 { // below net.ipv4.ip_unprivileged_port_start
			err = fmt.Errorf("%w: give the program CAP_NET_BIND_SERVICE, or choose a port from 1024", err)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	})
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	sa := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if zone := a.Addr().Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		} else {
			fmt.Sscan(zone, &sa.ZoneId)
		}
	}
	return sa
}

// ListenTCP opens a listener.
func (s *Sockets) ListenTCP(local netip.AddrPort) (*net.TCPListener, error) {
	fd, err := s.open(unix.SOCK_STREAM, local)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	if err := unix.Listen(fd, 1024); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// ListenUDP opens a UDP socket.
func (s *Sockets) ListenUDP(local netip.AddrPort) (*net.UDPConn, error) {
	fd, err := s.open(unix.SOCK_DGRAM, local)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// Connect opens a socket from any port of a local address, which may be unspecified or
// invalid, to a remote address. It waits for a TCP connection until the context ends.
func (s *Sockets) Connect(ctx context.Context, kind int, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	if local.Is4() != remote.Addr().Is4() || !local.IsValid() {
		local = netip.IPv6Unspecified()
		if remote.Addr().Is4() {
			local = netip.IPv4Unspecified()
		}
	}
	fd, err := s.open(kind, netip.AddrPortFrom(local, 0))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "") // in the runtime's poller only from here on
	defer file.Close()
	err = unix.Connect(fd, sockaddr(remote))
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, file)
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(file)
}

// connected waits until a socket is connected.
func connected(ctx context.Context, file *os.File) error {
	stop := context.AfterFunc(ctx, func() { file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
		case code != 0:
			result = unix.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}

// Source returns the address from which the kernel sends to a remote one.
func (s *Sockets) Source(ctx context.Context, local netip.Addr, remote netip.AddrPort) (netip.Addr, error) {
	c, err := s.Connect(ctx, unix.SOCK_DGRAM, local, remote)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return AddrPort(c.LocalAddr()).Addr(), nil
}

// AddrPort returns the address of a TCP or UDP connection.
func AddrPort(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		at = a.AddrPort()
	case *net.UDPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
