package transport_test

import (
	"testing"

	"sixfour/encap/header"
	"sixfour/transport"
)

// slow is a sender whose packets wait in a queue.
type slow struct {
	transport.Sender
	queued bool
	sent   int
}

func (s *slow) Send(pkts []transport.Packet) (int, error) {
	s.sent += len(pkts)
	return len(pkts), nil
}

func (s *slow) Queued() bool { return s.queued }

// TestXDPSenderKeepsOrder: packets that bypass the queueing discipline do not overtake
// those that wait there.
func TestXDPSenderKeepsOrder(t *testing.T) {
	left, right := two(t)
	p, _ := port(t, left)
	from, err := left.MAC("eth0")
	check(t, err)
	to, err := right.MAC("eth0")
	check(t, err)
	both(t, func(t *testing.T, e ends) {
		other := &slow{queued: true}
		tx := transport.NewXDPSender(p, [6]byte(from), [6]byte(to), other)
		rx := listen(t, right, e.right, header.GRE, transport.Shard{}, transport.Options{})
		small, large := e.outer(header.GRE, make([]byte, 100)), e.outer(header.GRE, make([]byte, 3000)) // larger than a frame
		send := func(want int, pkts ...[]byte) {
			t.Helper()
			n, err := tx.Send(pieces(pkts))
			check(t, err)
			if n != len(pkts) || other.sent != want {
				t.Errorf("%d packets of %d are sent, %d through the queue, want %d", n, len(pkts), other.sent, want)
			}
		}
		send(1, small) // as before there was a port
		other.queued, other.sent = false, 0
		send(0, small)
		other.queued = true
		send(2, large, small)
		send(3, small) // large may still wait
		other.queued = false
		send(3, small)
		send(5, small, large, small)
		expect(t, rx, small, small, small)
	})
}

// TestQueued: a raw socket reports whether its packets have left: here they wait for a
// neighbour that never answers.
func TestQueued(t *testing.T) {
	left, _ := two(t)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, left, e.left, transport.Options{})
		if tx.Queued() {
			t.Error("nothing was sent, and something is queued")
		}
		gone := ends{e.left, e.right.Next().Next()}
		check(t, tx.SendOne(gone.outer(header.GRE, make([]byte, 100))))
		if !tx.Queued() {
			t.Error("a packet to a neighbour that does not answer does not wait")
		}
	})
}
