package configfile

import "testing"

func TestModesOver6AndGRE(t *testing.T) {
	checkProblems(t, []problemRow{
		{greTunnel + "key = 4294967295\nchecksum = true\nsequence = true\n", ""},
		{greTunnel + "key = 4294967296\nchecksum = 'on'\nsequence = 1\n",
			lines(
				`6:7: key is 4294967296: it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`,
				`7:12: checksum is "on": it must be true or false`,
				"8:12: sequence is 1: it must be true or false",
			)},
		{greTunnel + "key = '1.2.3'\nqueues = 4\nsequence = true\n",
			lines(
				`6:7: key is "1.2.3": it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`,
				"7:10: queues is 4, but the packets of different queues overtake each other, and sequence numbers are for packets in order: set it to 1, or leave sequence out",
			)},
		{greTunnel + "ikey = 1\nokey = '0.0.0.2'\n", ""},
		{greTunnel + "okey = 2\nikey = 1\nkey = 3\n",
			lines(
				`6:1: okey contradicts key, which sets the key both of received packets (ikey) and of sent packets (okey): leave one of them out`,
				`7:1: ikey contradicts key, which sets the key both of received packets (ikey) and of sent packets (okey): leave one of them out`,
			)},
		{greTunnel + "okey = 'x'\n",
			`6:8: okey is "x": it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`},
		{greTunnel + "key = -1\n",
			`6:7: key is -1: it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`},
		{greTunnel + "key = '256.0.0.1'\n",
			`6:7: key is "256.0.0.1": it must be a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`},
		{over6Tunnel + "key = 1\nchecksum = 2\nsequence = true\n",
			lines(
				`6:1: key contradicts mode "4in6", which has no GRE header: leave it out, or choose mode "gre" or "gre6"`,
				`7:1: checksum contradicts mode "4in6", which has no GRE header: leave it out, or choose mode "gre" or "gre6"`,
				`8:1: sequence contradicts mode "4in6", which has no GRE header: leave it out, or choose mode "gre" or "gre6"`,
			)},
		{over6Tunnel, ""},
		{over6Tunnel + "local6 = '2001:db8::3'\nremote6 = '2001:db8::4'\n",
			lines(
				`6:1: local6 is the same end as local in mode "4in6", which has no layer over IPv4: leave one out`,
				`7:1: remote6 is the same end as remote in mode "4in6", which has no layer over IPv4: leave one out`,
			)},
		{tunnel("6in6", "192.0.2.1", "192.0.2.2"),
			lines(
				`4:9: local is "192.0.2.1": it must be an IPv6 address or "auto"`,
				`5:10: remote is "192.0.2.2": it must be an IPv6 address or a DNS name`,
			)},
		{tunnel("gre6", "fe80::1%eth0", "fe80::2%eth0"), ""},
		{tunnel("4in6", "auto", "fe80::2%7"), ""},
		{tunnel("6in6", "fe80::1%eth0", "2001:db8::2"), ""},
		{tunnel("6in6", "fe80::1%eth0", "fe80::2%eth1"),
			`5:10: remote is on "eth1", but local is on "eth0": both must be on the same interface`},
		{tunnel("6in6", "auto", "fe80::2%eth1") + "io = 'xdp'\n",
			`6:6: io is "xdp", which has no link-local ends, as mode "6in6" has: leave io out`},
		{tunnel("6in6", "2001:db8::1%eth0", "fe80::2%a/b"),
			lines(
				`4:9: local is "2001:db8::1%eth0": an address here has no zone: write 2001:db8::1`,
				`5:10: remote is "fe80::2%a/b": "a/b" cannot be the name of an interface: write fe80::2%DEV`,
			)},
		{tunnel("6in6", "fe80::1%eth0", "fe80::1%eth0"),
			"5:10: remote is the same as local: it must be the other end's outer address"},
		{tunnel("gre6", "fe80::1", "2001:db8::2"),
			`4:9: local is "fe80::1", a link-local address, which exists once on each interface: write fe80::1%DEV, with the interface's name for DEV`},
		{tunnel("gre6", "", ""),
			lines(
				`1:3: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:3: remote is missing: set it to the other end's outer address or its DNS name",
			)},
		{over6Tunnel + "routes = ['2001:db8::/32']\n",
			`6:11: routes has "2001:db8::/32": mode "4in6" does not carry IPv6: leave it out, or choose mode ` + carrying6},
		{tunnel("4in6", "", "") + "local6 = 'auto'\nremote6 = 'a.example'\nds_lite = true\n", ""},
		{greTunnel + "ds_lite = true\n",
			`6:1: ds_lite contradicts mode "gre": leave it out, or choose mode "4in6"`},
		{over6Tunnel + "ds_lite = true\nroutes = []\n", ""},
	})
}
