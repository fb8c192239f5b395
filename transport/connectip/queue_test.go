package connectip

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

var testTime = time.Now()

// numbered returns a packet with a number, which waits since some time after the begin.
func numbered(n int, after time.Duration) *packet {
	p := newPacket(1000)
	p.b[0], p.b[1] = byte(n>>8), byte(n)
	p.since = time.Now().Add(after)
	return p
}

func number(p *packet) int { return int(p.b[0])<<8 | int(p.b[1]) }

// An outbox drops the oldest packets: those that have waited for too long, and those that
// are too many.
func TestOutboxDropsOldest(t *testing.T) {
	into := make([]*packet, 10000)
	for _, c := range []struct {
		name          string
		fill          func(o *outbox)
		first, number int
		dropped       uint64
	}{
		{"few", func(o *outbox) {
			for i := range 100 {
				o.put(numbered(i, 0))
			}
		}, 0, 100, 0},
		{"many", func(o *outbox) {
			for i := range maxOutbox + 10 {
				p := numbered(i, 0)
				p.b = p.b[:2]
				o.put(p)
			}
		}, 10, maxOutbox, 10},
		{"large", func(o *outbox) {
			for i := range maxOutboxBytes/2000 + 10 {
				p := numbered(i, 0)
				p.b = p.mem[:2000]
				o.put(p)
			}
		}, 10, maxOutboxBytes / 2000, 10},
		{"one that is too large", func(o *outbox) {
			p := newPacket(maxOutboxBytes + 1)
			p.since = time.Now()
			o.put(p)
		}, 0, 1, 0},
		{"old when newer ones come", func(o *outbox) {
			o.put(numbered(0, -time.Hour))
			o.put(numbered(1, -time.Hour))
			o.put(numbered(2, 0))
		}, 2, 1, 2},
		{"old when they are taken", func(o *outbox) {
			o.put(numbered(0, -time.Hour))
			o.put(numbered(1, -time.Hour))
		}, 0, 0, 2},
	} {
		o := newOutbox()
		c.fill(o)
		_, n, err := o.take(into, 1<<30)
		if err != nil || n != c.number || o.drops() != c.dropped || n > 0 && number(into[0]) != c.first || o.bytes != 0 {
			t.Errorf("%s: %d packets, %d dropped, %d bytes left, %v", c.name, n, o.drops(), o.bytes, err)
		}
	}
}

func TestOutboxTake(t *testing.T) {
	o, into := newOutbox(), make([]*packet, 10)
	for i := range 30 {
		o.put(numbered(i, 0))
	}
	o.putCapsule([]byte{1})
	capsules, n, err := o.take(into, 2500)
	if len(capsules) != 1 || n != 2 || err != nil {
		t.Errorf("%d capsules, %d packets, %v", len(capsules), n, err)
	}
	if capsules, n, _ = o.take(into, 1); len(capsules) != 0 || n != 1 || number(into[0]) != 2 {
		t.Errorf("%d capsules, %d packets", len(capsules), n)
	}
	if _, n, _ = o.take(into, 1<<30); n != 10 || number(into[9]) != 12 {
		t.Errorf("%d packets", n)
	}
	o.close()
	if _, _, err = o.take(into, 1<<30); !errors.Is(err, net.ErrClosed) || o.drops() != 17 {
		t.Errorf("%v, %d dropped", err, o.drops())
	}
	o.put(numbered(0, 0))
	if o.drops() != 18 {
		t.Errorf("%d dropped", o.drops())
	}
}

func TestOutboxCapsules(t *testing.T) {
	o := newOutbox()
	for range maxCapsules {
		if !o.putCapsule(nil) {
			t.Fatal("no room")
		}
	}
	if o.putCapsule(nil) {
		t.Error("there is always room")
	}
}

func TestInbox(t *testing.T) {
	in, into := newInbox(), make([]*packet, 100)
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
		in.put(numbered(i, 0))
		if n := <-got; n != i {
			t.Fatalf("got %d, want %d", n, i)
		}
	}
	in.close()
	done.Wait()
	full := newInbox()
	for i := range maxInbox + 5 {
		full.put(numbered(i, 0))
	}
	if full.lost != 5 {
		t.Errorf("%d lost", full.lost)
	}
}
