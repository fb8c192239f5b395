package config

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
