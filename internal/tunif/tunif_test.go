package tunif

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/iface"
	"sixfour/internal/ports"
	"sixfour/internal/report"
)

func newInterface() (*Interface, *[]string) {
	notes := new([]string)
	r := report.NewTunnel("six0", false, zap.NewNop())
	return New(&datapath.Tunnel{Name: "six0", Queues: 2, Log: zap.NewNop()}, r, func(text string) { *notes = append(*notes, text) }), notes
}

// What another program removes is restored with pauses, and not more often than a number of
// times in a while.
func TestRestored(t *testing.T) {
	i, notes := newInterface()
	now := time.Now()
	i.restored(iface.Restored{}, now)
	if !i.restoring.next.IsZero() {
		t.Error("a pause though nothing was restored")
	}
	for n := range restoreMost {
		i.restored(iface.Restored{Addresses: 1}, now)
		want := now.Add(restorePause)
		if n == restoreMost-1 {
			want = now.Add(restoreWindow)
		}
		if i.restoring.next != want {
			t.Errorf("restoration %d: the next after %v", n+1, i.restoring.next.Sub(now))
		}
	}
	if len(*notes) != 1 || i.report.Repairs()["address"] != restoreMost || i.report.Repairs()["route"] != 0 {
		t.Errorf("%q, %v", *notes, i.report.Repairs())
	}
	later := now.Add(restoreWindow + time.Second)
	if i.restored(iface.Restored{Routes: 2}, later); i.restoring.next != later.Add(restorePause) || i.report.Repairs()["route"] != 1 {
		t.Errorf("later: the next after %v, %v", i.restoring.next.Sub(later), i.report.Repairs())
	}
}

// The same fault is reported once.
func TestTroubled(t *testing.T) {
	i, notes := newInterface()
	i.troubled(&i.warned.state, errors.New("no"))
	i.troubled(&i.warned.state, errors.New("no"))
	i.troubled(&i.warned.state, errors.New("other"))
	if len(*notes) != 2 || (*notes)[0] != "interface six0: no" {
		t.Errorf("%q", *notes)
	}
}

// Without an interface there is nothing to check or close; the tunnel has its MTU anyway.
func TestNoInterface(t *testing.T) {
	i, _ := newInterface()
	i.Touch()
	if i.Due(time.Hour, time.Second) != time.Hour || i.Check() || i.IsGone() {
		t.Error("there is something to check")
	}
	i.CountOverflow()
	i.Close(nil)
	i.Drain()
	kept := ports.NewKept(nil, nil, zap.NewNop())
	i.Discard(kept)
	i.Forget(kept)
	if i.SetMTU(1400); i.tunnel.MTU.Load() != 1400 {
		t.Errorf("MTU %d", i.tunnel.MTU.Load())
	}
}

// Names of queues in the store contain no separators of the tunnel's name.
func TestQueueName(t *testing.T) {
	if got := queueName("a/b c", 3); got != "tun/a%2Fb+c/3" {
		t.Error(got)
	}
}
