package jsontun

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/jsontun"
	"sixfour/transport/access"
	"sixfour/transport/queue"
)

// client is a connection that began without TLS: the access.Link of its client.
//
// One goroutine at a time reads: the loop, or while busy the one that waits for the
// Authority. It also closes the descriptor. All others shut the connection down, which the
// one that reads notices.
type client struct {
	loop *loop
	ends
	event    unix.EpollEvent
	deadline atomic.Int64 // in nanoseconds, for what we wait for; 0: none
	heard    atomic.Int64 // when Heard was called, by Server.clock

	// Used by the goroutine that reads.
	dialogue *dialogue     // nil after the first packet
	rest     *queue.Packet // the beginning of a message or packet; nil: none

	mu       sync.Mutex
	fd       int // -1: closed
	state    state
	busy     bool // a goroutine waits for the Authority, or handles its answer
	detached bool // the loop has no events any more
	hold
	secure   *secure // it has become a connection with TLS
	outgoing outgoing
}

// ends are the addresses of both ends of a connection.
type ends struct{ from, at netip.AddrPort }

// hold is what an Authority and a connection have of each other.
type hold struct {
	of       access.Client
	why      *access.Refusal // why we have shut the connection down
	released bool            // by the Authority
}

// state is how far a connection has come.
type state uint8

const (
	talking  state = iota // the dialogue
	open                  // packets go both ways
	draining              // the client is refused, and may read our answer
	ended                 // shut down
)

var errClosedByClient = errors.New("the client has closed the connection")

// handle handles an event.
func (c *client) handle(events uint32) {
	c.mu.Lock()
	state, busy := c.state, c.busy
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	if busy && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.detached = true
		_ = c.control(unix.EPOLL_CTL_DEL, 0)
	}
	c.mu.Unlock()
	if busy || events&^unix.EPOLLOUT == 0 {
		return
	}
	if err := c.read(state); err != nil {
		c.finish(err)
	}
}

// read reads once, and handles what has come.
func (c *client) read(state state) error {
	b := c.loop.buf[:]
	have := 0
	if c.rest != nil {
		have = copy(b, c.rest.B)
	}
	if state == talking {
		b = b[:jsontun.MaxMessage]
	}
	n, err := unix.Read(c.fd, b[have:])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return errClosedByClient
	}
	switch state {
	case talking:
		return c.talk(b[:have+n])
	case open:
		return c.carry(b[:have+n])
	case draining, ended:
	}
	return nil
}

// keep stores the beginning of something that is not complete yet.
func (c *client) keep(b []byte) {
	former := c.rest
	c.rest = nil
	if len(b) > 0 {
		c.rest = queue.New(len(b))
		copy(c.rest.B, b)
	}
	if former != nil {
		former.Free()
	}
}

// talk handles a part of the dialogue.
func (c *client) talk(b []byte) error {
	s := c.loop.server
	if b[0] == tlsHandshake && c.dialogue.nonce == "" && s.config.TLS != nil {
		return c.encrypt(b)
	}
	m, n, why := parse(b)
	switch {
	case b[0] == tlsHandshake:
		c.refuse(access.Refuse(access.Unsupported, "this server has no TLS"))
		return nil
	case s.config.Required:
		c.refuse(access.Refuse(access.Unencrypted, "this server requires TLS"))
		return nil
	case why != nil:
		c.refuse(why)
		return nil
	case n == 0:
		c.keep(b)
		return nil
	}
	c.keep(b[n:])
	c.deadline.Store(0)
	s.door.remove(c)
	c.mu.Lock()
	c.busy = true
	err := c.arm()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	s.deciders.run(s, func() { c.decide(&m) })
	return nil
}

// decide waits for the decision about a message, and handles it.
func (c *client) decide(m *jsontun.Message) {
	reply, of, why := c.dialogue.decide(m, c)
	if c.loop.server.ctx.Err() != nil {
		return
	}
	err := c.accept(reply, of, why)
	c.mu.Lock()
	c.busy = false
	detached := c.detached
	if !detached {
		err = errors.Join(err, c.arm())
	}
	c.mu.Unlock()
	switch {
	case detached:
		c.finish(errClosedByClient)
	case err != nil:
		c.abort(access.Refuse(access.BadMessage, "%v", err))
	}
}

// accept handles a decision.
func (c *client) accept(reply jsontun.Message, of access.Client, why *access.Refusal) error {
	if why != nil {
		c.refuse(why)
		return nil
	}
	c.mu.Lock()
	if c.state == ended || c.detached {
		released := c.released
		c.mu.Unlock()
		if of != nil && !released {
			of.Leave(errClosedByClient.Error())
		}
		return nil
	}
	err := c.say(reply)
	if of != nil {
		c.of, c.state = of, open
	}
	c.mu.Unlock()
	s := c.loop.server
	switch {
	case err != nil:
		return err
	case of == nil: // a nonce
		c.deadline.Store(time.Now().Add(s.times.dialogue).UnixNano())
		s.door.enter(c)
		return nil
	}
	c.heard.Store(s.clock.Load())
	if c.rest == nil {
		return nil
	}
	b := append([]byte(nil), c.rest.B...)
	return c.carry(b)
}

// carry handles packets of the client.
func (c *client) carry(b []byte) error {
	c.mu.Lock()
	of := c.of
	c.mu.Unlock()
	if of == nil {
		return nil
	}
	s := c.loop.server
	if now := s.clock.Load(); c.heard.Swap(now) != now {
		of.Heard(c.from, c.at)
	}
	rest, err := receive(b, &c.dialogue, of)
	begun := c.rest != nil && len(rest) < len(b) || c.rest == nil && len(rest) > 0
	c.keep(rest)
	switch {
	case len(rest) == 0:
		c.deadline.Store(0)
	case begun:
		c.deadline.Store(time.Now().Add(s.times.packet).UnixNano())
	}
	return err
}

// receive hands over the packets in b, and returns what follows the last whole one. The
// dialogue is nil if there was a packet before.
func receive(b []byte, d **dialogue, of access.Client) (rest []byte, err error) {
	if *d != nil {
		if b, err = (*d).skip(b); err != nil || len(b) == 0 || b[0] == '{' {
			return b, err
		}
		*d = nil
	}
	for {
		n, err := jsontun.CutPacket(b)
		if n == 0 {
			return b, err
		}
		of.Receive(b[:n:n]) // it counts what it refuses
		b = b[n:]
	}
}

// refuse tells the client why it is refused. The client may read that before the connection is
// closed.
func (c *client) refuse(why *access.Refusal) {
	message := c.dialogue.refuse(why)
	s := c.loop.server
	s.door.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ended || c.fd < 0 {
		return
	}
	c.state = draining
	_ = c.say(message) // it is gone, otherwise
	_ = unix.Shutdown(c.fd, unix.SHUT_WR)
	c.deadline.Store(time.Now().Add(s.times.drain).UnixNano())
}

// abort ends the connection for a reason of ours.
func (c *client) abort(why *access.Refusal) {
	c.mu.Lock()
	secure := c.secure
	if c.why == nil {
		c.why = why
	}
	c.shutdown()
	c.mu.Unlock()
	if secure != nil {
		secure.close(why)
	}
}

// shutdown ends the connection. The caller holds mu.
func (c *client) shutdown() {
	if c.state != ended && c.fd >= 0 {
		c.state = ended
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

// End implements access.Link.
func (c *client) End(why *access.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of, c.why, c.released = nil, why, true
	c.shutdown()
}

// check is called now and then.
func (c *client) check(now time.Time) {
	if d := c.deadline.Load(); d != 0 && now.UnixNano() > d {
		c.deadline.Store(0)
		c.abort(access.Refuse(access.Silent, "nothing has come for too long"))
		return
	}
	s := c.loop.server
	clock := s.clock.Load()
	if clock-c.heard.Load() < s.times.heard {
		return
	}
	c.heard.Store(clock)
	c.mu.Lock()
	of := c.of
	c.mu.Unlock()
	if of != nil {
		of.Heard(c.from, c.at)
	}
}

// finish closes the connection, and says why it has ended. The goroutine that reads calls it.
func (c *client) finish(err error) {
	c.mu.Lock()
	of, why, released := c.of, c.why, c.released
	c.mu.Unlock()
	d := c.dialogue
	s := c.loop.server
	c.destroy()
	s.door.remove(c)
	switch {
	case of != nil && why != nil:
		of.Leave(why.Text)
	case of != nil:
		of.Leave(err.Error())
	case d == nil || d.refused || released: // the Authority knows
	case why != nil:
		d.refuse(why)
	case d.nonce != "":
		d.refuse(d.prove(new(jsontun.Message)))
	}
}

// destroy releases what the connection has.
func (c *client) destroy() {
	c.mu.Lock()
	fd := c.fd
	c.fd, c.state, c.of = -1, ended, nil
	c.outgoing.clear(&c.loop.server.waiting)
	c.mu.Unlock()
	if fd < 0 {
		return
	}
	c.keep(nil)
	c.loop.remove(c)
	unix.Close(fd)
	c.loop.server.connections.Add(-1)
}
