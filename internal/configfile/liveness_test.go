package configfile

import (
	"testing"
	"time"
)

func TestKeepalive(t *testing.T) {
	const want = `it must be a duration such as "25s", from "1s" to "24h", or "0s": no probes`
	const count = "it must be an integer from 1 to 1000"
	checkProblems(t, []problemRow{
		{single + "keepalive = '0s'\ndead_after = 1\n", ""},
		{single + "keepalive = '1s'\ndead_after = 1000\n", ""},
		{single + "keepalive = '1m30s'\n", ""},
		{single + "keepalive = '24h'\n", ""},
		{single + "keepalive = '-1s'\ndead_after = 0\n", lines(
			`6:13: keepalive is "-1s": `+want,
			"7:14: dead_after is 0: "+count,
		)},
		{single + "keepalive = '999ms'\ndead_after = -5\n", lines(
			`6:13: keepalive is "999ms": `+want,
			"7:14: dead_after is -5: "+count,
		)},
		{single + "keepalive = '25'\ndead_after = '5'\n", lines(
			`6:13: keepalive is "25": `+want,
			`7:14: dead_after is "5": `+count,
		)},
		{single + "keepalive = 25\ndead_after = 1001\n", lines(
			"6:13: keepalive is 25: "+want,
			"7:14: dead_after is 1001: "+count,
		)},
		{single + "keepalive = '24h1ns'\ndead_after = 5.0\n", lines(
			`6:13: keepalive is "24h1ns": `+want,
			"7:14: dead_after is a float: "+count,
		)},
		{single + "keepalive = '9999999h'\n", `6:13: keepalive is "9999999h": ` + want},
	})
	for _, c := range []struct {
		keys  string
		every time.Duration
		after int
	}{
		{"", 25 * time.Second, 5},
		{"keepalive = '0s'\n", 0, 5},
		{"keepalive = '2s'\ndead_after = 3\n", 2 * time.Second, 3},
	} {
		cfg, err := Parse("x", []byte(single+c.keys))
		if err != nil {
			t.Errorf("%q: %v", c.keys, err)
			continue
		}
		if got := cfg.Tunnels[0]; got.Keepalive != c.every || got.DeadAfter != c.after {
			t.Errorf("%q: %v, %d", c.keys, got.Keepalive, got.DeadAfter)
		}
	}
}

// TestProbe: a probed address must be one of the other end's, and we must have a source
// address for it.
func TestProbe(t *testing.T) {
	const want = "it must be an inner address of the other end, or of a host behind it, that answers pings"
	const address = "address = ['10.0.0.1/24', 'fc00::1/64']\n"
	const gre = "[[tunnel]]\nname = 'a'\nmode = 'gre'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	const hub = "[[tunnel]]\nname = 'six0'\nmode = 'gre'\nlocal = '203.0.113.10'\naddress = ['10.0.0.1/24', '192.168.7.1/24']\n"
	const peer = "[[tunnel.peer]]\nname = 'b'\nremote = '203.0.113.20'\nallowed = ['10.0.0.2/32', '192.168.7.0/24']\n"
	checkProblems(t, []problemRow{
		{gre + address + "probe = '10.0.0.2'\n", ""},
		{gre + address + "probe = '192.168.7.7'\n", ""},
		{gre + address + "probe = '2001:db8::7'\n", ""},
		{gre + address + "probe = 'fe80::7'\n", `7:9: probe is "fe80::7": ` + want},
		{gre + address + "probe = '10.0.0.2/24'\n", `7:9: probe is "10.0.0.2/24": ` + want},
		{gre + address + "probe = '10.0.0.1'\n", "7:9: probe is 10.0.0.1, which address gives to this end: choose the other end's"},
		{gre + "probe = '10.0.0.1'\n", "6:9: probe is 10.0.0.1, but the interface has no IPv4 address to probe from: add one to address"},
		{single + "address = ['fc00::1/64']\nprobe = '10.0.0.2'\n", `7:9: probe is 10.0.0.2, but mode "6in4" carries no IPv4: choose an address that packets inside the tunnel have`},
		{hub + peer + "probe = '192.168.7.7'\n", ""},
		{hub + peer + "probe = '10.0.0.3'\n", "10:9: probe is 10.0.0.3, which is not in allowed of the peer: its answers would be dropped as spoof: add it there, or choose another address"},
		{hub + "probe = '10.0.0.2'\n" + peer, "6:9: probe is for one peer: write it below its [[tunnel.peer]]"},
	})
}
