package jsontun

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/transport/access"
)

// A client that says nothing, or does not complete what it has begun, is closed.
func TestDeadlines(t *testing.T) {
	short := func(_ *ServerConfig, s *serverTimes) {
		s.dialogue, s.drain, s.packet = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	}
	for _, c := range []struct {
		name   string
		writes []string
		reason []access.Reason
	}{
		{"nothing", nil, []access.Reason{access.Silent}},
		{"half a message", []string{`{"Id":`}, []access.Reason{access.Silent}},
		{"no proof", []string{`{"Id":"laptop"}`}, []access.Reason{access.Silent}},
		{"half a packet", []string{`{"Id":"open"}`, "\x60\x00"}, nil},
		{"refused, and it does not go", []string{"x"}, []access.Reason{access.BadMessage}},
	} {
		b := newBroker()
		s := serve(t, b, short)
		conn := dial(t, s)
		for _, w := range c.writes {
			if w[0] == '{' && w[len(w)-1] == '}' {
				say(t, conn, w)
			} else if _, err := io.WriteString(conn, w); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the end of "+c.name, func() bool { return s.Connections() == 0 && len(b.refusals()) >= len(c.reason) })
		if got := b.refusals(); !slices.Equal(got, c.reason) {
			t.Errorf("%s: refused: %v, want %v", c.name, got, c.reason)
		}
	}
}

// The Authority may take long: the client may go meanwhile, or send packets. It may also give
// no answer in time.
func TestDecisionTakesLong(t *testing.T) {
	b := newBroker()
	b.hold = make(chan struct{})
	s := serve(t, b, nil)
	conn := dial(t, s)
	if _, err := io.WriteString(conn, `{"Id":"open1"}`); err != nil {
		t.Fatal(err)
	}
	until(t, "the message", func() bool { s.deciders.mu.Lock(); defer s.deciders.mu.Unlock(); return s.deciders.active == 1 })
	conn.Close()
	reset := dial(t, s).(*net.TCPConn)
	if _, err := io.WriteString(reset, `{"Id":"open2"}`); err != nil {
		t.Fatal(err)
	}
	until(t, "the message", func() bool { s.deciders.mu.Lock(); defer s.deciders.mu.Unlock(); return s.deciders.active == 2 })
	reset.SetLinger(0)
	reset.Close()
	patient := dial(t, s)
	if _, err := patient.Write(append([]byte(`{"Id":"open3"}`), inner(60, 1)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := patient.Write(inner(60, 2)); err != nil {
		t.Fatal(err)
	}
	close(b.hold)
	if _, err := patient.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	of := b.of("open3")
	until(t, "packets", func() bool { return len(of.packets()) == 2 })
	until(t, "the end of the others", func() bool { return s.Connections() == 1 && b.of("open1") == nil && b.of("open2") == nil })

	b = newBroker()
	b.hold = make(chan struct{})
	s = serve(t, b, func(_ *ServerConfig, s *serverTimes) { s.decision = time.Millisecond })
	conn = dial(t, s)
	if got := say(t, conn, `{"Id":"open"}`); !strings.HasPrefix(got, `{"Error":"the server cannot give a prefix`) {
		t.Errorf("the answer is %s", got)
	}
	if got := b.refusals(); !slices.Equal(got, []access.Reason{access.Unavailable}) {
		t.Errorf("refused: %v", got)
	}
}

// Connections that say nothing do not keep others out: the oldest ones are closed.
func TestManyConnections(t *testing.T) {
	b := newBroker()
	s := serve(t, b, func(c *ServerConfig, _ *serverTimes) { c.MaxPending, c.MaxConnections = 10, 20 })
	var silent []net.Conn
	for range 15 {
		silent = append(silent, dial(t, s))
	}
	until(t, "the end of five", func() bool { return s.Connections() == 10 })
	for _, c := range silent[:5] {
		closes(t, c)
	}
	for i := range 10 {
		say(t, dial(t, s), fmt.Sprintf(`{"Id":"open%d"}`, i))
	}
	for _, r := range b.refusals() {
		if r != access.TooMany {
			t.Errorf("refused: %v", b.refusals())
		}
	}
	if n := s.Connections(); n < 10 || n > 20 {
		t.Errorf("%d connections", n)
	}
	until(t, "a full server", func() bool { dial(t, s); return s.Connections() == 20 })
	extra := dial(t, s)
	closes(t, extra)
}

// Of one source there may be fewer than of all.
func TestDoor(t *testing.T) {
	d := newDoor(6, 3)
	at := func(a string) *client {
		return &client{ends: ends{from: netip.AddrPortFrom(netip.MustParseAddr(a), 1)}}
	}
	var all []*client
	add := func(a string, want int) {
		t.Helper()
		c := at(a)
		all = append(all, c)
		got := d.add(c)
		if got == nil && want < 0 {
			return
		}
		if i := slices.Index(all, got); i != want {
			t.Errorf("%s: number %d is closed, want %d", a, i, want)
		}
	}
	add("192.0.2.1", -1)       // 0
	add("2001:db8::1", -1)     // 1
	add("2001:db8::2", -1)     // 2
	add("2001:db8::3:4:5", -1) // 3
	add("2001:db8::4", 1)      // 4: too many of this network
	add("2001:db8:0:1::1", -1) // 5
	add("192.0.2.2", -1)       // 6
	add("192.0.2.3", 2)        // 7: too many; that network has the most
	if d.remove(all[1]) || !d.remove(all[0]) || d.remove(all[0]) {
		t.Error("another one is removed")
	}
	for _, c := range all {
		d.remove(c)
	}
	if len(d.all) != 0 || len(d.count) != 0 {
		t.Errorf("left: %v, %v", d.all, d.count)
	}
}

// A client that reads nothing does not block the sender. The oldest packets are dropped, never
// a part of one: when the client reads again, it finds whole packets in their order.
func TestBlockedClient(t *testing.T) {
	b := newBroker()
	s := serve(t, b, nil)
	conn := dial(t, s)
	say(t, conn, `{"Id":"open"}`)
	link := b.of("open").attachment.Link.(*client)
	sent := 0
	send := func() {
		t.Helper()
		if err := link.Send(inner(1000, sent)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	lost := func() uint64 { link.mu.Lock(); defer link.mu.Unlock(); return link.outgoing.lost }
	for lost() < 1000 {
		send()
	}
	link.mu.Lock()
	if o := &link.outgoing; o.q.Len() > maxWaiting || o.bytes > maxWaitingBytes || int64(o.bytes) != s.waiting.Load() {
		t.Errorf("%d packets with %d bytes wait, %d in all", o.q.Len(), o.bytes, s.waiting.Load())
	}
	link.mu.Unlock()
	resumed, got, last := sent, 0, -1
	packet := make([]byte, 1000)
	done := make(chan error)
	go func() {
		for last < resumed {
			if _, err := io.ReadFull(conn, packet); err != nil {
				done <- err
				return
			}
			n := number(packet)
			if !bytes.Equal(packet, inner(1000, n)) || n <= last {
				done <- fmt.Errorf("packet %d follows %d: %x", n, last, packet[:44])
				return
			}
			last = n
			got++
		}
		done <- nil
	}()
	for {
		send()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if uint64(got)+lost() > uint64(sent) {
				t.Errorf("%d received, %d lost of %d", got, lost(), sent)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}
