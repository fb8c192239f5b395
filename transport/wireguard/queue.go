package wireguard

import (
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a packet waits for room in a queue. The other side of a queue takes
// packets whenever it runs, so a queue that is full for longer has nobody who takes them.
const patience = 20 * time.Millisecond

// errFull is the error for a packet for which a queue has no room.
var errFull = fmt.Errorf("the queue to the WireGuard device is full: %w", unix.ENOBUFS)

// queue holds packets between the device and those who use the port. Any number of
// goroutines may put packets into it, and one takes them out. The buffers of packets belong
// to the queue and are reused.
type queue struct {
	mu    sync.Mutex // guards all up to stuck
	slots []slot
	first int // the oldest packet
	used  int
	stuck bool // nothing was taken for as long as patience lasts

	filled chan struct{} // has a value if there may be packets
	freed  chan struct{} // has a value if there may be room
	done   chan struct{} // closed by close
	once   sync.Once
}

// slot is a packet of a queue.
type slot struct {
	b        []byte
	tos, ttl byte
}

// usualSize is the least capacity of a buffer: most networks have an MTU of 1500.
const usualSize = 1536

// size makes room for a packet of a size, and returns it.
func (s *slot) size(n int) []byte {
	if cap(s.b) < n {
		s.b = make([]byte, n, max(n, usualSize))
	}
	s.b = s.b[:n]
	return s.b
}

func newQueue(size int) *queue {
	return &queue{
		slots:  make([]slot, size),
		filled: make(chan struct{}, 1), freed: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// close makes all calls return net.ErrClosed, now and later.
func (q *queue) close() { q.once.Do(func() { close(q.done) }) }

func (q *queue) closed() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// signal makes a goroutine look again: the one that waits, or the next one that would.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put adds n packets, each of which fill writes into a slot, and returns how many it added.
// If that is less than n, the error is about packet n: that of fill, or errFull if there is
// no room, for some time if wait is true.
func (q *queue) put(n int, wait bool, fill func(i int, s *slot) error) (added int, err error) {
	defer signal(q.filled)
	var patient *time.Timer // nil: has not waited yet
	q.mu.Lock()
	for added < n && err == nil {
		if q.closed() {
			err = net.ErrClosed
			break
		}
		if q.used < len(q.slots) {
			if err = fill(added, &q.slots[(q.first+q.used)%len(q.slots)]); err == nil {
				q.used++
				added++
			}
			continue
		}
		if !wait || q.stuck {
			err = errFull
			break
		}
		q.mu.Unlock()
		signal(q.filled)
		if patient == nil {
			patient = time.NewTimer(patience)
			defer patient.Stop()
		}
		select {
		case <-q.freed:
		case <-patient.C:
			err = errFull
		case <-q.done:
		}
		q.mu.Lock()
		q.stuck = err != nil && q.used == len(q.slots)
	}
	q.mu.Unlock()
	return added, err
}

// take removes packets, at least one and at most n, and calls f with each of them. It waits
// for the first one. F must not retain the packet.
func (q *queue) take(n int, f func(i int, s *slot)) (int, error) {
	for {
		if q.closed() {
			return 0, net.ErrClosed
		}
		q.mu.Lock()
		n := min(n, q.used)
		for i := range n {
			f(i, &q.slots[q.first])
			q.first = (q.first + 1) % len(q.slots)
		}
		q.used -= n
		q.stuck = q.stuck && n == 0
		q.mu.Unlock()
		if n > 0 {
			signal(q.freed)
			return n, nil
		}
		select {
		case <-q.filled:
		case <-q.done:
		}
	}
}
