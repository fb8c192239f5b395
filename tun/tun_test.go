package tun_test

import (
	"errors"
	"sync"
	"testing"

	"sixfour/internal/rig"
	"sixfour/tun"
)

// TestDeletedInterfaceEndsRead: a Read that waits when the interface is deleted ends
// with ErrGone, whether the poller or the read notices it first.
func TestDeletedInterfaceEndsRead(t *testing.T) {
	ns, err := rig.New("tun-deleted")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 50 {
		var dev *tun.Device
		if err := ns.Do(func() (err error) {
			dev, err = tun.Open(tun.Settings{Name: "six0", MTU: 1400, Queues: 2, Offload: tun.OffloadUDP})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, q := range dev.Queues() {
			wg.Go(func() {
				buf := make([]byte, tun.MaxRead)
				for {
					err := q.Wait()
					if err == nil {
						_, err = q.Read(buf)
					}
					if errors.Is(err, tun.ErrGone) {
						return
					}
				}
			})
		}
		if err := ns.DelLink("six0"); err != nil {
			t.Error(err)
		}
		wg.Wait()
		dev.Close()
	}
}
