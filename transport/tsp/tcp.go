package tsp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/tsp"
	"sixfour/transport/access"
)

// Limits of connections over TCP. If there are more, the oldest one of a client that has not
// authenticated is closed.
const (
	maxConns   = 256
	maxConnsOf = 16 // of one address
)

// conns are the open connections, the oldest first.
type conns struct {
	mu  sync.Mutex
	all []*connection
}

// connection is a connection of a client.
type connection struct {
	*net.TCPConn
	from  netip.AddrPort
	known atomic.Bool // the client has authenticated
}

// add adds a connection, if there is room, or can be made.
func (c *conns) add(n *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := 0
	for _, o := range c.all {
		if o.from.Addr() == n.from.Addr() {
			of++
		}
	}
	if of >= maxConnsOf || len(c.all) >= maxConns {
		i := slices.IndexFunc(c.all, func(o *connection) bool {
			return !o.known.Load() && (of < maxConnsOf || o.from.Addr() == n.from.Addr())
		})
		if i < 0 {
			return false
		}
		_ = c.all[i].Close() // whose goroutine ends
		c.all = slices.Delete(c.all, i, i+1)
	}
	c.all = append(c.all, n)
	return true
}

func (c *conns) remove(n *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.all, n); i >= 0 {
		c.all = slices.Delete(c.all, i, i+1)
	}
}

// accept accepts connections until the server ends.
func (s *Server) accept() {
	var open conns
	for {
		conn, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for example
			continue
		}
		c := &connection{TCPConn: conn, from: unmapped(conn.RemoteAddr())}
		if !s.config.Authority.Allow(c.from.Addr()) || !open.add(c) {
			s.config.Authority.Refuse(Protocol, c.from, "", access.Refuse(access.TooMany, "too many connections"))
			_ = conn.Close()
			continue
		}
		s.running.Go(func() {
			defer open.remove(c)
			defer conn.Close()
			s.converse(c)
		})
	}
}

func unmapped(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// converse has a dialogue over a connection.
func (s *Server) converse(conn *connection) {
	done := make(chan struct{})
	defer close(done)
	s.running.Go(func() {
		select {
		case <-done:
		case <-s.ctx.Done():
			_ = conn.Close()
		}
	})
	end := time.Now().Add(s.timing.whole)
	d := tsp.NewDialogue(&s.offer, nonce, true)
	c := &caller{server: s, from: conn.from, at: unmapped(conn.LocalAddr()), stream: true}
	r := reader{conn: conn}
	for {
		_ = conn.SetDeadline(earlier(time.Now().Add(s.timing.step), end))
		text, err := r.next()
		if errors.Is(err, tsp.ErrTooLong) || errors.Is(err, tsp.ErrLength) {
			_, _ = conn.Write(tsp.StatusOf(tsp.BadRequest).Append(nil))
			return
		}
		if err != nil {
			return
		}
		a := d.Receive(text, c)
		conn.known.Store(d.Authenticated())
		if !s.answer(conn, a) || a.End {
			return
		}
	}
}

// answer sends an answer. The messages of one answer leave apart from each other: clients in
// the field take what they receive at once for one message.
func (s *Server) answer(conn net.Conn, a tsp.Answer) bool {
	if a.Quiet {
		return false
	}
	if len(a.Text) > 0 {
		if _, err := conn.Write(a.Text); err != nil {
			return false
		}
	}
	if len(a.Then) > 0 {
		select {
		case <-time.After(s.timing.pause):
		case <-s.ctx.Done():
			return false
		}
		if _, err := conn.Write(a.Then); err != nil {
			return false
		}
	}
	return true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// reader divides what comes through a connection into messages.
type reader struct {
	conn io.Reader
	b    []byte // what has come and is not a whole message
}

// room is for how many bytes a reader has room at least, when it reads.
const room = 2048

// next returns the next message, until the next call.
func (r *reader) next() ([]byte, error) {
	for {
		text, rest, ok, err := tsp.Split(r.b)
		if err != nil {
			return nil, err
		}
		r.b = rest
		if ok {
			return text, nil
		}
		if cap(r.b)-len(r.b) < room/8 {
			r.b = append(make([]byte, 0, 2*len(r.b)+room), r.b...)
		}
		n, err := r.conn.Read(r.b[len(r.b):cap(r.b)])
		r.b = r.b[:len(r.b)+n]
		if err != nil {
			return nil, err
		}
	}
}
