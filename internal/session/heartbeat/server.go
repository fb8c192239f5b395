// Package heartbeat runs the two ends of the SixXS heartbeat protocol: a server, which learns
// from authenticated messages at which outer address a client is, and a client, which sends
// them. The packets of the tunnel travel in protocol 41, which is not the business of this
// package: the server is given a function that sends them, and is handed those that arrive.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	wire "sixfour/encap/heartbeat"
	"sixfour/transport/access"
)

// protocol is the name of this protocol, as the Authority knows it.
const protocol = "heartbeat"

// Config is what a Server needs.
type Config struct {
	Authority access.Authority
	// Local is where messages arrive. The address must be an IPv4 address of this host: it is
	// that of the packets in protocol 41, too.
	Local netip.AddrPort
	// Send sends an inner packet in protocol 41 from Local to an outer address. The rules are
	// those of Link.Send of package access.
	Send func(outer netip.Addr, packet []byte) error
	// Beat is called for each message that is accepted; nil: nothing is called. It must not
	// block.
	Beat func(account string, m wire.Message, from netip.AddrPort)
	// Digest is accepted beside MD5; MD5: no other one is.
	Digest wire.Digest

	// Window is how far the client's clock may be from ours; 0: two minutes.
	Window time.Duration
	// Timeout is the time without a message after which a client has gone; 0: five minutes.
	Timeout time.Duration
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

const (
	defaultWindow  = 2 * time.Minute // draft-massar-v6ops-heartbeat-01 says one minute, the clients' manual two
	defaultTimeout = 5 * time.Minute
	sweeps         = 30               // in a Timeout
	attaching      = 64               // clients that are attached at the same time
	attachTimeout  = 20 * time.Second // for the lease to be written
)

// Server receives heartbeats, and attaches the clients that send them.
type Server struct {
	config Config
	conn   *net.UDPConn
	slots  chan struct{} // taken while a client is attached
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	routes routes // by outer addresses

	mu      sync.Mutex
	closed  bool
	tunnels map[netip.Addr]*tunnel // by the client's end
}

// NewServer opens the port and begins to serve.
func NewServer(c Config) (*Server, error) {
	if !c.Local.Addr().Unmap().Is4() || c.Local.Addr().IsUnspecified() {
		return nil, fmt.Errorf("heartbeat: %v is not an IPv4 address of this host, from which packets in protocol 41 can be sent: set address", c.Local.Addr())
	}
	s := newServer(c)
	var err error
	if s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(c.Local)); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	s.done.Go(s.receive)
	s.done.Go(s.sweep)
	return s, nil
}

// newServer returns a Server without a port.
func newServer(c Config) *Server {
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{config: c, slots: make(chan struct{}, attaching), tunnels: make(map[netip.Addr]*tunnel)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends the service: every client leaves, and the port is closed.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	s.done.Wait()
	s.mu.Lock()
	var left []access.Client
	for _, t := range s.tunnels {
		if c := s.remove(t); c != nil {
			left = append(left, c)
		}
	}
	s.mu.Unlock()
	for _, c := range left {
		c.Leave("the broker ends")
	}
	return err
}

// Addr returns the address and port at which messages arrive.
func (s *Server) Addr() netip.AddrPort {
	a := s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// receive handles messages until the port is closed.
func (s *Server) receive() {
	b := make([]byte, 1<<11) // longer than a message, so that longer ones are recognized
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			s.handle(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b[:n])
		}
	}
}

// handle handles a message. Nothing is ever sent in return.
func (s *Server) handle(from netip.AddrPort, b []byte) {
	account, why := s.check(from, b)
	if why != nil {
		s.config.Authority.Refuse(protocol, from, account, why)
	}
}

// check accepts a message, or says why it does not.
func (s *Server) check(from netip.AddrPort, b []byte) (account string, why *access.Refusal) {
	r, err := wire.Parse(b)
	if err != nil {
		return "", access.Refuse(access.BadMessage, "%v", err)
	}
	if !s.config.Authority.Allow(from.Addr()) {
		return "", access.Refuse(access.TooMany, "too many messages come from %v", from.Addr())
	}
	a, err := s.config.Authority.At(r.Inner)
	if err != nil {
		return "", refusal(err)
	}
	if a.Secret == "" || !r.Verify(a.Secret, s.config.Digest) {
		return a.Name, access.Refuse(access.WrongSecret, "the digest of a heartbeat for %v is wrong: the password is another one", r.Inner)
	}
	if r.Outer.IsValid() && r.Outer.Unmap() != from.Addr() {
		return a.Name, access.Refuse(access.WrongAddress, "a heartbeat that names %v came from %v: the client is behind a NAT and must say \"sender\"", r.Outer, from.Addr())
	}
	now := s.config.Now()
	if ahead := time.Unix(r.Epoch, 0).Sub(now); r.Epoch > maxEpoch || ahead.Abs() > s.config.Window {
		return a.Name, access.Refuse(access.BadClock, "the client's clock differs by %.0f s: at most %.0f s are allowed", ahead.Abs().Seconds(), s.config.Window.Seconds())
	}
	return a.Name, s.accept(a, r.Message, from, now)
}

// maxEpoch is a time after which the arithmetic of package time does not matter.
const maxEpoch = 1 << 40

// refusal returns the reason that an Authority gave.
func refusal(err error) *access.Refusal {
	var why *access.Refusal
	if errors.As(err, &why) {
		return why
	}
	return access.Refuse(access.Unavailable, "%v", err)
}

// accept does what an authentic message says.
func (s *Server) accept(a access.Account, m wire.Message, from netip.AddrPort, now time.Time) *access.Refusal {
	outer := from.Addr()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	t := s.tunnels[m.Inner]
	if t == nil {
		t = &tunnel{inner: m.Inner}
		s.tunnels[m.Inner] = t
	}
	if t.last.replayed(m.Epoch, outer, now.Unix(), s.config.Window) {
		s.mu.Unlock()
		return access.Refuse(access.Replay, "a heartbeat for %v is not newer than the last one", m.Inner)
	}
	t.last = stamp{m.Epoch, outer}
	var heard, left access.Client
	switch m.Command {
	case wire.Tunnel:
		t.beaten = now
		heard = s.beat(t, a, outer)
	case wire.Disable:
		left = s.remove(t)
	}
	s.mu.Unlock()
	// The Authority may call Link.End at the same time, which takes the lock.
	if heard != nil {
		heard.Heard(netip.AddrPortFrom(outer, 0), s.at())
	}
	if left != nil {
		left.Leave("the client does not use the tunnel any more")
	}
	if s.config.Beat != nil {
		s.config.Beat(a.Name, m, from)
	}
	return nil
}

// at is where packets in protocol 41 arrive.
func (s *Server) at() netip.AddrPort { return netip.AddrPortFrom(s.config.Local.Addr().Unmap(), 0) }
