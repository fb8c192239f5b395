package jsontun

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/jsontun"
	"sixfour/transport/access"
	"sixfour/transport/queue"
)

// tlsHandshake is the first byte of a TLS connection: the type of a handshake record (RFC 8446
// section 5.1). JSON does not begin with it.
const tlsHandshake = 0x16

// secure is a connection with TLS: the access.Link of its client. It has a goroutine that reads,
// and when it is open one that writes.
type secure struct {
	client   *client // which it was before, and is in the door
	conn     *tls.Conn
	out      *queue.Outbox
	dialogue *dialogue // nil after the first packet
	heard    atomic.Int64

	mu     sync.Mutex
	of     access.Client
	ended  bool // by the Authority
	closed error
}

// encrypt makes a connection that begins with b one with TLS. It is not the loop's any more.
func (c *client) encrypt(b []byte) error {
	s := c.loop.server
	c.mu.Lock()
	if c.state == ended {
		c.mu.Unlock()
		return errClosedByClient
	}
	file := os.NewFile(uintptr(c.fd), "")
	conn, err := net.FileConn(file) // a copy
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.loop.remove(c)
	_ = c.control(unix.EPOLL_CTL_DEL, 0)
	file.Close()
	c.fd = -1
	x := &secure{
		client: c, dialogue: c.dialogue, out: queue.NewOutbox(),
		conn: tls.Server(&begun{Conn: conn, first: append([]byte(nil), b...)}, s.config.TLS),
	}
	x.dialogue.secure = true
	c.secure = x
	c.mu.Unlock()
	c.keep(nil)
	s.mu.Lock()
	if s.secure == nil {
		s.mu.Unlock()
		conn.Close()
		s.door.remove(c)
		s.connections.Add(-1)
		return nil
	}
	s.secure[x] = true
	s.running.Go(x.run)
	s.mu.Unlock()
	return nil
}

// begun is a connection from which some bytes were read already.
type begun struct {
	net.Conn
	first []byte
}

// Read reads.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

// run handles the connection until it ends.
func (x *secure) run() {
	s := x.client.loop.server
	defer func() {
		x.out.Close()
		x.conn.NetConn().Close()
		s.door.remove(x.client)
		s.connections.Add(-1)
		s.mu.Lock()
		delete(s.secure, x)
		s.mu.Unlock()
	}()
	why := x.talk()
	if why == nil {
		s.running.Go(x.write)
		x.leave(x.read())
		return
	}
	if x.dialogue.refused || s.ctx.Err() != nil {
		return
	}
	_, _ = x.conn.Write(x.dialogue.refuse(why).Append(nil))
	_ = x.conn.CloseWrite()
}

// talk does the handshake of TLS and the dialogue.
func (x *secure) talk() *access.Refusal {
	s, d := x.client.loop.server, x.dialogue
	if !s.config.Authority.Allow(d.from.Addr()) {
		return tooOften
	}
	limit := func() { _ = x.conn.SetDeadline(time.Now().Add(s.times.dialogue)) }
	limit()
	if err := x.conn.Handshake(); err != nil {
		return access.Refuse(access.BadMessage, "TLS: %v", err)
	}
	b := make([]byte, 0, jsontun.MaxMessage)
	for {
		m, n, why := parse(b)
		if why != nil {
			return why
		}
		if n == 0 {
			n, err := x.conn.Read(b[len(b):cap(b)])
			if err != nil {
				return x.unanswered(err)
			}
			b = b[:len(b)+n]
			continue
		}
		s.door.remove(x.client)
		reply, of, why := d.decide(&m, x)
		if why != nil {
			return why
		}
		limit()
		_, err := x.conn.Write(reply.Append(nil))
		if of != nil {
			return x.opened(of, b[n:], err)
		}
		if err != nil {
			return x.unanswered(err)
		}
		s.door.enter(x.client)
		b = append(b[:0], b[n:]...)
	}
}

// unanswered returns the reason if the client has not sent a message.
func (x *secure) unanswered(err error) *access.Refusal {
	x.mu.Lock()
	closed := x.closed
	x.mu.Unlock()
	var why *access.Refusal
	switch {
	case errors.As(closed, &why):
		return why
	case x.dialogue.nonce != "":
		return x.dialogue.prove(new(jsontun.Message))
	}
	return access.Refuse(access.Silent, "the client has sent no message: %v", err)
}

// opened notes that the client is attached. B are the first bytes of its packets.
func (x *secure) opened(of access.Client, b []byte, err error) *access.Refusal {
	x.client.heard.Store(0)
	x.mu.Lock()
	if !x.ended {
		x.of = of
	}
	x.mu.Unlock()
	if err == nil {
		err = x.conn.SetDeadline(time.Time{})
	}
	if err == nil && len(b) > 0 {
		x.client.keep(b)
	}
	if err != nil {
		_ = x.conn.NetConn().Close() // read returns the error
	}
	return nil
}

// read handles packets of the client until the connection ends.
func (x *secure) read() error {
	b := make([]byte, 4096)
	have := 0
	if first := x.client.rest; first != nil {
		have = copy(b, first.B)
		x.client.keep(nil)
	}
	for fresh := have > 0; ; fresh = false {
		if !fresh {
			if have == len(b) { // a long packet
				b = append(b, make([]byte, jsontun.MaxPacket-len(b))...)
			}
			n, err := x.conn.Read(b[have:])
			if err != nil {
				return err
			}
			have += n
		}
		x.mu.Lock()
		of := x.of
		x.mu.Unlock()
		if of == nil {
			return net.ErrClosed
		}
		x.hear(of)
		rest, err := receive(b[:have], &x.dialogue, of)
		if err != nil {
			return err
		}
		have = copy(b, rest)
	}
}

// hear says that the client is there, at most once between two ticks.
func (x *secure) hear(of access.Client) {
	if now := x.client.loop.server.clock.Load(); x.heard.Swap(now) != now {
		of.Heard(x.client.from, x.client.at)
	}
}

// check is called now and then.
func (x *secure) check() {
	s := x.client.loop.server
	if s.clock.Load()-x.heard.Load() < s.times.heard {
		return
	}
	x.mu.Lock()
	of := x.of
	x.mu.Unlock()
	if of != nil {
		x.hear(of)
	}
}

// write writes what waits, until the connection ends.
func (x *secure) write() {
	const blocked = 30 * time.Second // a connection that takes nothing for so long has ended
	batch := make([]*queue.Packet, 32)
	for {
		_, n, err := x.out.Take(batch, 16<<10)
		if err != nil {
			return
		}
		_ = x.conn.SetWriteDeadline(time.Now().Add(blocked))
		for _, p := range batch[:n] {
			if err == nil {
				_, err = x.conn.Write(p.B)
			}
			p.Free()
		}
		if err != nil {
			x.close(err)
			return
		}
	}
}

// Send implements access.Link.
func (x *secure) Send(packet []byte) error {
	if !whole(packet) {
		return errNotIPv6
	}
	x.mu.Lock()
	open := x.of != nil && x.closed == nil
	x.mu.Unlock()
	if !open {
		return errNotConnected
	}
	p := queue.New(len(packet))
	copy(p.B, packet)
	p.Since = time.Now()
	x.out.Put(p)
	return nil
}

// End implements access.Link.
func (x *secure) End(why *access.Refusal) {
	x.mu.Lock()
	x.of, x.ended = nil, true
	x.mu.Unlock()
	x.close(why)
}

// close ends the connection. It does not wait.
func (x *secure) close(why error) {
	x.mu.Lock()
	if x.closed == nil {
		x.closed = why
	}
	x.mu.Unlock()
	_ = x.conn.NetConn().Close()
}

// leave says that the connection has ended.
func (x *secure) leave(err error) {
	x.mu.Lock()
	of := x.of
	if x.closed != nil {
		err = x.closed
	}
	x.of = nil
	x.mu.Unlock()
	if of != nil && x.client.loop.server.ctx.Err() == nil {
		of.Leave(fmt.Sprint(err))
	}
}
