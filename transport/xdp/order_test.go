package xdp_test

import (
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
	"sixfour/transport/xdp"
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

// TestSenderKeepsOrder: packets that bypass the queueing discipline do not overtake
// those that wait there.
func TestSenderKeepsOrder(t *testing.T) {
	left, right := wiretest.Two(t)
	p, _ := port(t, left)
	from, err := left.MAC("eth0")
	rigtest.Must(t, err)
	to, err := right.MAC("eth0")
	rigtest.Must(t, err)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		other := &slow{queued: true}
		tx := xdp.NewSender(p, [6]byte(from), [6]byte(to), other)
		rx := wiretest.Listen(t, right, e.Right, header.GRE, transport.Shard{}, transport.Options{})
		small, large := e.Outer(header.GRE, make([]byte, 100)), e.Outer(header.GRE, make([]byte, 3000)) // larger than a frame
		send := func(want int, pkts ...[]byte) {
			t.Helper()
			n, err := tx.Send(wiretest.Pieces(pkts))
			rigtest.Must(t, err)
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
		wiretest.Expect(t, rx, small, small, small)
	})
}
