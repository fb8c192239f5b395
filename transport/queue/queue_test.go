package queue

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// numbered returns a packet with a number, which waits since some time after the begin.
func numbered(n int, after time.Duration) *Packet {
	p := New(1000)
	p.B[0], p.B[1] = byte(n>>8), byte(n)
	p.Since = time.Now().Add(after)
	return p
}

func number(p *Packet) int { return int(p.B[0])<<8 | int(p.B[1]) }

// An Outbox drops the oldest packets: those that have waited for too long, and those that
// are too many.
func TestOutboxDropsOldest(t *testing.T) {
	into := make([]*Packet, 10000)
	later := time.Now().Add(time.Hour) // none is too old, however long the test takes
	for _, c := range []struct {
		name          string
		fill          func(o *Outbox)
		first, number int
		dropped       uint64
	}{
		{"few", func(o *Outbox) {
			for i := range 100 {
				p := numbered(i, 0)
				p.Since = later
				o.Put(p)
			}
		}, 0, 100, 0},
		{"many", func(o *Outbox) {
			for i := range maxOutbox + 10 {
				p := numbered(i, 0)
				p.B, p.Since = p.B[:2], later
				o.Put(p)
			}
		}, 10, maxOutbox, 10},
		{"large", func(o *Outbox) {
			for i := range maxOutboxBytes/2000 + 10 {
				p := numbered(i, 0)
				p.B, p.Since = p.mem[:2000], later
				o.Put(p)
			}
		}, 10, maxOutboxBytes / 2000, 10},
		{"one that is too large", func(o *Outbox) {
			p := New(maxOutboxBytes + 1)
			p.Since = time.Now()
			o.Put(p)
		}, 0, 1, 0},
		{"old when newer ones come", func(o *Outbox) {
			o.Put(numbered(0, -time.Hour))
			o.Put(numbered(1, -time.Hour))
			o.Put(numbered(2, 0))
		}, 2, 1, 2},
		{"old when they are taken", func(o *Outbox) {
			o.Put(numbered(0, -time.Hour))
			o.Put(numbered(1, -time.Hour))
		}, 0, 0, 2},
	} {
		o := NewOutbox()
		c.fill(o)
		_, n, err := o.Take(into, 1<<30)
		if err != nil || n != c.number || o.Dropped() != c.dropped || n > 0 && number(into[0]) != c.first || o.bytes != 0 {
			t.Errorf("%s: %d packets, %d dropped, %d bytes left, %v", c.name, n, o.Dropped(), o.bytes, err)
		}
	}
}

func TestOutboxTake(t *testing.T) {
	o, into := NewOutbox(), make([]*Packet, 10)
	for i := range 30 {
		o.Put(numbered(i, 0))
	}
	o.PutMessage([]byte{1})
	messages, n, err := o.Take(into, 2500)
	if len(messages) != 1 || n != 2 || err != nil {
		t.Errorf("%d messages, %d packets, %v", len(messages), n, err)
	}
	if messages, n, _ = o.Take(into, 1); len(messages) != 0 || n != 1 || number(into[0]) != 2 {
		t.Errorf("%d messages, %d packets", len(messages), n)
	}
	if _, n, _ = o.Take(into, 1<<30); n != 10 || number(into[9]) != 12 {
		t.Errorf("%d packets", n)
	}
	o.Close()
	if _, _, err = o.Take(into, 1<<30); !errors.Is(err, net.ErrClosed) || o.Dropped() != 17 {
		t.Errorf("%v, %d dropped", err, o.Dropped())
	}
	o.Put(numbered(0, 0))
	if o.Dropped() != 18 {
		t.Errorf("%d dropped", o.Dropped())
	}
}

func TestOutboxMessages(t *testing.T) {
	o := NewOutbox()
	for range maxMessages {
		if !o.PutMessage(nil) {
			t.Fatal("no room")
		}
	}
	if o.PutMessage(nil) {
		t.Error("there is always room")
	}
}

func TestInbox(t *testing.T) {
	in, into := NewInbox(), make([]*Packet, 100)
	var done sync.WaitGroup
	got := make(chan int, 10)
	done.Go(func() {
		for {
			n, err := in.take(into)
			if err != nil {
				return
			}
			for _, p := range into[:n] {
				got <- number(p)
			}
		}
	})
	for i := range 1000 {
		in.Put(numbered(i, 0))
		if n := <-got; n != i {
			t.Fatalf("got %d, want %d", n, i)
		}
	}
	in.Close()
	done.Wait()
	full := NewInbox()
	for i := range maxInbox + 5 {
		full.Put(numbered(i, 0))
	}
	if full.Lost() != 5 {
		t.Errorf("%d lost", full.Lost())
	}
}
