package tun_test

import (
	"errors"
	"testing"

	"sixfour/internal/rig"
	"sixfour/tun"
)

// A Read that waits when somebody deletes the interface ends with ErrGone,
// whoever hears of it first: the poller or the read.
func TestDeletedInterfaceEndsRead(t *testing.T) {
	ns, err := rig.New("tun-deleted")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 50 {
		var dev *tun.Device
		if err := ns.Do(func() (err error) {
			dev, err = tun.Open("six0", 1400)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		go func() {
			for range dev.Events() { // have to be read
			}
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			bufs := make([][]byte, dev.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 2048)
			}
			for {
				if _, err := dev.Read(bufs, make([]int, len(bufs)), 0); errors.Is(err, tun.ErrGone) {
					return
				}
			}
		}()
		if err := ns.DelLink("six0"); err != nil {
			t.Error(err)
		}
		<-done
		dev.Close()
	}
}
