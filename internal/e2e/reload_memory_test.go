package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/rig"
)

// Reloads that open receivers again, because tunnels are new or have other addresses, leave
// no memory behind.
func TestReloadMemory(t *testing.T) {
	const tunnels, reloads = 5, 12
	h := newHosts6(t)
	config := func(moved int) string {
		var b strings.Builder
		for i := range tunnels {
			fmt.Fprintf(&b, "[[tunnel]]\nname = \"t%d\"\nkeepalive = \"0s\"\nmode = \"6in4\"\nlocal = \"203.0.113.%d\"\nremote = \"203.0.113.%d\"\n", i, 100+2*i+moved, 200+i)
			fmt.Fprintf(&b, "[[tunnel]]\nname = \"u%d\"\nkeepalive = \"0s\"\nmode = \"gre6\"\nlocal = \"2001:db8:ff::%d\"\nremote = \"2001:db8:ff::20\"\n", 2*i+moved, 100+2*i+moved)
		}
		return b.String()
	}
	for i := range 2 * tunnels {
		must(t, h.a.AddAddr("va", netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}), 24)))
		must(t, h.a.AddAddr("va", netip.MustParsePrefix(fmt.Sprintf("2001:db8:ff::%d/64", 100+i))))
	}
	d := start(t, h.a, config(0))
	before := resident(t, d.cmd.Process.Pid)
	for i := range reloads {
		d.mustReload(t, config((i+1)%2))
	}
	eventually(t, "as much memory as at the start", func() error {
		if now := resident(t, d.cmd.Process.Pid); now > before*3/2 && !rig.Race {
			return fmt.Errorf("%d KiB, before %d reloads %d", now, reloads, before)
		}
		return nil
	})
	t.Logf("%d KiB resident at the start, %d after %d reloads", before, resident(t, d.cmd.Process.Pid), reloads)
}
