package transport

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// TestErrorQueueIsEmptied: after a packet that was too large, nothing is left that makes
// the socket always seem ready.
func TestErrorQueueIsEmptied(t *testing.T) {
	n, err := rig.New("alone")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.SetMTU("lo", 1500); err != nil {
		t.Fatal(err)
	}
	for _, local := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		var tx *RawSender
		if err := n.Do(func() (err error) {
			tx, err = DialRaw(local, 41, Options{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		pkt := make([]byte, 1501)
		pkt[0] = 0x45
		copy(pkt[16:], local.AsSlice())
		if local.Is6() {
			pkt[0] = 0x60
			copy(pkt[24:], local.AsSlice())
		}
		for name, send := range map[string]func() error{
			"alone":      func() error { return tx.SendOne(pkt) },
			"in a batch": func() error { _, err := tx.Send([]Packet{{Head: pkt}}); return err },
		} {
			if err := send(); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("%v %s: %v", local, name, err)
			}
			fd, err := tx.fd.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			fds := []unix.PollFd{{Fd: int32(fd)}}
			if _, err := unix.Poll(fds, 0); err != nil || fds[0].Revents != 0 {
				t.Errorf("%v %s: events %#x, %v", local, name, fds[0].Revents, err)
			}
			tx.fd.Release()
		}
		tx.Close()
	}
}
