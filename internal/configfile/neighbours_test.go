package configfile

import "testing"

func TestSameWire(t *testing.T) {
	checkProblems(t, []problemRow{
		{tunnel("4in4", "192.0.2.1", "192.0.2.2") + second(tunnel("6in4", "192.0.2.1", "192.0.2.2")), ""},
		{greTunnel + "key = 1\n" + second(greTunnel) + "key = 2\n", ""},
		{greTunnel + second(greTunnel) + "key = 0\n", ""},
		{greTunnel + "key = 1\n" + second(greTunnel) + "key = '0.0.0.1'\n",
			"11:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address or another key"},
		{tunnel("4in4", "auto", "x.example") + second(tunnel("4in6", "auto", "x.example")), ""},
		{tunnel("6to4", "192.0.2.1", "") + second(tunnel("6to4", "192.0.2.1", "")),
			`8:9: local is that of the tunnel of line 1, which is of mode "6to4", too, so that their packets could not be told apart: give one of them another address`},
		{tunnel("6to4", "192.0.2.1", "") + second(tunnel("v4compat", "192.0.2.1", "")) + third(tunnel("6in4", "192.0.2.1", "192.0.2.2")), ""},
		{hubTunnel + peer("x", "192.0.2.2", "10.0.0.0/8") + second(tunnel("4in4", "192.0.2.1", "192.0.2.2")),
			"13:10: local and remote are those of the peer of line 5, so that their packets could not be told apart: give one of them another address"},
		{tunnel("4in4", "192.0.2.1", "192.0.2.2") + second(hubTunnel) + peer("x", "192.0.2.2", "10.0.0.0/8"),
			"12:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address"},
		{tunnel("4in6", "2001:db8::1", "fc00:1::2") + "routes = ['10.0.0.0/8']\n" + second(tunnel("6in4", "192.0.2.1", "")) + "routes = ['fc00:1::/64']\n" + peer("x", "10.1.1.1", "fd00::/8") + peer("y", "10.1.1.2", "fd01::/16"),
			lines(
				`5:10: remote fc00:1::2 is reached through tunnel "b" (line 7), whose own packets come back into this one: give one of them another remote, or route that elsewhere`,
				`14:10: remote 10.1.1.1 is reached through tunnel "a" (line 1), whose own packets come back into this one: give one of them another remote, or route that elsewhere`,
			)},
	})
}
