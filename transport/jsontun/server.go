package jsontun

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/netsock"
)

// Server accepts clients, and attaches them to an Authority.
//
// A client that sends nothing costs a few hundred bytes and its socket: the sockets are not in
// the poller of Go's runtime, and have no goroutines. Each loop waits for a part of all
// sockets with one epoll descriptor, and reads from those that have data into a buffer of its
// own. Packets to a client are written by the caller of Send; only what the socket does not
// take waits. Connections with TLS have goroutines (see secure).
//
// Order of locks: no lock is held while a method of the Authority or of a Client is called,
// because these may call a Link.
type Server struct {
	config   ServerConfig
	times    serverTimes
	sockets  *netsock.Sockets
	listener *os.File
	local    netip.AddrPort
	loops    []*loop
	door     door
	deciders deciders

	gauges

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // all goroutines

	mu     sync.Mutex
	secure map[*secure]bool // connections with TLS; nil after Close
}

// gauges are numbers of a server.
type gauges struct {
	connections atomic.Int64
	waiting     atomic.Int64 // bytes of packets that wait for sockets
	clock       atomic.Int64 // ticks so far
}

// serverTimes are those that tests shorten.
type serverTimes struct {
	dialogue time.Duration // for each message of a client, and for a TLS handshake
	drain    time.Duration // for a refused client to read our answer
	packet   time.Duration // for the rest of a packet that has begun
	decision time.Duration // for the Authority
	tick     time.Duration // between checks of the times above
	heard    int64         // ticks between calls of Heard for connections that are idle
}

var normalServerTimes = serverTimes{
	dialogue: 10 * time.Second, drain: 2 * time.Second, packet: 30 * time.Second, decision: 10 * time.Second,
	tick: time.Second, heard: 30,
}

// NewServer opens a server, in the network namespace of the calling thread.
func NewServer(c ServerConfig, o transport.Options) (*Server, error) {
	return newServer(c, o, normalServerTimes)
}

func newServer(c ServerConfig, o transport.Options, t serverTimes) (*Server, error) {
	for _, limit := range []struct {
		value  *int
		normal int
	}{{&c.MaxConnections, 100000}, {&c.MaxPending, 4096}, {&c.MaxPendingSource, 1024}} {
		if *limit.value == 0 {
			*limit.value = limit.normal
		}
	}
	if c.Required && c.TLS == nil {
		return nil, errors.New("TLS is required, but there is no certificate")
	}
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		c.TLS.SessionTicketsDisabled = true
	}
	sockets, err := netsock.New(o)
	if err != nil {
		return nil, err
	}
	s := &Server{config: c, times: t, sockets: sockets, door: newDoor(c.MaxPending, c.MaxPendingSource), secure: make(map[*secure]bool)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("listen at %v: %w", c.Local, err)
	}
	return s, nil
}

// open opens the sockets, and starts the goroutines.
func (s *Server) open() (err error) {
	for range min(4, runtime.GOMAXPROCS(0)) {
		l, err := newLoop(s)
		if err != nil {
			return err
		}
		s.loops = append(s.loops, l)
	}
	listener, err := s.sockets.ListenTCP(s.config.Local)
	if err != nil {
		return err
	}
	s.local = netip.AddrPortFrom(s.config.Local.Addr(), netsock.AddrPort(listener.Addr()).Port())
	s.listener, err = listener.File() // net.TCPListener would put each connection into the poller
	listener.Close()
	if err != nil {
		return err
	}
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return err
	}
	for _, l := range s.loops {
		s.running.Go(l.run)
	}
	s.running.Go(func() { s.accept(raw) })
	s.running.Go(s.watch)
	return nil
}

// Local returns the address and port at which the server listens.
func (s *Server) Local() netip.AddrPort { return s.local }

// Connections returns the number of connections.
func (s *Server) Connections() int { return int(s.connections.Load()) }

// Close ends all connections, and waits until all goroutines have ended. No method of the
// Authority or of a Client is called afterwards.
func (s *Server) Close() error {
	s.mu.Lock()
	all := s.secure
	s.secure = nil
	s.mu.Unlock()
	if all == nil {
		return nil
	}
	s.cancel()
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	for c := range all {
		c.close(errStopping)
	}
	for _, l := range s.loops {
		l.file.Close()
	}
	s.running.Wait()
	for _, l := range s.loops {
		l.closeAll()
	}
	s.sockets.Close()
	return err
}

var errStopping = errors.New("the server stops")

// accept accepts connections until the listener is closed.
func (s *Server) accept(raw syscall.RawConn) {
	for i := 0; ; i++ {
		fd, errno := -1, error(nil)
		var peer unix.Sockaddr
		err := raw.Read(func(listener uintptr) bool {
			fd, peer, errno = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return errno != unix.EAGAIN //nolint:errorlint // a system call's error is not wrapped
		})
		switch {
		case err != nil || s.ctx.Err() != nil:
			if fd >= 0 {
				unix.Close(fd)
			}
			return
		case errno == nil:
			s.admit(s.loops[i%len(s.loops)], fd, addrPort(peer))
		case errors.Is(errno, unix.ECONNABORTED) || errors.Is(errno, unix.EINTR):
		default: // too many descriptors, usually
			select {
			case <-s.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// admit takes a new connection.
func (s *Server) admit(l *loop, fd int, from netip.AddrPort) {
	refuse := func(format string, args ...any) {
		unix.Close(fd)
		s.config.Authority.Refuse(protocol, from, "", access.Refuse(access.TooMany, format, args...))
	}
	if int(s.connections.Load()) >= s.config.MaxConnections {
		refuse("there are %d connections already", s.config.MaxConnections)
		return
	}
	at := s.local
	if at.Addr().IsUnspecified() {
		if own, err := unix.Getsockname(fd); err == nil {
			at = addrPort(own)
		}
	}
	if err := tune(fd); err != nil { // it is closed already
		unix.Close(fd)
		return
	}
	c := &client{loop: l, ends: ends{from, at}, dialogue: &dialogue{server: s, from: from, at: at}, fd: fd}
	c.deadline.Store(time.Now().Add(s.times.dialogue).UnixNano())
	s.connections.Add(1)
	s.door.enter(c)
	if err := l.add(c); err != nil {
		s.door.remove(c)
		s.connections.Add(-1)
		c.mu.Lock()
		c.fd = -1
		c.mu.Unlock()
		refuse("wait for the connection: %v", err)
	}
}

// addrPort returns an address of a socket.
func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// watch ends connections whose time is over, and says of those that are idle that they are
// still there: TCP's keepalive would have ended them otherwise.
func (s *Server) watch() {
	t := time.NewTicker(s.times.tick)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-t.C:
			s.clock.Add(1)
			for _, l := range s.loops {
				l.each(func(c *client) { c.check(now) })
			}
			s.mu.Lock()
			all := make([]*secure, 0, len(s.secure))
			for c := range s.secure {
				all = append(all, c)
			}
			s.mu.Unlock()
			for _, c := range all {
				c.check()
			}
		}
	}
}
