package e2e

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/capture"
	"sixfour/internal/rig"
)

// In a capture a request is before its reply, inside and outside, at both ends: also if the
// goroutine that has sent the request shows it later than another goroutine shows the
// reply.
func TestCaptureRequestsComeFirst(t *testing.T) {
	t.Parallel()
	const pingers, each = 8, 100
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA()), start(t, h.b, configB())
	reachable(t, h.a, inB)
	for name, to := range map[string]*daemon{"a": a, "b": b} {
		rec := to.record(t, capture.Request{Tunnel: "six0", Filter: "icmp"})
		var all sync.WaitGroup
		for range pingers {
			all.Go(func() { pings(t, h.a, inB, rig.PingOptions{Count: each}) })
		}
		all.Wait()
		replies := func() (n, early int) {
			asked := make(map[string]bool)
			for _, p := range rec.packets(t) {
				from := len(p.Data) // of the inner packet
				switch {
				case p.at == "inner":
					from = 0
				case len(p.Data) > header.IPv4Len+header.IPv6Len:
					from = header.IPv4Len + header.IPv6Len
				}
				in := header.IPv4(p.Data[from:])
				if len(in) < header.IPv4Len+8 || in.Protocol() != header.ICMP {
					continue
				}
				icmp := in.Payload()
				key := fmt.Sprintf("%s %x", p.at, binary.BigEndian.Uint32(icmp[4:]))
				switch icmp[0] {
				case 8:
					asked[key] = true
				case 0:
					n++
					if !asked[key] {
						early++
					}
				}
			}
			return n, early
		}
		eventually(t, "the replies at "+name, func() error {
			if n, _ := replies(); n < 2*pingers*each {
				return fmt.Errorf("%d of %d", n, 2*pingers*each)
			}
			return nil
		})
		if n, early := replies(); early > 0 {
			t.Errorf("at %s %d of %d replies stand before their requests", name, early, n)
		}
		rec.end()
	}
}
