package tsp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/tsp"
	"sixfour/transport"
	"sixfour/transport/netsock"
)

// asking is how long a client's steps take. Tests have other values.
type asking struct {
	first    time.Duration // until a message over UDP is sent again, at first
	accept   time.Duration // for the answer to the last message, which some servers do not send
	tcp      time.Duration // for a connection, and for each answer over it
	retry    time.Duration // after the first failure, and
	most     time.Duration // after many
	refused  time.Duration // at least, if the server has refused us
	keep     time.Duration // between signs of life, if the server names no interval
	patience int           // after so many that are not answered the tunnel is dead
}

var usualAsking = asking{
	first: tsp.FirstWait, accept: 3 * time.Second, tcp: 20 * time.Second,
	retry: 2 * time.Second, most: 2 * time.Minute, refused: 30 * time.Second, keep: 30 * time.Second, patience: 3,
}

// defaultKeepalive is the interval that a client asks for.
const defaultKeepalive = 30 * time.Second

// Limits of lists of other servers.
const (
	maxHops    = 4  // one after the other
	maxServers = 16 // that are asked
)

// negotiator has dialogues with servers until one grants a tunnel.
type negotiator struct {
	settings *Settings
	sockets  *netsock.Sockets
	local    netip.Addr // may be unspecified
	timing   asking
	udp      func(ctx context.Context, server netip.AddrPort) (talker, error)
}

// talker sends messages to a server.
type talker interface {
	// ask sends a message and returns the answer. A nil message is not sent: the server has more
	// to say. The answer is valid until the next call.
	ask(ctx context.Context, text []byte) ([]byte, error)
	// last sends the last message, and waits for a while for its answer, if there is one.
	last(ctx context.Context, text []byte)
	close()
}

func newSockets(o transport.Options) (*netsock.Sockets, error) {
	return netsock.New(transport.Options{Mark: o.Mark, Device: o.Device})
}

// negotiate asks a server, and those that it names instead.
func (n *negotiator) negotiate(ctx context.Context, server netip.AddrPort) (Grant, error) {
	servers := []netip.AddrPort{server}
	tried := make(map[netip.AddrPort]bool)
	var last error
	for hops := 0; len(servers) > 0 && len(tried) < maxServers; {
		at := servers[0]
		servers = servers[1:]
		if tried[at] {
			continue
		}
		tried[at] = true
		g, err := n.server(ctx, at)
		if err == nil || ctx.Err() != nil {
			return g, err
		}
		last = err
		var r *tsp.Refused
		if errors.As(err, &r) && r.Redirects() && hops < maxHops {
			hops++
			servers = append(n.find(ctx, r.Brokers, at.Port()), servers...)
		}
	}
	return Grant{}, last
}

// find returns the addresses of servers.
func (n *negotiator) find(ctx context.Context, brokers []tsp.Broker, port uint16) (list []netip.AddrPort) {
	for _, b := range brokers {
		addrs := []netip.Addr{b.Addr}
		if b.Name != "" {
			if n.settings.Lookup == nil {
				continue
			}
			addrs, _ = n.settings.Lookup(ctx, b.Name) // the next one may be found
		}
		for _, a := range addrs {
			if a = a.Unmap(); a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() {
				list = append(list, netip.AddrPortFrom(a, port))
			}
		}
	}
	return list
}

// server asks one server, over the transports and with the versions that it may understand.
func (n *negotiator) server(ctx context.Context, at netip.AddrPort) (g Grant, err error) {
	s := n.settings
	if s.Transport != TCP {
		g, err = n.versions(ctx, at, false)
		if !errors.Is(err, ErrSilent) || s.Transport == UDP || s.want() == tsp.V6UDPV4 {
			return g, err
		}
	}
	g, more := n.versions(ctx, at, true)
	if more != nil && err != nil {
		return g, fmt.Errorf("%w; over TCP: %w", err, more)
	}
	return g, more
}

func (s *Settings) want() tsp.Type {
	if s.Want == "" {
		return tsp.V6AnyV4
	}
	return s.Want
}

func (n *negotiator) versions(ctx context.Context, at netip.AddrPort, stream bool) (g Grant, err error) {
	for _, v := range tsp.Versions {
		g, err = n.dialogue(ctx, at, v, stream)
		var r *tsp.Refused
		if !errors.As(err, &r) || r.Code != tsp.BadVersion {
			return g, err
		}
	}
	return g, err
}

// dialogue has one dialogue.
func (n *negotiator) dialogue(ctx context.Context, at netip.AddrPort, version string, stream bool) (Grant, error) {
	fail := func(err error) (Grant, error) { return Grant{}, fmt.Errorf("TSP server %v: %w", at, err) }
	local, err := n.sockets.Source(ctx, n.local, at)
	if err != nil {
		return fail(err)
	}
	open := n.udp
	if stream {
		open = n.connect
	}
	t, err := open(ctx, at)
	if err != nil {
		return fail(err)
	}
	defer t.close()
	s := n.settings
	r := tsp.Request{
		User: s.User, Password: s.Password, Auth: s.Auth, Want: s.want(), PrefixLength: s.PrefixLength,
		Keepalive: int((s.keepalive() + time.Second - 1) / time.Second),
		Local:     local, Host: s.Host, Version: version, Stream: stream, Cnonce: nonce,
	}
	if r.Host == "" {
		r.Host = at.Addr().String()
	}
	d := tsp.NewNegotiation(&r)
	for text := d.First(); ; {
		answer, err := t.ask(ctx, text)
		if err == nil {
			text, err = d.Receive(answer)
		}
		if err != nil {
			return fail(err)
		}
		if granted := d.Grant(); granted != nil {
			t.last(ctx, text)
			return grantOf(granted, at, local), nil
		}
	}
}

func (s *Settings) keepalive() time.Duration {
	if s.Keepalive == 0 {
		return defaultKeepalive
	}
	return s.Keepalive
}

// stream is a talker over TCP.
type stream struct {
	conn net.Conn
	r    reader
	wait time.Duration
	stop func() bool
}

// connect returns a talker over TCP.
func (n *negotiator) connect(ctx context.Context, at netip.AddrPort) (talker, error) {
	limited, cancel := context.WithTimeout(ctx, n.timing.tcp)
	defer cancel()
	conn, err := n.sockets.Connect(limited, unix.SOCK_STREAM, n.local, at)
	if err != nil {
		return nil, err
	}
	return &stream{conn: conn, r: reader{conn: conn}, wait: n.timing.tcp, stop: context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

func (s *stream) ask(ctx context.Context, text []byte) ([]byte, error) {
	_ = s.conn.SetDeadline(time.Now().Add(s.wait))
	if len(text) > 0 {
		if _, err := s.conn.Write(text); err != nil {
			return nil, cause(ctx, err)
		}
	}
	answer, err := s.r.next()
	return answer, cause(ctx, err)
}

func (s *stream) last(_ context.Context, text []byte) {
	_ = s.conn.SetDeadline(time.Now().Add(s.wait))
	_, _ = s.conn.Write(text) // the server has granted the tunnel already
}

func (s *stream) close() {
	s.stop()
	_ = s.conn.Close()
}

// cause returns why a context ended, if that is why there is an error.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// datagrams is a talker over UDP.
type datagrams struct {
	exchange *tsp.Exchange
	accept   time.Duration
	send     func(datagram []byte) error
	// receive returns the next datagram until a time; nil: there is none.
	receive func(ctx context.Context, until time.Time) ([]byte, error)
	end     func()
}

func (d *datagrams) ask(ctx context.Context, text []byte) ([]byte, error) {
	return d.until(ctx, text, time.Time{})
}

// until is ask until a time; the zero value: as long as the protocol says.
func (d *datagrams) until(ctx context.Context, text []byte, end time.Time) ([]byte, error) {
	datagram := d.exchange.Send(text, time.Now())
	for {
		if err := d.send(datagram); err != nil {
			return nil, err
		}
		again, _ := d.exchange.Due()
		if !end.IsZero() {
			again = earlier(again, end)
		}
		answer, err := d.answer(ctx, again)
		if err != nil || answer != nil {
			return answer, err
		}
		if now := time.Now(); !end.IsZero() && !now.Before(end) {
			return nil, ErrSilent
		} else if datagram = d.exchange.Repeat(now); datagram == nil {
			return nil, fmt.Errorf("%w over UDP", ErrSilent)
		}
	}
}

// answer waits for the answer until a time; nil: it has not come.
func (d *datagrams) answer(ctx context.Context, until time.Time) ([]byte, error) {
	for {
		b, err := d.receive(ctx, until)
		if err != nil || b == nil {
			return nil, err
		}
		h, text, ok := tsp.Parse(b)
		if ok && (d.exchange.Answers(h) || tsp.Reset(h)) {
			return append([]byte{}, text...), nil // not nil
		}
	}
}

func (d *datagrams) last(ctx context.Context, text []byte) {
	_, _ = d.until(ctx, text, time.Now().Add(d.accept)) // the server has granted the tunnel already
}

func (d *datagrams) close() { d.end() }

// dialUDP returns a function that makes talkers over sockets of their own.
func dialUDP(sockets *netsock.Sockets, local netip.Addr) func(context.Context, netip.AddrPort) (talker, error) {
	return func(ctx context.Context, server netip.AddrPort) (talker, error) {
		conn, err := sockets.Connect(ctx, unix.SOCK_DGRAM, local, server)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		b := make([]byte, transport.MaxPacket)
		return &datagrams{
			exchange: tsp.NewExchange(time.Now(), tsp.FirstSequence, usualAsking.first), accept: usualAsking.accept,
			send: func(datagram []byte) error {
				_, err := conn.Write(datagram)
				return unreachable(cause(ctx, err))
			},
			receive: func(ctx context.Context, until time.Time) ([]byte, error) {
				_ = conn.SetReadDeadline(until)
				n, err := conn.Read(b)
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					return nil, nil
				}
				if err != nil {
					return nil, unreachable(cause(ctx, err))
				}
				return b[:n], nil
			},
			end: func() { stop(); _ = conn.Close() },
		}, nil
	}
}

// unreachable makes an ICMP error that nobody listens one of silence: there may be a listener
// over TCP.
func unreachable(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w over UDP: %w", ErrSilent, err)
	}
	return err
}
