// Package tic runs the two ends of TIC, the tunnel information and control protocol of SixXS:
// a server, which tells the users of a broker how their tunnels are configured, and a client,
// which asks such a server.
package tic

import (
	"cmp"
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	wire "sixfour/encap/tic"
	"sixfour/transport/access"
)

// protocol is the name of this protocol, as the Authority knows it.
const protocol = "tic"

// Config is what a Server needs.
type Config struct {
	Authority access.Authority
	Local     netip.AddrPort // where clients connect
	TLS       *tls.Config    // for starttls; nil: there is no TLS
	// Plain allows users to log in, and to read the passwords of their tunnels, without TLS.
	Plain bool
	// SHA256 offers the challenge sha256 beside md5.
	SHA256 bool
	// Name is that of the service, in the greeting; "": the name of the host.
	Name string
	// POP is this server, as clients are told.
	POP wire.POP
	// End returns our outer address of tunnels of a type of package tic in encap, at the port
	// that its protocol has by default, because clients cannot be told another one; the zero
	// Addr: that to which the client has connected; not ok: there are none of that type. nil:
	// POP.IPv4 for all types.
	End func(kind string) (at netip.Addr, ok bool)
	// Interval is how often clients of heartbeat and AYIYA shall send a message; 0: a minute.
	Interval time.Duration
	// Outer returns the fixed outer address of a client of the type 6in4; nil, or the zero
	// Addr: there is none, and the tunnel is offered as one with heartbeats.
	Outer func(account string) netip.Addr
	// Prefix returns the prefix that is routed to an account, for "route list"; nil, or the zero
	// Prefix: it is not known yet.
	Prefix func(account string) netip.Prefix
	Limits Limits
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

// Limits bound what clients can cost. A field that is 0 has the value in parentheses.
type Limits struct {
	Connections int           // at a time (512); beyond it, the oldest one that has not logged in is closed
	PerSource   int           // connections of one IPv4 address, or one IPv6 /64 (16)
	Idle        time.Duration // without a line (30 s)
	Dialogue    time.Duration // of a connection (2 min)
	Lines       int           // of a connection (200)
}

// Server answers the users of a broker.
type Server struct {
	config   Config
	listener net.Listener
	done     sync.WaitGroup
	nobody   string // the secret of an account that does not exist

	mu        sync.Mutex
	closed    bool
	sessions  map[*session]bool
	strangers *list.List           // sessions that have not logged in, the oldest first
	sources   map[netip.Prefix]int // connections
}

// NewServer opens the port and begins to serve.
func NewServer(c Config) (*Server, error) {
	if c.TLS == nil && !c.Plain {
		return nil, errors.New("tic: there is no certificate, and logging in without TLS is not allowed: nobody could log in: set tls_certificate and tls_key")
	}
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	c.Name = cmp.Or(wire.Printable(c.Name), "localhost")
	c.POP.ID = cmp.Or(c.POP.ID, "sixfour")
	if strings.ContainsAny(c.POP.ID, " \t\r\n") {
		return nil, fmt.Errorf("tic: the name %q of the server has a space, which separates fields", c.POP.ID)
	}
	c.Interval = cmp.Or(c.Interval, time.Minute)
	if c.End == nil {
		c.End = func(string) (netip.Addr, bool) { return c.POP.IPv4, true }
	}
	l := &c.Limits
	l.Connections, l.PerSource, l.Lines = cmp.Or(l.Connections, 512), cmp.Or(l.PerSource, 16), cmp.Or(l.Lines, 200)
	l.Idle, l.Dialogue = cmp.Or(l.Idle, 30*time.Second), cmp.Or(l.Dialogue, 2*time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{config: c, nobody: rand.Text(), sessions: make(map[*session]bool), strangers: list.New(), sources: make(map[netip.Prefix]int)}
	var err error
	if s.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(c.Local)); err != nil {
		return nil, fmt.Errorf("tic: %w", err)
	}
	s.done.Go(s.accept)
	return s, nil
}

// Close ends the service and all its connections.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for x := range s.sessions {
		x.raw.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addr returns the address and port at which clients connect.
func (s *Server) Addr() netip.AddrPort { return endpoint(s.listener.Addr()) }

// endpoint returns an address of package net as a value.
func endpoint(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// accept starts a session for each connection, until the port is closed.
func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // there is no descriptor left: connections in the queue wait
			time.Sleep(acceptPause)
		default:
			s.admit(conn)
		}
	}
}

// acceptPause is the pause after a connection could not be accepted.
const acceptPause = 50 * time.Millisecond

// source returns what is counted as one source of connections: with IPv6, whoever has an address has a /64.
func source(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// admit starts the session of a connection, or closes it.
func (s *Server) admit(conn net.Conn) {
	from := endpoint(conn.RemoteAddr())
	if why := s.enter(conn, from); why != nil {
		s.config.Authority.Refuse(protocol, from, "", why)
		// The kernel has room for one line in a new connection: this does not block.
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = fmt.Fprintf(conn, "400 Not available: %s, try again later\n", why.Text)
		conn.Close()
	}
}

// enter starts the session of a connection, if the limits allow it.
func (s *Server) enter(conn net.Conn, from netip.AddrPort) *access.Refusal {
	if !s.config.Authority.Allow(from.Addr()) {
		return access.Refuse(access.TooMany, "too many connections in a short time")
	}
	key := source(from.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return access.Refuse(access.Stopping, "the server ends")
	}
	if s.sources[key] >= s.config.Limits.PerSource {
		return access.Refuse(access.TooMany, "there are %d connections from your address already", s.config.Limits.PerSource)
	}
	if len(s.sessions) >= s.config.Limits.Connections {
		oldest := s.strangers.Front()
		if oldest == nil {
			return access.Refuse(access.TooMany, "there are too many connections")
		}
		oldest.Value.(*session).raw.Close()
		s.forget(oldest.Value.(*session))
	}
	x := newSession(s, conn, from)
	x.place = s.strangers.PushBack(x)
	s.sessions[x] = true
	s.sources[key]++
	s.done.Go(func() {
		defer s.leave(x)
		x.run()
	})
	return nil
}

// leave forgets a session that has ended.
func (s *Server) leave(x *session) {
	x.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(x)
}

// forget is called with the lock held. A session that is closed for another one is forgotten at
// once, so that it does not count any more.
func (s *Server) forget(x *session) {
	if !s.sessions[x] {
		return
	}
	delete(s.sessions, x)
	if x.place != nil {
		s.strangers.Remove(x.place)
		x.place = nil
	}
	key := source(x.from.Addr())
	if s.sources[key]--; s.sources[key] == 0 {
		delete(s.sources, key)
	}
}

// loggedIn takes a session from those that are closed when there are too many.
func (s *Server) loggedIn(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.place != nil {
		s.strangers.Remove(x.place)
		x.place = nil
	}
}
