package configfile

import (
	"strings"
	"testing"

	"sixfour/internal/config/keys"
	"sixfour/internal/config/tree"
)

func TestMeant(t *testing.T) {
	for word, want := range map[string]string{
		"sit": "6in4", "ipip6": "4in6", "4IN6IN4": "4in6in4", "6in4 ": "6in4", "ipip": "4in4", "ip6ip6": "6in6", "6-to-4": "6to4", "GRE": "gre", "ip6gre": "gre6",
		"6rdd": "6rd", "isatab": "isatap", "wireguard": "", "": "",
	} {
		if got := tree.Suggestion(word, keys.Modes(keys.AnyMode), keys.ModeSynonyms); got != want {
			t.Errorf("mode %q: %q, want %q", word, got, want)
		}
	}
	hub := hubTunnel + "[[tunnel.peer]]\nname = 'x'\n"
	checkProblems(t, []problemRow{
		{strings.Replace(single, "6in4", "sit", 1), `3:8: mode is "sit": it must be ` + allModes + `: did you mean "6in4"?`},
		{stackTunnel + "stack = ['GRE6', '6in4']\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\n", `6:10: stack has "GRE6": it must have ` + itemModes + `: did you mean "gre6"?`},
		{hub + "Endpoint = '192.0.2.2'\nAllowedIPs = ['10.0.0.2/32']\n", lines(
			`7:1: unknown key "Endpoint" in [[tunnel.peer]]: did you mean "remote"?`,
			`8:1: unknown key "AllowedIPs" in [[tunnel.peer]]: did you mean "allowed"?`)},
		{single + "Address = ['10.0.0.1/30']\n", `6:1: unknown key "Address" in [[tunnel]]: did you mean "address"?`},
		{single + "PersistentKeepalive = 25\n", `6:1: unknown key "PersistentKeepalive" in [[tunnel]]: did you mean "keepalive"?`},
		{single + "default = true\n", `6:1: unknown key "default" in [[tunnel]]: it is "default_route" in [gateway]`},
		{single + "allowed = ['10.0.0.2/32']\n", `6:1: unknown key "allowed" in [[tunnel]]: it belongs to [[tunnel.peer]]`},
		{single + "listen = '127.0.0.1:9640'\n", `6:1: unknown key "listen" in [[tunnel]]: it belongs to [metrics]`},
		{single + "socket = '/run/x/s'\n", `6:1: unknown key "socket" in [[tunnel]]: it belongs to [control]`},
		{hub + "remote = '192.0.2.2'\nallowed = ['10.0.0.2/32']\nmtu = 1400\n", `9:1: unknown key "mtu" in [[tunnel.peer]]: it belongs to [[tunnel]], whose keys stand before its first [[tunnel.peer]]`},
		{"[gateway]\ndefault = true\n" + single + "address = ['fc00::1/64']\n", `2:1: unknown key "default" in [gateway]: did you mean "default_route"?`},
		{"[log]\nloglevel = 'info'\n" + single, `2:1: unknown key "loglevel" in [log]: did you mean "level"?`},
		{"[[peer]]\nname = 'x'\n" + single, `1:3: unknown key "peer": peers are [[tunnel.peer]], below the [[tunnel]] that they belong to`},
	})
}
