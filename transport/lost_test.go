package transport_test

import (
	"errors"
	"testing"

	"sixfour/transport/wiretest"

	"golang.org/x/sys/unix"
)

// TestLost: a receiver whose queue is not read reports the packets for which it has no
// room.
func TestLost(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx, rx := pair(t, host, e)
		if n, ok := rx.Lost(); n != 0 || !ok {
			t.Errorf("%d are lost before there is one, %v", n, ok)
		}
		const packets = 40000 // the receive buffer has 16 MiB
		pkt := e.Packet(1000, 0)
		for range packets {
			for errors.Is(tx.SendOne(pkt), unix.ENOBUFS) {
			}
		}
		if n, ok := rx.Lost(); n == 0 || n >= packets || !ok {
			t.Errorf("%d of %d are lost, %v", n, packets, ok)
		}
		rx.Close()
		if _, ok := rx.Lost(); ok {
			t.Error("a closed receiver knows what it lost")
		}
	})
}
