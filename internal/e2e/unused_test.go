package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// A packet to a subnet of our own prefix that is not in use, from this host or through the
// tunnel, gets an error, and does not loop.
func TestUnusedSubnet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind
		unused netip.Addr
	}{
		{kind6to4, netip.MustParseAddr("2002:cb00:710a:9::1")},
		{kind6rd, netip.MustParseAddr("2001:db8:cb00:710a:9::1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			must(t, h.a.Forward())
			a, _ := c.pair(t, h.a, h.b)
			for _, from := range []*rig.Namespace{h.a, h.b} {
				eventually(t, "the sender is told that there is no route", func() error {
					res, err := rig.Ping(t.Context(), from, c.unused, rig.PingOptions{Count: 1})
					must(t, err)
					if len(res.ICMP) != 1 || res.ICMP[0].Type != 1 || res.ICMP[0].Code != 0 {
						return fmt.Errorf("%+v", res)
					}
					return nil
				})
			}
			// However many are sent, none goes further than our interface.
			_, before := a.status(t)
			res, err := rig.Ping(t.Context(), h.b, c.unused, rig.PingOptions{Count: 20, Timeout: 100 * time.Millisecond})
			must(t, err)
			_, after := a.status(t)
			if loops := after.Out.Drops["loop"] - before.Out.Drops["loop"]; loops != 20 || len(res.ICMP) == 0 || len(res.ICMP) > 20 {
				t.Errorf("%d of 20 were dropped, %d answered", loops, len(res.ICMP))
			}
		})
	}
}
