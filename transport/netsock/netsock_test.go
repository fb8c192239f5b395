package netsock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/transport"
)

// The main thread is for the main goroutine: its namespace is the process's.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNamespace calls New on a thread in a new network namespace, and returns the inode of that.
func inNamespace(t *testing.T) (s *Sockets, inode uint64) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		var at unix.Stat_t
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Stat("/proc/thread-self/ns/net", &at)
		}
		if err == nil {
			s, err = New(transport.Options{})
		}
		inode = at.Ino
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, inode
}

// namespaceOf returns the inode of the network namespace of a socket.
func namespaceOf(t *testing.T, c syscall.Conn) uint64 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var at unix.Stat_t
	raw.Control(func(fd uintptr) {
		var ns int
		if ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS); err == nil {
			err = unix.Fstat(ns, &at)
			unix.Close(ns)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return at.Ino
}

// Sockets are in the namespace of the thread that called New, whatever thread opens them.
func TestNamespace(t *testing.T) {
	s, want := inNamespace(t)
	defer s.Close()
	at := netip.MustParseAddrPort("192.0.2.1:443") // does not exist yet
	l, err := s.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := s.ListenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if a, b := AddrPort(l.Addr()), AddrPort(u.LocalAddr()); a != at || b != at {
		t.Errorf("the sockets are at %v and %v", a, b)
	}
	for _, c := range []syscall.Conn{l, u} {
		if got := namespaceOf(t, c); got != want {
			t.Errorf("a socket is in namespace %d, want %d", got, want)
		}
	}
	if _, err := s.Connect(t.Context(), unix.SOCK_STREAM, netip.Addr{}, at); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("the namespace has no links: %v", err)
	}
}

func TestConnect(t *testing.T) {
	s, err := New(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	at := AddrPort(l.Addr())
	c, err := s.Connect(t.Context(), unix.SOCK_STREAM, netip.MustParseAddr("127.0.0.2"), at)
	if err != nil {
		t.Fatal(err)
	}
	if from := AddrPort(c.LocalAddr()).Addr(); from != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("connected from %v", from)
	}
	c.Close()
	if _, err := s.ListenTCP(at); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
	l.Close()
	if _, err := s.Connect(t.Context(), unix.SOCK_STREAM, netip.Addr{}, at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nothing listens: %v", err)
	}
	if from, err := s.Source(t.Context(), netip.Addr{}, at); err != nil || from != at.Addr() {
		t.Errorf("the source is %v, %v", from, err)
	}
}

// A connection that is not accepted ends with the context.
func TestConnectEnds(t *testing.T) {
	s, err := New(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	var full []net.Conn // the queue of the listener takes no more
	defer func() {
		for _, c := range full {
			c.Close()
		}
	}()
	why := errors.New("the test waits no longer")
	for range 10 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
		c, err := s.Connect(ctx, unix.SOCK_STREAM, netip.Addr{}, at)
		cancel()
		if err != nil {
			if !errors.Is(err, why) {
				t.Error(err)
			}
			return
		}
		full = append(full, c)
	}
	t.Error("all connections were made")
}
