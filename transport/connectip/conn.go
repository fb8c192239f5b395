package connectip

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// conn is a connection with a peer that has presented its secret: a stream of capsules, and
// with HTTP/3 datagrams beside it.
type conn struct {
	peer      *peer
	over      Over
	at, local netip.AddrPort // the ends
	since     time.Time
	out       *queue.Outbox
	r         *bufio.Reader
	w         stream
	datagrams *datagrams // nil with TCP
	shut      func(why error)
	written   atomic.Bool // since the last check whether the connection is idle
	once      sync.Once
	done      chan struct{} // closed when the connection has ended
	why       error         // set before
}

// stream is the writing half of a stream.
type stream interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}

// maxBlocked is for how long a write may wait. A connection that takes nothing for so long
// has ended for all practical purposes.
const maxBlocked = 30 * time.Second

// datagrams are the datagrams of an HTTP/3 request (RFC 9297 section 2.1).
type datagrams struct {
	conn   *quic.Conn
	id     uint64       // quarter stream identifier
	prefix []byte       // that and context identifier 0
	max    atomic.Int64 // the largest datagram that quic-go takes, as far as known
}

func newDatagrams(c *quic.Conn, id quic.StreamID) *datagrams {
	quarter := uint64(id) / 4
	return &datagrams{conn: c, id: quarter, prefix: append(appendVarint(nil, quarter), 0)}
}

// receive waits for a datagram of the request.
func (d *datagrams) receive() ([]byte, error) {
	for {
		b, err := d.conn.ReceiveDatagram(d.conn.Context())
		if err != nil {
			return nil, err
		}
		id, b, ok := cutVarint(b)
		if !ok {
			return nil, errors.New("a datagram has no quarter stream identifier")
		}
		if id == d.id {
			return b, nil
		}
	}
}

// oversized is a datagram that is too large for every path.
var oversized = make([]byte, 1<<16)

// limit returns the length of the largest packet that fits, asking quic-go if it is not
// known that one of n bytes does: path MTU discovery may have found more.
func (d *datagrams) limit(n int) int {
	room := int(d.max.Load()) - len(d.prefix)
	if n <= room {
		return room
	}
	d.learn(d.conn.SendDatagram(oversized))
	return max(0, int(d.max.Load())-len(d.prefix))
}

// learn notes the limit if an error says it. It returns whether the error does.
func (d *datagrams) learn(err error) bool {
	var e *quic.DatagramTooLargeError
	if !errors.As(err, &e) {
		return false
	}
	d.max.Store(e.MaxDatagramPayloadSize)
	return true
}

// send sends a datagram. It waits while the congestion window is full.
func (d *datagrams) send(b []byte) (taken bool, err error) {
	err = d.conn.SendDatagram(b)
	if d.learn(err) {
		return false, nil
	}
	return err == nil, err
}

// queue makes a packet wait in the connection. It does not wait itself.
func (c *conn) queue(head, body []byte, now time.Time) error {
	n := len(head) + len(body)
	var front []byte
	var start [12]byte
	if c.datagrams == nil {
		front = appendVarint(append(start[:0], capsuleDatagram), uint64(n)+1)
		front = append(front, 0)
	} else {
		if limit := c.datagrams.limit(n); n > limit {
			return &TooLargeError{n, limit}
		}
		front = c.datagrams.prefix
	}
	p := queue.New(len(front) + n)
	copy(p.B[copy(p.B, front):], head)
	copy(p.B[len(front)+len(head):], body)
	p.Since = now
	c.out.Put(p)
	return nil
}

// start starts the goroutines of the connection.
func (c *conn) start() {
	p := c.peer.port
	run := func(f func() error) {
		p.running.Go(func() { c.end(f()) })
	}
	run(c.readStream)
	if c.datagrams == nil {
		run(c.writeCapsules)
		run(c.keepAlive)
		return
	}
	run(c.readDatagrams)
	run(c.writeDatagrams)
	run(c.watch)
}

// end ends the connection, once.
func (c *conn) end(why error) {
	c.once.Do(func() {
		c.why = why
		c.out.Close()
		c.shut(why)
		c.peer.ended(c)
		close(c.done)
	})
}

var errClosedByPeer = errors.New("the peer has closed the connection")

// readStream reads capsules until the stream ends.
func (c *conn) readStream() error {
	for {
		p, control, err := readCapsule(c.r)
		switch {
		case errors.Is(err, io.EOF):
			return errClosedByPeer
		case err != nil:
			return err
		case p != nil:
			c.peer.deliver(p)
		case control.value != nil:
			if err := c.peer.obey(c, control); err != nil {
				return err
			}
		}
	}
}

// readDatagrams reads datagrams until the connection ends, and notes when the peer's address
// changes (RFC 9000 section 9).
func (c *conn) readDatagrams() error {
	at := c.datagrams.conn.RemoteAddr()
	for {
		b, err := c.datagrams.receive()
		if err != nil {
			return err
		}
		if now := c.datagrams.conn.RemoteAddr(); now != at {
			at = now
			c.peer.moved(c, netsock.AddrPort(now))
		}
		if b, ok := cutContext(b); ok {
			p := queue.New(0)
			p.B = b
			c.peer.deliver(p)
		}
	}
}

// writeDatagrams sends what waits, until the connection ends.
func (c *conn) writeDatagrams() error {
	batch := make([]*queue.Packet, 32)
	for {
		capsules, n, err := c.out.Take(batch, 1<<30)
		if err != nil {
			return err
		}
		for _, b := range capsules {
			if err := c.write(b); err != nil {
				return err
			}
		}
		for _, p := range batch[:n] {
			taken := false
			if err == nil {
				taken, err = c.datagrams.send(p.B)
			}
			if !taken {
				c.out.Lose(1)
			}
			p.Free()
		}
		if err != nil {
			return err
		}
	}
}

// maxRecord is how many bytes are written to a TCP connection at once: a TLS record.
const maxRecord = 16 << 10

// writeCapsules writes what waits, until the connection ends.
func (c *conn) writeCapsules() error {
	batch, b := make([]*queue.Packet, 256), make([]byte, 0, maxRecord)
	for {
		capsules, n, err := c.out.Take(batch, maxRecord)
		if err != nil {
			return err
		}
		b = b[:0]
		for _, capsule := range capsules {
			b = append(b, capsule...)
		}
		for _, p := range batch[:n] {
			b = append(b, p.B...)
			p.Free()
		}
		if len(b) == 0 { // all were too old
			continue
		}
		if err := c.write(b); err != nil {
			return err
		}
	}
}

func (c *conn) write(b []byte) error {
	c.written.Store(true)
	if err := c.w.SetWriteDeadline(time.Now().Add(maxBlocked)); err != nil {
		return err
	}
	_, err := c.w.Write(b)
	return err
}

// keepAlive sends a capsule without meaning whenever nothing was written for a while.
func (c *conn) keepAlive() error {
	t := time.NewTicker(c.peer.settings.keepalive())
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return net.ErrClosed
		case <-t.C:
		}
		if !c.written.Swap(false) {
			c.out.PutMessage(appendCapsule(nil, capsuleIdle, nil))
		}
	}
}

var errSilent = errors.New("the peer has not answered")

// watch ends the connection when nothing that we send is acknowledged any more. An
// acknowledgment of ours has no answer, but is not repeated, as data and QUIC's own pings are.
// QUIC itself only ends a connection that was idle for long (RFC 9000 section 10.1).
func (c *conn) watch() error {
	const repeated = 3
	silence := c.peer.port.times.silence
	interval := silence / 5
	t := time.NewTicker(interval)
	defer t.Stop()
	last := c.datagrams.conn.ConnectionStats()
	var since time.Time // of the first packet without an answer
	times := 0          // intervals with such packets
	for {
		select {
		case <-c.done:
			return net.ErrClosed
		case <-t.C:
		}
		now := c.datagrams.conn.ConnectionStats()
		if now.PacketsReceived != last.PacketsReceived {
			last, times = now, 0
			continue
		}
		if now.PacketsSent != last.PacketsSent {
			last = now
			if times++; times == 1 {
				since = time.Now()
			}
		}
		if times >= repeated && time.Since(since) >= silence-interval {
			return fmt.Errorf("%w for %v", errSilent, silence)
		}
	}
}
