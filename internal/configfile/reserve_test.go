package configfile

import "testing"

func TestReserve(t *testing.T) {
	four := "[[tunnel]]\nname = 'a'\nmode = '4in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	checkProblems(t, []problemRow{
		{four + "reserve = 1500\n", ""},
		{four + "reserve = 1500\nmtu = 1500\n", ""},
		{four + "reserve = 1500\nmtu = 1400\n",
			`7:7: mtu contradicts reserve, which is the MTU of the interface: leave it out`},
		{four + "reserve = 1000\n",
			`6:11: reserve is 1000: it must be an integer from 1280 to 9000`},
		{four + "reserve = 4000\n",
			`6:11: reserve is 4000: two pieces carry at most 2460 over a path of 1280 bytes: set it to 1500, or less`},
		{four + "reserve = 'large'\n",
			`6:11: reserve is "large": it must be an integer from 1280 to 9000`},
		{"[[tunnel]]\nname = 'a'\nmode = 'map_e'\nrole = 'br'\nlocal = '2001:db8:ffff::1'\nrules = [{ ipv6 = '2001:db8::/40', ipv4 = '192.0.2.0/24', ea_bits = 16 }]\nreserve = 1500\n",
			`7:1: reserve contradicts mode "map_e": the second piece of a packet has no ports, by which the other end is found: leave it out`},
		{"[[tunnel]]\nname = 'a'\nmode = 'json'\nserver = '192.0.2.9'\nid = 'x'\nreserve = 1500\n",
			`6:1: reserve contradicts mode "json": the server does not join the two pieces of a packet: leave it out`},
	})
}
