package transport_test

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// TestFullQueue: if the uplink takes no more packets, a batch waits until Close, and a
// single packet does not wait.
func TestFullQueue(t *testing.T) {
	host := wiretest.Alone(t)
	rigtest.Must(t, host.Throttle("lo", 1<<16, 5000, 1<<28))
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx, _ := pair(t, host, e)
		done, pkt := make(chan error), e.Packet(1400, 0)
		go func() {
			for {
				if _, err := tx.Send([]transport.Packet{{Head: pkt}}); err != nil && !errors.Is(err, unix.ENOBUFS) {
					done <- err
					return
				}
			}
		}()
		for {
			err := tx.SendOne(pkt)
			if errors.Is(err, unix.ENOBUFS) {
				break
			}
			rigtest.Must(t, err)
		}
		tx.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	})
}
