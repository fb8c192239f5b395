package configfile

import (
	"testing"

	"sixfour/encap/framing"
)

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

func TestSEAL(t *testing.T) {
	seal := "[[tunnel]]\nname = 'a'\nmode = 'seal'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	four := "[[tunnel]]\nname = 'a'\nmode = '4in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	checkProblems(t, []problemRow{
		{seal + "udp_port = 45000\nidentification = 0x01020304\n", ""},
		{seal + "udp_port = 0\nidentification = '1.2.3.4'\n", ""},
		{"[[tunnel]]\nname = 'a'\nstack = ['4in6', 'seal']\nlocal6 = '2001:db8::1'\nremote6 = '2001:db8::2'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\nudp_port = 45000\nidentification = 1\n", ""},
		{seal + "udp_port = 65536\n",
			`6:12: udp_port is 65536: it must be an integer from 0 to 65535`},
		{seal + "udp_port = 45000\n[[tunnel.path]]\nencap = 'fou'\n",
			`6:1: udp_port contradicts path, whose encap says what packets travel in: leave it out, and set encap to "fou" and port to 45000 there`},
		{seal + "identification = -1\n",
			`6:18: identification is -1: it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`},
		{four + "udp_port = 45000\nidentification = 1\n",
			lines(
				`6:1: udp_port contradicts mode "4in4", whose outermost layer has no SEAL header: leave it out, or choose mode "seal"`,
				`7:1: identification contradicts mode "4in4", which has no SEAL header: leave it out, or choose mode "seal"`,
			)},
		{"[[tunnel]]\nname = 'a'\nmode = '6to4'\nlocal = '192.0.2.1'\nudp_port = 0\n",
			`5:1: udp_port contradicts mode "6to4", whose outermost layer has no SEAL header: leave it out, or choose mode "seal"`},
	})
	cfg := parsed(t, seal+"udp_port = 45000\nidentification = 0x01020304\n")
	tn := &cfg.Tunnels[0]
	path := &tn.Peers[0].Paths[0]
	want := framing.FOU{Local: 45000, Remote: 45000, NoChecksum: true, Inside: framing.SEAL{First: 0x01020304, Given: true}}
	if got := tn.Outermost(path).Framing(); got != framing.Framing(want) {
		t.Errorf("%+v", got)
	}
}
