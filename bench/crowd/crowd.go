package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/encap/jsontun"
	"sixfour/transport"
	"sixfour/transport/netsock"
)

// crowd is all clients.
type crowd struct {
	net     *network
	members []*member
	sockets *netsock.Sockets
	udp     [sources]*net.UDPConn
	seen    []atomic.Bool // members that have got an answer, by number; nil: nobody asks
	answers chan struct{}
	count   atomic.Uint32 // of packets
	failed  atomic.Pointer[error]
}

func newCrowd(n *network, members []*member) (*crowd, error) {
	c := &crowd{net: n, members: members, seen: make([]atomic.Bool, len(members)), answers: make(chan struct{}, 1<<16)}
	err := n.client.Do(func() (err error) {
		c.sockets, err = netsock.New(transport.Options{})
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range c.udp {
		s, err := c.sockets.Connect(context.Background(), unix.SOCK_DGRAM, netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}), netip.AddrPortFrom(server.Addr(), 5072))
		if err != nil {
			return nil, err
		}
		c.udp[i] = s.(*net.UDPConn)
		go c.readUDP(c.udp[i])
	}
	for i, m := range members {
		m.number = uint32(i)
		m.socket = c.udp[i%sources]
	}
	return c, nil
}

// echo returns an ICMPv6 echo request of 64 bytes, with the number of the client and another one
// in it: the daemon refuses a packet of AYIYA that comes again.
func echo(from, to netip.Addr, client, number uint32) []byte {
	b := make([]byte, 64)
	b[0], b[5], b[6], b[7] = 0x60, 24, header.ICMPv6, 64
	src, dst := from.As16(), to.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	upper := b[header.IPv6Len:]
	upper[0] = 128
	binary.BigEndian.PutUint32(upper[8:], client)
	binary.BigEndian.PutUint32(upper[12:], number)
	binary.BigEndian.PutUint16(upper[2:], ^header.Sum(upper, header.PseudoSum(src[:], dst[:], len(upper), header.ICMPv6)))
	return b
}

// answered takes a packet that a client has got.
func (c *crowd) answered(inner []byte) {
	if len(inner) == len(beat{}) { // the answer to one
		c.answers <- struct{}{}
		return
	}
	if len(inner) != 64 || inner[header.IPv6Len] != 129 {
		return
	}
	if i := binary.BigEndian.Uint32(inner[header.IPv6Len+8:]); int(i) < len(c.members) && c.members[i].prefix.Contains(header.IPv6(inner).Dst()) {
		c.seen[i].Store(true)
		select {
		case c.answers <- struct{}{}:
		default:
		}
	}
}

// ayiyaHeader is the length of the header with SHA-1.
var ayiyaHeader = ayiya.SHA1.HeaderLen()

func (c *crowd) readUDP(s *net.UDPConn) {
	b := make([]byte, 2048)
	for {
		n, err := s.Read(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // the daemon is away
		}
		if n > ayiyaHeader {
			c.answered(b[ayiyaHeader:n])
		}
	}
}

// beat is what is in a sign of life: a number.
type beat [4]byte

// send sends a packet of the client to a host behind the broker.
func (c *crowd) send(m *member) error {
	inner := echo(m.prefix.Addr().Next(), beyond, m.number, c.count.Add(1))
	if m.key != nil {
		return m.write(1, 41, inner)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil {
		return unix.ENOTCONN
	}
	_, err := m.conn.Write(inner)
	return err
}

// beat sends a sign of life with AYIYA: a request for an echo.
func (c *crowd) beat(m *member) error {
	var b beat
	binary.BigEndian.PutUint32(b[:], c.count.Add(1))
	return m.write(2, 59, b[:])
}

// write sends a datagram of AYIYA.
func (m *member) write(op ayiya.OpCode, next byte, payload []byte) error {
	var b [128]byte
	whole := b[:ayiyaHeader+copy(b[ayiyaHeader:], payload)]
	ayiya.Sign(whole, &ayiya.Header{Op: op, Next: next, Epoch: ayiya.Epoch(time.Now()), Identity: m.identity}, m.key)
	_, err := m.socket.Write(whole)
	return err
}

// connect connects clients, and waits until each has got an answer to a packet.
func (c *crowd) connect(ayiya, json []*member) error {
	for _, m := range json {
		m.once.Do(func() { go c.stay(m) })
	}
	return c.reach(append(append([]*member(nil), ayiya...), json...))
}

// reach sends packets of clients until each has got an answer.
func (c *crowd) reach(of []*member) error {
	for _, m := range of {
		c.seen[m.number].Store(false)
	}
	start := time.Now()
	for {
		missing := 0
		for i, m := range of {
			if !c.seen[m.number].Load() {
				missing++
				_ = c.send(m)
			}
			if i%50 == 49 {
				time.Sleep(2 * time.Millisecond)
			}
		}
		if err := c.failed.Load(); err != nil {
			return *err
		}
		switch {
		case missing == 0:
			return nil
		case time.Since(start) > 3*time.Minute:
			return fmt.Errorf("%d of %d clients have no answer", missing, len(of))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// stay keeps a client of JSON connected, as the client of sixfourd does.
func (c *crowd) stay(m *member) {
	for pause := 2 * time.Second; ; pause = min(2*pause, 30*time.Second) {
		conn, err := c.sockets.Connect(context.Background(), unix.SOCK_STREAM, m.from, server)
		if err == nil {
			if err = c.talk(m, conn); err == nil {
				pause = time.Second
			}
			conn.Close()
		}
		time.Sleep(pause/2 + rand.N(pause/2))
	}
}

// talk uses a connection until it ends. The error says that there was no dialogue.
func (c *crowd) talk(m *member, conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(jsontun.Message{ID: m.name}.Append(nil)); err != nil {
		return err
	}
	b := make([]byte, 512)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	answer, used, err := jsontun.Parse(b[:n])
	if err != nil {
		return err
	}
	if answer.Prefix != m.prefix.String() {
		if answer.Prefix != "" {
			err := fmt.Errorf("%s has got %s, and had %v before", m.name, answer.Prefix, m.prefix)
			c.failed.Store(&err)
		}
		return errors.New(answer.Error)
	}
	conn.SetDeadline(time.Time{})
	m.mu.Lock()
	m.conn = conn
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.conn = nil
		m.mu.Unlock()
	}()
	for have := copy(b, b[used:n]); ; {
		for {
			n, err := jsontun.CutPacket(b[:have])
			if err != nil {
				c.failed.Store(&err)
				return nil
			}
			if n == 0 {
				break
			}
			c.answered(b[:n])
			have = copy(b, b[n:have])
		}
		n, err := conn.Read(b[have:])
		if err != nil {
			return nil //nolint:nilerr // it was connected
		}
		have += n
	}
}

// ping calls send for clients in turn, of which only some have no answer at a time.
func (c *crowd) ping(of []*member, send func(*member) error, count, window int) error {
	for len(c.answers) > 0 {
		<-c.answers
	}
	lost := 0
	wait := func() {
		select {
		case <-c.answers:
		case <-time.After(time.Second):
			lost++
		}
	}
	for i := range count {
		if i >= window {
			wait()
		}
		if err := send(of[i%len(of)]); err != nil {
			return err
		}
	}
	for range window {
		wait()
	}
	if lost > count/1000 {
		return fmt.Errorf("%d of %d packets have no answer", lost, count)
	}
	return nil
}
