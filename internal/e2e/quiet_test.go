package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// A host that ignores "too big" does not keep others behind the tunnel from being told:
//
//	m 2001:db8:61::2 ─── a ══ six0 ══ b fc00::2
//	q 2001:db8:61::3 ─┘
func TestTooBigForHostsThatIgnoreIt(t *testing.T) {
	t.Parallel()
	n := newRouted(t)
	n.narrow(t, 1400)
	m, q := newNamespace(t, "m"), newNamespace(t, "q")
	for _, l := range []struct {
		ns        *rig.Namespace
		dev, here string
		at, via   string
	}{{m, "vm", "am", "2001:db8:61::2/64", "2001:db8:61::1/64"}, {q, "vq", "aq", "2001:db8:62::2/64", "2001:db8:62::1/64"}} {
		must(t, rig.Veth(l.ns, l.dev, n.a, l.here, 1500))
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.at)))
		must(t, n.a.AddAddr(l.here, netip.MustParsePrefix(l.via)))
		must(t, l.ns.LinkUp(l.dev))
		must(t, n.a.LinkUp(l.here))
		must(t, l.ns.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParsePrefix(l.via).Addr(), l.dev))
	}
	must(t, n.a.Forward())
	a := start(t, n.a, plainA())
	start(t, n.b, plainB(`routes = ["2001:db8:60::/44"]`))
	reachable(t, m, in6B)
	reachable(t, q, in6B)
	waitTooBig(t, m, in6B, 1480-48, 1380) // a's own kernel would answer for us if it got the error
	a.pathMTU(t, 1400, "icmp")

	noise, err := m.Capture("vm")
	must(t, err)
	defer noise.Close()
	from, err := m.MAC("vm")
	must(t, err)
	to, err := n.a.MAC("am")
	must(t, err)
	frame := rig.Ethernet(to, from, 0x86dd, ip6(netip.MustParseAddr("2001:db8:61::2"), in6B, experiment, make([]byte, 1400)))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				_ = noise.Inject(frame) // the device may be busy
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	eventually(t, "the noisy host was told enough", func() error {
		if _, s := a.status(t); s.ICMP.Limited < 100 {
			return fmt.Errorf("%+v", s.ICMP)
		}
		return nil
	})
	// The first error is for one packet: no more may be needed.
	res, err := rig.Ping(t.Context(), q, in6B, rig.PingOptions{Size: 1480 - 48, DF: true, Count: 1, Timeout: 2 * time.Second})
	must(t, err)
	if len(res.ICMP) != 1 || res.ICMP[0].MTU != 1380 {
		t.Errorf("%+v", res)
	}
}
