package jsontun

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/jsontun"
	"sixfour/transport"
	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// peer is a server to which a port connects.
type peer struct {
	transport.SessionPeer
	settings *Settings
	port     *Port
	stop     func() // ends the goroutine that connects

	current atomic.Pointer[session]
	dropped atomic.Uint64 // in former sessions

	mu      sync.Mutex // orders calls of Connected
	removed bool
}

// session is a connection that is complete.
type session struct {
	grant Grant
	since time.Time
	outer header.Outer // of its packets
	conn  net.Conn
	first []byte // what was received after the dialogue
	out   *queue.Outbox
}

// connect connects to the server, again and again, until the context ends.
func (p *peer) connect(ctx context.Context) {
	t := &p.port.times
	for pause := t.firstPause; ; pause = min(2*pause, t.lastPause) {
		start := time.Now()
		s, err := p.open(ctx)
		if err == nil {
			start = time.Now()
			err = p.run(ctx, s)
		}
		if ctx.Err() != nil {
			return
		}
		p.report(netip.AddrPort{}, err)
		if s != nil && time.Since(start) >= t.longEnough {
			pause = t.firstPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
	}
}

// report calls Connected.
func (p *peer) report(at netip.AddrPort, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.port.config.Connected; f != nil && !p.removed {
		f(p.ID, at, why)
	}
}

// remove ends the connection, and makes none any more.
func (p *peer) remove() {
	p.mu.Lock()
	p.removed = true
	p.mu.Unlock()
	p.stop()
}

// open makes a connection.
func (p *peer) open(ctx context.Context) (*session, error) {
	limit, cancel := context.WithTimeoutCause(ctx, p.port.times.connect, fmt.Errorf("no answer in %v", p.port.times.connect))
	defer cancel()
	raw, err := p.port.sockets.Connect(limit, unix.SOCK_STREAM, p.port.config.Local.Addr(), p.Remote)
	if err != nil {
		return nil, fmt.Errorf("TCP port %d of %v: %w", p.Remote.Port(), p.Remote.Addr(), err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	s, err := p.dialogue(limit, raw)
	if err != nil {
		stop()
		raw.Close()
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// dialogue makes a TCP connection a session.
func (p *peer) dialogue(limit context.Context, raw net.Conn) (*session, error) {
	if err := onSocket(raw, tune); err != nil {
		return nil, err
	}
	s := &session{conn: raw, out: queue.NewOutbox()}
	local := netsock.AddrPort(raw.LocalAddr())
	s.grant = Grant{Server: p.Remote, Local: local, TLS: p.settings.TLS != nil}
	s.outer = header.Outer{From: p.Remote, At: netip.AddrPortFrom(local.Addr(), p.port.config.Local.Port()), TTL: 64}
	if s.grant.TLS {
		c := tls.Client(raw, p.settings.TLS)
		if err := c.HandshakeContext(limit); err != nil {
			if limit.Err() != nil {
				err = context.Cause(limit)
			}
			return nil, fmt.Errorf("TLS: %w", err)
		}
		s.conn = c
	}
	d := talk{settings: p.settings, conn: s.conn, wait: p.port.times.answer}
	var err error
	if s.grant.Prefix, err = d.run(); err != nil {
		return nil, err
	}
	s.grant.Proved, s.first, s.since = d.proved, d.b, time.Now()
	return s, s.conn.SetDeadline(time.Time{})
}

// onSocket calls f with the descriptor of a connection.
func onSocket(c net.Conn, f func(fd int) error) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	closed := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(err, closed)
}

// talk is the client's part in the dialogue.
type talk struct {
	settings *Settings
	conn     net.Conn
	wait     time.Duration
	b        []byte // received and not used yet
	proved   bool
}

// run returns the prefix that the server assigns.
func (d *talk) run() (netip.Prefix, error) {
	m, err := d.ask(jsontun.Message{ID: d.settings.ID})
	if err == nil && m.Nonce != "" && m.Prefix == "" && m.Error == "" {
		if len(d.settings.Secret) == 0 {
			return netip.Prefix{}, errors.New("the server asks for a secret, and none is configured")
		}
		d.proved = true
		m, err = d.ask(jsontun.Message{ID: d.settings.ID, Auth: jsontun.Proof(d.settings.Secret, d.settings.ID, m.Nonce)})
	}
	switch {
	case err != nil:
		return netip.Prefix{}, err
	case m.Error != "":
		return netip.Prefix{}, serverError(m.Error)
	case m.Prefix == "":
		return netip.Prefix{}, errors.New("the server's answer has no Prefix: this is not a server of this protocol")
	}
	return jsontun.ParsePrefix(m.Prefix)
}

// ask sends a message, and returns the answer.
func (d *talk) ask(m jsontun.Message) (jsontun.Message, error) {
	if err := d.conn.SetDeadline(time.Now().Add(d.wait)); err != nil {
		return m, err
	}
	if _, err := d.conn.Write(m.Append(nil)); err != nil {
		return m, err
	}
	for {
		m, n, err := jsontun.Parse(d.b)
		switch {
		case err != nil:
			return m, fmt.Errorf("the server's answer: %w", err)
		case n > 0:
			d.b = d.b[n:]
			return m, nil
		}
		more := make([]byte, jsontun.MaxMessage)
		n, err = d.conn.Read(more)
		d.b = append(d.b, more[:n]...)
		var timeout net.Error
		switch {
		case n > 0:
		case errors.As(err, &timeout) && timeout.Timeout():
			return m, fmt.Errorf("the server has not answered in %v", d.wait)
		case errors.Is(err, io.EOF):
			return m, errors.New("the server closes the connection without an answer")
		case err != nil:
			return m, err
		}
	}
}

// serverError returns the error for what a server says, which may be anything.
func serverError(text string) error {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
	if r := []rune(text); len(r) > 200 {
		text = string(r[:200]) + "…"
	}
	return fmt.Errorf("the server says: %s", text)
}

// run carries packets until the connection ends, and returns why.
func (p *peer) run(ctx context.Context, s *session) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	if f := p.settings.Granted; f != nil {
		f(s.grant)
	}
	p.current.Store(s)
	p.report(p.Remote, nil)
	written := make(chan error, 1)
	p.port.running.Go(func() {
		written <- s.write()
		s.conn.Close() // and read ends
	})
	err := p.read(s)
	p.current.Store(nil)
	s.out.Close()
	s.conn.Close()
	if other := <-written; other != nil && errors.Is(err, net.ErrClosed) {
		err = other
	}
	p.dropped.Add(s.out.Dropped())
	return err
}

// read takes packets from the connection until it ends.
func (p *peer) read(s *session) error {
	b := make([]byte, 64<<10+jsontun.MaxPacket)
	have, begun := copy(b, s.first), false
	s.first = nil
	for {
		rest := b[:have]
		if !begun {
			rest = jsontun.TrimSpace(rest)
			begun = len(rest) > 0
		}
		for {
			n, err := jsontun.CutPacket(rest)
			if err != nil {
				return p.last(rest, err)
			}
			if n == 0 {
				break
			}
			pkt := queue.New(n)
			copy(pkt.B, rest)
			pkt.Outer = s.outer
			p.port.In.Put(pkt)
			rest = rest[n:]
		}
		have = copy(b, rest)
		n, err := s.conn.Read(b[have:])
		have += n
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return errors.New("the server has closed the connection")
		case err != nil:
			return err
		}
	}
}

// last returns the error of a message with which a server ends the connection, or else err.
func (p *peer) last(b []byte, err error) error {
	if m, n, other := jsontun.Parse(b); n > 0 && other == nil && m.Error != "" {
		return serverError(m.Error)
	}
	return err
}

// write writes what waits, until the connection ends.
func (s *session) write() error {
	const blocked = 2 * userTimeout // TCP has ended it earlier
	write := s.conn.Write
	if c, ok := s.conn.(syscall.Conn); ok {
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		write = (&segments{raw: raw}).Write
	}
	batch := make([]*queue.Packet, 64)
	for {
		_, n, err := s.out.Take(batch, 64<<10)
		if err != nil {
			return nil //nolint:nilerr // read knows why
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(blocked))
		for i, p := range batch[:n] {
			if time.Since(p.Since) > queue.MaxWait { // the socket was full meanwhile
				s.out.Lose(1)
			} else if err == nil {
				_, err = write(p.B)
			}
			p.Free()
			batch[i] = nil
		}
		if err != nil {
			return err
		}
	}
}

// segments is an io.Writer that makes each packet a segment of its own.
type segments struct {
	raw  syscall.RawConn
	b    []byte
	err  error
	more func(uintptr) bool // some
}

// Write writes one packet.
func (w *segments) Write(b []byte) (int, error) {
	if w.more == nil {
		w.more = w.some
	}
	w.b, w.err = b, nil
	if err := w.raw.Write(w.more); err != nil {
		return 0, err
	}
	return len(b), w.err
}

// some writes as much as the socket takes. It returns whether that was all.
func (w *segments) some(fd uintptr) bool {
	n, err := send(int(fd), w.b)
	w.b, w.err = w.b[n:], err
	return err != nil || len(w.b) == 0
}
