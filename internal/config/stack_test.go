package config

import "testing"

func TestStacks(t *testing.T) {
	checkProblems(t, []problemRow{
		// What an inner layer has, too, must be an address.
		{tunnel("stack", "auto", "x.example") + "stack = [{ mode = '4in4', remote = '10.1.1.2' }, '4in4']\n",
			lines(
				`4:9: local is "auto": it must be an IPv4 address`,
			)},
		{tunnel("stack", "auto", "x.example") + "stack = ['4in4', { mode = '4in4', local = 'auto', remote = 'x.example' }]\n",
			lines(
				`4:9: local is "auto": it must be an IPv4 address`,
				`5:10: remote is "x.example": it must be an IPv4 address`,
			)},
		{tunnel("stack", "", "") + "stack = ['4in4', { mode = '4in4', local = 'auto', remote = 'x.example' }]\n",
			lines(
				`1:3: local is missing: set it to this end's address in the IPv4 layer that this stack has`,
				`1:3: remote is missing: set it to the other end's address in the IPv4 layer that this stack has`,
			)},
		{stackTunnel,
			`1:3: stack is missing: set it to the layers' modes, innermost first, such as ["gre6", "6in4"]`},
		{stackTunnel + "stack = []\n",
			`6:9: stack is empty: it must be an array of modes, innermost first, such as ["gre6", "6in4"]`},
		{stackTunnel + "stack = 'gre'\n",
			`6:9: stack is a string: it must be an array of modes, innermost first, such as ["gre6", "6in4"]`},
		{stackTunnel + "stack = ['gre', 1, {}, {mode='x'}, {mode = '4in6in4'}, 'y']\n",
			lines(
				`6:17: stack has an integer in it: it must be an array of modes, innermost first, such as ["gre6", "6in4"]`,
				`6:20: mode is missing in a table of stack: set it to `+itemModes,
				`6:30: mode is "x": it must be `+itemModes,
				`6:36: stack has mode "4in6in4" in a table, which is 2 layers: write a table for each of them`,
				`6:56: stack has "y": it must have `+itemModes,
			)},
		{stackTunnel + "stack = ['gre6', '6in4']\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\nkey = 5\n", ""},
		{stackTunnel + "stack = ['gre6', '6in4']\n",
			lines(
				"1:3: local6 is missing: set it to this end's address in the IPv6 layer that this stack has",
				"1:3: remote6 is missing: set it to the other end's address in the IPv6 layer that this stack has",
			)},
		{stackTunnel + "stack = ['gre6', '6in4']\nlocal6 = 'auto'\nremote6 = 'x.example'\n",
			lines(
				`7:10: local6 is "auto": it must be an IPv6 address`,
				`8:11: remote6 is "x.example": it must be an IPv6 address`,
			)},
		{stackTunnel + "stack = ['gre6', '4in4']\n",
			`6:18: stack: "4in4" carries IPv4, but "gre6" makes IPv6 packets: put "6in4", "6in6", "gre" or "gre6" there`},
		{stackTunnel + "stack = ['4in4', '6in4']\n",
			`6:18: stack: "6in4" carries IPv6, but "4in4" makes IPv4 packets: put "4in6in4", "4in4", "4in6", "gre" or "gre6" there`},
		{stackTunnel + "stack = ['4in4', '4in4', '4in4', '4in4', '4in4', '4in4']\n",
			"6:9: stack has 6 layers: it must have at most 4 (RFC 2473 section 4.1.1)"},
		{stackTunnel + "stack = ['4in4', '4in4']\n",
			`6:18: stack: "4in4" and "4in4" would have the same ends: give one of them its own, as in { mode = "4in4", local = "10.1.1.1", remote = "10.1.1.2" }`},
		{stackTunnel + "stack = [{mode = '4in4', local = '10.1.1.1', remote = '10.1.1.2'}, '4in4']\n", ""},
		{stackTunnel + "stack = [{mode = '4in4', local = '10.1.1.1'}, '4in4']\n", ""},
		{stackTunnel + "stack = [{mode = '4in4', local = 'auto', remote = 'x.example'}, '4in4']\n",
			lines(
				`6:34: local is "auto": it must be an IPv4 address`,
				`6:51: remote is "x.example": it must be an IPv4 address`,
			)},
		{stackTunnel + "stack = [{mode = '4in4', local = '10.1.1.1', remote = '10.1.1.2'}, {mode = 'gre', local = '10.2.1.1', remote = '10.2.1.2', key = 7}]\n",
			lines(
				"4:1: local is of no layer, because each item of stack has its own local: leave it out",
				"5:1: remote is of no layer, because each item of stack has its own remote: leave it out",
			)},
		{stackTunnel + "stack = [{mode = '4in4', key = 1, foo = 2}]\n",
			lines(
				`6:26: key contradicts mode "4in4", which has no GRE header: leave it out, or choose mode "gre" or "gre6"`,
				`6:35: unknown key "foo" in a table of stack`,
			)},
		{tunnel("6in4", "192.0.2.1", "192.0.2.2") + "stack = ['6in4']\n",
			`6:1: stack contradicts mode "6in4": leave one of them out, or set mode to "stack"`},
		{without(stackTunnel, "mode") + "stack = ['6in4']\n", ""},
		{stackTunnel + "stack = ['6in4', '4in6']\nlocal6 = 'auto'\nremote6 = 'x.example'\n", ""},
		{tunnel("stack", "auto", "x.example") + "stack = ['6in4', '4in6']\n",
			lines(
				`1:3: local6 is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:3: remote6 is missing: set it to the other end's outer address or its DNS name",
				`4:9: local is "auto": it must be an IPv4 address`,
				`5:10: remote is "x.example": it must be an IPv4 address`,
			)},
		{tunnel("stack", "", "") + "stack = ['6in4', '4in6']\n",
			lines(
				"1:3: local is missing: set it to this end's address in the IPv4 layer that this stack has",
				"1:3: remote is missing: set it to the other end's address in the IPv4 layer that this stack has",
				`1:3: local6 is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:3: remote6 is missing: set it to the other end's outer address or its DNS name",
			)},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['6to4']\nrelay = 'none'\n", ""},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['6to4', '4in6']\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\n", ""},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['6over4', '4in4']\n",
			`5:10: stack: "6over4" must be the outermost layer, because it sends to IPv4 multicast groups: put it last`},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['isatap', '4in4']\nrouters = '192.0.2.3'\n",
			`5:10: stack: "isatap" must be the outermost layer, because it knows its routers and neighbours by the outer addresses of their packets: put it last`},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['6to4', '4in6', '6rd']\n",
			`5:26: stack: "6to4" and "6rd" both find their outer addresses themselves, which one layer at most can: put a configured mode, such as "6in4", in the place of one`},
		{tunnel("stack", "192.0.2.1", "") + "stack = [{mode='6to4', remote = '192.0.2.3'}]\n",
			`5:24: remote contradicts mode "6to4", which finds the other ends' outer addresses itself: leave it out, or choose a configured mode, such as "6in4"`},
		{stackTunnel + "stack = ['6to4']\n",
			`5:1: remote contradicts mode "6to4", which finds the other ends' outer addresses itself: leave it out, or choose a configured mode, such as "6in4"`},
	})
}
