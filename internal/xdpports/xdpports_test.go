package xdpports

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/netcfg"
	"sixfour/transport/xdp"
)

// A device that another program has is tried again soon, but not for ever.
func TestAgain(t *testing.T) {
	now := time.Now()
	d := &device{err: unix.EBUSY}
	for i := range busyTries {
		if d.again(now); d.retry.Sub(now) != retrySoon {
			t.Errorf("attempt %d: again after %v", i, d.retry.Sub(now))
		}
	}
	if d.again(now); d.retry.Sub(now) != retryLate {
		t.Errorf("the last attempt: again after %v", d.retry.Sub(now))
	}
	other := &device{err: errors.New("not supported")}
	if other.again(now); other.retry.Sub(now) != retryLate {
		t.Errorf("another error: again after %v", other.retry.Sub(now))
	}
}

// Only devices that cannot be used, and whose time has not passed, are tried again.
func TestNextRetry(t *testing.T) {
	now := time.Now()
	no := errors.New("no")
	s := &Set{devices: map[int]*device{
		1: {err: no, retry: now.Add(3 * time.Second)},
		2: {err: no, retry: now.Add(2 * time.Second)},
		3: {err: no, retry: now.Add(-time.Second)},
		4: {retry: now.Add(time.Second)},
	}}
	if got := s.NextRetry(now); got != now.Add(2*time.Second) {
		t.Errorf("after %v", got.Sub(now))
	}
	if got := new(Set).NextRetry(now); !got.IsZero() {
		t.Errorf("without devices: %v", got)
	}
}

// Packets leave through a socket if their ends or the device do not allow AF_XDP, or while
// the IPsec policies are not known.
func TestNoHop(t *testing.T) {
	plain := &encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2")}
	zoned := &encap.Layer{Kind: encap.FourInSix, Local: netip.MustParseAddr("fe80::1%3"), Remote: netip.MustParseAddr("fe80::2%3")}
	unknown := errors.New("policies not known")
	for _, c := range []struct {
		what     string
		l        *encap.Layer
		route    netcfg.Route
		policies error
		want     string
	}{
		{"link-local", zoned, netcfg.Route{Ethernet: true}, nil, "an end is a link-local address"},
		{"not Ethernet", plain, netcfg.Route{Interface: "ppp0"}, nil, "ppp0 is not an Ethernet device"},
		{"policies", plain, netcfg.Route{Ethernet: true}, unknown, "policies not known"},
	} {
		s := &Set{policies: policies{err: c.policies}}
		if _, err := s.Hop(nil, c.l, 0, c.route); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, not %s", c.what, err, c.want)
		}
	}
}

// A port without a filter receives nothing, and a broken device has no port to replace.
func TestNothingTaken(t *testing.T) {
	p, a := new(xdp.Port), ArrivalOf(&encap.Layer{Kind: encap.SixInFour})
	s := &Set{devices: map[int]*device{1: {Port: p, taken: map[Arrival]bool{}}, 2: {err: errors.New("no")}}}
	w := make(Wanted)
	w.Add(p, a, zap.NewNop())
	if s.Take(w)(p, a) {
		t.Error("a port without a filter receives packets")
	}
	if s.Replace(nil) != nil {
		t.Error("a port is replaced that no receiver belongs to")
	}
	s.CloseUnused(func(*xdp.Port) bool { return true })
	if len(s.devices) != 2 {
		t.Errorf("%d devices", len(s.devices))
	}
}
