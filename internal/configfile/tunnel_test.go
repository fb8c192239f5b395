package configfile

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	checkProblems(t, []problemRow{
		{named("''"), `2:8: name is "": it must be the interface's name, of 1 to 15 bytes`},
		{named("'.'"),
			`2:8: name is ".": it must be the interface's name, of 1 to 15 bytes, and not "." or ".."`},
		{named("'..'"),
			`2:8: name is "..": it must be the interface's name, of 1 to 15 bytes, and not "." or ".."`},
		{named("'a b'"),
			`2:8: name is "a b": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named("'a/b'"),
			`2:8: name is "a/b": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named("'a:b'"),
			`2:8: name is "a:b": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named("'a%d'"),
			`2:8: name is "a%d": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named("'0123456789abcdef'"),
			`2:8: name is "0123456789abcdef", of 16 bytes: it must be the interface's name, of 1 to 15 bytes`},
		{named(`"a\t"`),
			`2:8: name is "a\t": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named(`"a\u0000"`),
			`2:8: name is "a\x00": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named(`"a\u007f"`),
			`2:8: name is "a\x7f": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named(`"\u00e0"`),
			`2:8: name is "à", which has the byte A0 in it, which the kernel takes for a space: use other characters`},
		{named(`"\u2003"`),
			`2:8: name is "\u2003": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`},
		{named("'0123456789abcde'"), ""},
		{named("'é'"), ""},
		{without(single, "name"), "1:3: name is missing: set it to the interface's name"},
		{single + without(single, "remote") + "remote = '192.0.2.3'\n",
			`7:8: name is "a", which the tunnel of line 1 has: give each tunnel its own`},
	})
}

func TestMissing(t *testing.T) {
	checkProblems(t, []problemRow{
		{"[[tunnel]]\n",
			lines(
				"1:3: name is missing: set it to the interface's name",
				`1:3: mode is missing: set it to `+allModes,
				`1:3: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:3: remote is missing: set it to the other end's outer address or its DNS name",
			)},
		{"tunnel = [{}, {name = 'a'}]\n",
			lines(
				"1:11: name is missing: set it to the interface's name",
				`1:11: mode is missing: set it to `+allModes,
				`1:11: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:11: remote is missing: set it to the other end's outer address or its DNS name",
				`1:15: mode is missing: set it to `+allModes,
				`1:15: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:15: remote is missing: set it to the other end's outer address or its DNS name",
			)},
		{without(single, "mode"), `1:3: mode is missing: set it to ` + allModes},
		{without(single, "local"),
			`1:3: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`},
		{without(single, "remote"),
			"1:3: remote is missing: set it to the other end's outer address or its DNS name"},
		{without(double, "local6", "remote6"),
			lines(
				`1:3: local6 is missing: set it to this end's address in the IPv6 layer that mode "4in6in4" has`,
				`1:3: remote6 is missing: set it to the other end's address in the IPv6 layer that mode "4in6in4" has`,
			)},
		{without(double, "remote6"),
			`1:3: remote6 is missing: set it to the other end's address in the IPv6 layer that mode "4in6in4" has`},
		{inMode("gre4"), `3:8: mode is "gre4": it must be ` + allModes + `: did you mean "gre"?`},
		{inMode("gre4") + "local6 = 'fc00::1'\nhop_limit = 300\n",
			lines(
				`3:8: mode is "gre4": it must be `+allModes+`: did you mean "gre"?`,
				`7:13: hop_limit is 300: it must be an integer from 1 to 255 or "inherit"`,
			)},
	})
}

func TestEndpoints(t *testing.T) {
	checkProblems(t, []problemRow{
		{between("x", ""),
			lines(
				`4:9: local is "x": it must be an IPv4 address or "auto"`,
				`5:10: remote is "": it must be an IPv4 address or a DNS name`,
			)},
		{between("192.0.2", "192.0.2.300"),
			lines(
				`4:9: local is "192.0.2": it must be an IPv4 address or "auto"`,
				`5:10: remote is "192.0.2.300": it must be an IPv4 address or a DNS name`,
			)},
		{between("2001:db8::1", "2001:db8::2"),
			lines(
				`4:9: local is "2001:db8::1": it must be an IPv4 address or "auto"`,
				`5:10: remote is "2001:db8::2": it must be an IPv4 address or a DNS name`,
			)},
		{between("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
			lines(
				`4:9: local is "::ffff:192.0.2.1": it is an IPv4-mapped IPv6 address: write 192.0.2.1`,
				`5:10: remote is "::ffff:192.0.2.2": it is an IPv4-mapped IPv6 address: write 192.0.2.2`,
			)},
		{between("fe80::1%eth0", "fe80::1%"),
			lines(
				`4:9: local is "fe80::1%eth0": it must be an IPv4 address or "auto"`,
				`5:10: remote is "fe80::1%": it must be an IPv4 address or a DNS name`,
			)},
		{between("0.0.0.0", "0.1.2.3"),
			lines(
				`4:9: local is "0.0.0.0", an address of 0.0.0.0/8, which means this network: it must be a unicast address`,
				`5:10: remote is "0.1.2.3", an address of 0.0.0.0/8, which means this network: it must be a unicast address`,
			)},
		{between("224.0.0.1", "239.1.2.3"),
			lines(
				`4:9: local is "224.0.0.1", a multicast address: it must be a unicast address`,
				`5:10: remote is "239.1.2.3", a multicast address: it must be a unicast address`,
			)},
		{between("255.255.255.255", "240.0.0.1"),
			lines(
				`4:9: local is "255.255.255.255", the broadcast address: it must be a unicast address`,
				`5:10: remote is "240.0.0.1", a reserved address, of 240.0.0.0/4: it must be a unicast address`,
			)},
		{between("192.0.2.1", "192.0.2.1"),
			"5:10: remote is the same as local: it must be the other end's outer address"},
		{between("tunnel.example", "auto"),
			lines(
				`4:9: local is "tunnel.example": it must be an IPv4 address or "auto"`,
				`5:10: remote is "auto": it must be an IPv4 address or a DNS name`,
			)},
		{between("auto", "-a.example"),
			`5:10: remote is "-a.example": it must be an IPv4 address or a DNS name`},
		{between("auto", "a..b"), `5:10: remote is "a..b": it must be an IPv4 address or a DNS name`},
		{between("auto", "é.example"),
			`5:10: remote is "é.example": it must be an IPv4 address or a DNS name`},
		{between("auto", "a b"), `5:10: remote is "a b": it must be an IPv4 address or a DNS name`},
		{between("auto", "_a-b.1a"), ""},
		{between("auto", strings.Repeat("a.", 126)+"a"), ""},
		{between("auto", strings.Repeat("a.", 126)+"aa"),
			`5:10: remote is "` + strings.Repeat("a.", 40) + `"…: it must be an IPv4 address or a DNS name`},
		{between("127.0.0.1", "127.0.0.2"), ""},
		{between("169.254.1.2", "169.254.1.1"), ""},
		{strings.Replace(between("2001:db8::1", "192.0.2.1"), "6in4", "5in4", 1),
			`3:8: mode is "5in4": it must be ` + allModes + `: did you mean "6in4"?`},
	})
}

func TestEndpoints6(t *testing.T) {
	checkProblems(t, []problemRow{
		{between6("192.0.2.1", "a.example"),
			lines(
				`6:10: local6 is "192.0.2.1": it must be an IPv6 address`,
				`7:11: remote6 is "a.example": it must be an IPv6 address`,
			)},
		{between6("::", "::1"),
			lines(
				`6:10: local6 is "::", the unspecified address: it must be a global or unique local unicast address`,
				`7:11: remote6 is "::1", the loopback address: it must be a global or unique local unicast address`,
			)},
		{between6("ff02::1", "fe80::1"),
			lines(
				`6:10: local6 is "ff02::1", a multicast address: it must be a global or unique local unicast address`,
				`7:11: remote6 is "fe80::1", a link-local address: it must be a global or unique local unicast address`,
			)},
		{between6("fc00::1", "fc00:0::1"),
			"7:11: remote6 is the same as local6: it must be the other end's address in the IPv6 layer"},
		{between6("::ffff:1.2.3.4", "fe80::1%eth0"),
			lines(
				`6:10: local6 is "::ffff:1.2.3.4": it must be an IPv6 address`,
				`7:11: remote6 is "fe80::1%eth0", a link-local address: it must be a global or unique local unicast address`,
			)},
		{between6("fc00::1%a", "::ffff:1.2.3.4%a"),
			lines(
				`6:10: local6 is "fc00::1%a": an address here has no zone: write fc00::1`,
				`7:11: remote6 is "::ffff:1.2.3.4%a": it must be an IPv6 address`,
			)},
		{between("::ffff:224.0.0.1", "::ffff:192.0.2.1%a"),
			lines(
				`4:9: local is "::ffff:224.0.0.1", a multicast address: it must be a unicast address`,
				`5:10: remote is "::ffff:192.0.2.1%a": an address here has no zone: write 192.0.2.1`,
			)},
		{single + "local6 = 'fc00::1'\nremote6 = ''\nhop_limit = 64\nencap_limit = 300\nflow_label = 'hash'\n",
			lines(
				`6:1: local6 contradicts mode "6in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
				`7:1: remote6 contradicts mode "6in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
				`8:1: hop_limit contradicts mode "6in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
				`9:1: encap_limit contradicts mode "6in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
				`10:1: flow_label contradicts mode "6in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
			)},
		{single + "tunnel6 = 1\n[[tunnel]]\nname = 'b'\nmode = '6in4'\nlocal = 'auto'\nremote = '192.0.2.2'\n",
			`6:1: unknown key "tunnel6" in [[tunnel]]`},
	})
}

func TestPrefixes(t *testing.T) {
	checkProblems(t, []problemRow{
		{double + "address = ['10.0.0.1', 'fc00::1', '10.0.0.0/33', 'fc00::/129', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/08', '10.0.0.0/a']\n" +
			"routes = ['10.0.0.1', 'fc00::1', '10.0.0.0/33', 'fc00::/129', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/08', '10.0.0.0/a']\n",
			lines(
				`8:12: address has "10.0.0.1": it has no prefix length: write 10.0.0.1/LENGTH, with a length from 0 to 32`,
				`8:24: address has "fc00::1": it has no prefix length: write fc00::1/LENGTH, with a length from 0 to 128`,
				`8:35: address has "10.0.0.0/33": its prefix length must be a number from 0 to 32`,
				`8:50: address has "fc00::/129": its prefix length must be a number from 0 to 128`,
				`8:64: address has "10.0.0.0/": its prefix length must be a number from 0 to 32`,
				`8:77: address has "10.0.0.0/-1": its prefix length must be a number from 0 to 32`,
				`8:92: address has "10.0.0.0/08": its prefix length must be a number from 0 to 32`,
				`8:107: address has "10.0.0.0/a": its prefix length must be a number from 0 to 32`,
				`9:11: routes has "10.0.0.1": it has no prefix length: write 10.0.0.1/LENGTH, with a length from 0 to 32`,
				`9:23: routes has "fc00::1": it has no prefix length: write fc00::1/LENGTH, with a length from 0 to 128`,
				`9:34: routes has "10.0.0.0/33": its prefix length must be a number from 0 to 32`,
				`9:49: routes has "fc00::/129": its prefix length must be a number from 0 to 128`,
				`9:63: routes has "10.0.0.0/": its prefix length must be a number from 0 to 32`,
				`9:76: routes has "10.0.0.0/-1": its prefix length must be a number from 0 to 32`,
				`9:91: routes has "10.0.0.0/08": its prefix length must be a number from 0 to 32`,
				`9:106: routes has "10.0.0.0/a": its prefix length must be a number from 0 to 32`,
			)},
		{double + "address = ['', 'default', '10.0.0/8', '::ffff:10.0.0.1/24', 'fe80::1%eth0/64', '/24']\n" +
			"routes = ['', 'default', '10.0.0/8', '::ffff:10.0.0.1/24', 'fe80::1%eth0/64', '/24']\n",
			lines(
				`8:12: address has "": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`8:16: address has "default": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`8:27: address has "10.0.0/8": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`8:39: address has "::ffff:10.0.0.1/24": it is an IPv4-mapped IPv6 address: write 10.0.0.1/LENGTH`,
				`8:61: address has "fe80::1%eth0/64": an address here has no zone: write fe80::1/LENGTH`,
				`8:80: address has "/24": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`9:11: routes has "": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`9:15: routes has "default": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`9:26: routes has "10.0.0/8": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`9:38: routes has "::ffff:10.0.0.1/24": it is an IPv4-mapped IPv6 address: write 10.0.0.1/LENGTH`,
				`9:60: routes has "fe80::1%eth0/64": an address here has no zone: write fe80::1/LENGTH`,
				`9:79: routes has "/24": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
			)},
		{double + "address = ['10.0.0.1/24', 'fc00::1/64']\nroutes = ['10.0.0.1/24', 'fc00::1/64']\n",
			lines(
				`9:11: routes has "10.0.0.1/24": it has bits set beyond its prefix length: write 10.0.0.0/24`,
				`9:26: routes has "fc00::1/64": it has bits set beyond its prefix length: write fc00::/64`,
			)},
		{double + "address = ['10.0.0.1/24', '10.0.0.1/24', 'fc00::1/64', 'fc00:0::1/64', '10.0.0.1/25']\n" +
			"routes = ['10.1.0.0/24', '10.1.0.0/24', 'fc00::/64', 'fc00:0::/64', '10.1.0.0/25']\n",
			lines(
				`8:27: address has "10.0.0.1/24": the address is already in line 8: leave one out`,
				`8:56: address has "fc00:0::1/64": the address is already in line 8: leave one out`,
				`8:72: address has "10.0.0.1/25": the address is already in line 8: leave one out`,
				`9:26: routes has "10.1.0.0/24": the route is already in line 9: leave one out`,
				`9:54: routes has "fc00:0::/64": the route is already in line 9: leave one out`,
			)},
		{double + "address = ['0.0.0.0/32', '224.0.0.0/4', '255.255.255.255/32', '::/0', '::1/128', 'ff00::/8']\n" +
			"routes = ['0.0.0.0/32', '224.0.0.0/4', '255.255.255.255/32', '::/0', '::1/128', 'ff00::/8']\n",
			lines(
				`8:12: address has "0.0.0.0/32": an interface's address must be a unicast address, and not ::1`,
				`8:26: address has "224.0.0.0/4": an interface's address must be a unicast address, and not ::1`,
				`8:41: address has "255.255.255.255/32": an interface's address must be a unicast address, and not ::1`,
				`8:63: address has "::/0": an interface's address must be a unicast address, and not ::1`,
				`8:71: address has "::1/128": an interface's address must be a unicast address, and not ::1`,
				`8:82: address has "ff00::/8": an interface's address must be a unicast address, and not ::1`,
				"9:70: routes has ::1/128, which is of this host itself (loopback): leave it out",
			)},
		{single + "address = ['10.0.0.1/24', 'fc00::1/64']\nroutes = ['10.0.0.0/24', 'fc00::/64']\n",
			lines(
				`6:12: address has "10.0.0.1/24": mode "6in4" does not carry IPv4: leave it out, or choose mode "4in6in4", "4in4", "4in6", "gre", "gre6" or "seal"`,
				`7:11: routes has "10.0.0.0/24": mode "6in4" does not carry IPv4: leave it out, or choose mode "4in6in4", "4in4", "4in6", "gre", "gre6" or "seal"`,
			)},
		{single + "address = [\n  'fc00::1/64', # one\n\n  '10.0.0.1/30', 'fc00::2',\n]\n",
			lines(
				`9:3: address has "10.0.0.1/30": mode "6in4" does not carry IPv4: leave it out, or choose mode "4in6in4", "4in4", "4in6", "gre", "gre6" or "seal"`,
				`9:18: address has "fc00::2": it has no prefix length: write fc00::2/LENGTH, with a length from 0 to 128`,
			)},
	})
}

func TestMTU(t *testing.T) {
	checkProblems(t, []problemRow{
		{single + "mtu = -1\n", "6:7: mtu is -1: it must be an integer from 0 to 65535"},
		{single + "mtu = 67\n",
			"6:7: mtu is 67: it must be at least 68, the minimum of IPv4, or 0 to take it from the path"},
		{single + "mtu = 68\n", ""},
		{single + "mtu = 65515\n", ""},
		{single + "mtu = 65516\n",
			`6:7: mtu is 65516: it must be at most 65515, which is what the outer packet's length leaves in mode "6in4", or 0 to take it from the path`},
		{single + "mtu = 65536\n", "6:7: mtu is 65536: it must be an integer from 0 to 65535"},
		{single + "mtu = 99999999999\n",
			"6:7: mtu is 99999999999: it must be an integer from 0 to 65535"},
		{single + "pmtu = 'static'\n" + "mtu = 0\n", ""},
		{single + "address = ['fc00::1/64']\n" + "mtu = 1279\n",
			"7:7: mtu is 1279: it must be at least 1280, the minimum of IPv6, which address or routes have, or 0 to take it from the path"},
		{single + "address = ['fc00::1/64']\n" + "mtu = 1280\n", ""},
		{double + "routes = ['::/0']\n" + "mtu = 68\n",
			"9:7: mtu is 68: it must be at least 1280, the minimum of IPv6, which address or routes have, or 0 to take it from the path"},
		{double + "address = ['10.0.0.1/24']\n" + "mtu = 68\n", ""},
		{double + "mtu = 65475\n", ""},
		{double + "mtu = 65476\n",
			`8:7: mtu is 65476: it must be at most 65475, which is what the outer packet's length leaves in mode "4in6in4", or 0 to take it from the path`},
		{double + "encap_limit = 0\n" + "mtu = 65467\n", ""},
		{double + "encap_limit = 0\n" + "mtu = 65468\n",
			`9:7: mtu is 65468: it must be at most 65467, which is what the outer packet's length leaves in mode "4in6in4", or 0 to take it from the path`},
		{double + "mtu = 65468\nencap_limit = 0\n",
			`8:7: mtu is 65468: it must be at most 65467, which is what the outer packet's length leaves in mode "4in6in4", or 0 to take it from the path`},
		{inMode("gre4") + "mtu = 65535\n", `3:8: mode is "gre4": it must be ` + allModes + `: did you mean "gre"?`},
	})
}

func TestOptions(t *testing.T) {
	checkProblems(t, []problemRow{
		{double + "ttl = 0\n" +
			"hop_limit = 256\n" +
			"dscp = 64\n" +
			"ecn = ''\n" +
			"pmtu = 'on'\n" +
			"encap_limit = 256\n" +
			"flow_label = 1048576\n" +
			"martians = 'lax'\n" +
			"fwmark = 4294967296\n",
			lines(
				`8:7: ttl is 0: it must be an integer from 1 to 255 or "inherit"`,
				`9:13: hop_limit is 256: it must be an integer from 1 to 255 or "inherit"`,
				`10:8: dscp is 64: it must be an integer from 0 to 63 or "inherit"`,
				`11:7: ecn is "": it must be "normal" or "compat"`,
				`12:8: pmtu is "on": it must be "dynamic" or "static"`,
				`13:15: encap_limit is 256: it must be an integer from 0 to 255 or "none"`,
				`14:14: flow_label is 1048576: it must be an integer from 0 to 1048575, "hash" or "inner"`,
				`15:12: martians is "lax": it must be "rfc" or "strict"`,
				"16:10: fwmark is 4294967296: it must be an integer from 0 to 4294967295",
			)},
		{double + "mss_clamp = 'on'\n", `8:13: mss_clamp is "on": it must be true or false`},
		{double + "mss_clamp = 1\n", `8:13: mss_clamp is 1: it must be true or false`},
		{double + "ttl = -1\nhop_limit = 'none'\ndscp = -1\nencap_limit = 'inherit'\nflow_label = -1\nfwmark = -1\n",
			lines(
				`8:7: ttl is -1: it must be an integer from 1 to 255 or "inherit"`,
				`9:13: hop_limit is "none": it must be an integer from 1 to 255 or "inherit"`,
				`10:8: dscp is -1: it must be an integer from 0 to 63 or "inherit"`,
				`11:15: encap_limit is "inherit": it must be an integer from 0 to 255 or "none"`,
				`12:14: flow_label is -1: it must be an integer from 0 to 1048575, "hash" or "inner"`,
				"13:10: fwmark is -1: it must be an integer from 0 to 4294967295",
			)},
		{double + "ttl = 1\nhop_limit = 1\ndscp = 63\nencap_limit = 255\nflow_label = 0\n", ""},
		{single + "ttl = 0b" + strings.Repeat("0", 100) + "1\n", ""},
		{single + "ttl = 0b" + strings.Repeat("0", 100) + "\n", `6:7: ttl is 0b` + strings.Repeat("0", 78) + `…: it must be an integer from 1 to 255 or "inherit"`},
		{single + "netns = 'a/b'\n",
			`6:9: netns is "a/b": it must be the name or the absolute path of a network namespace`},
		{single + "netns = '..'\n",
			`6:9: netns is "..": it must be the name or the absolute path of a network namespace`},
		{single + "netns = \"\\u0000\"\n",
			`6:9: netns is "\x00": it must be the name or the absolute path of a network namespace`},
		{single + "netns = 'inner'\n", ""},
	})
}

func TestIgnoreDF(t *testing.T) {
	checkProblems(t, []problemRow{
		{double + "ignore_df = true\n", ""},
		{double + "ignore_df = 'yes'\n", `8:13: ignore_df is "yes": it must be true or false`},
		{single + "ignore_df = true\n",
			`6:1: ignore_df contradicts mode "6in4", which does not carry IPv4: leave it out, or choose mode "4in6in4", "4in4", "4in6", "gre", "gre6" or "seal"`},
	})
}

func TestLoops(t *testing.T) {
	checkProblems(t, []problemRow{
		{double + "address = ['192.0.2.9/24', '10.0.0.1/8']\nroutes = ['0.0.0.0/0', '192.0.2.2/32', '192.0.2.4/31']\n",
			lines(
				"8:12: address has 192.0.2.9/24, which holds remote 192.0.2.2, so that outer packets would go into the tunnel again: choose a prefix without it, set netns to move the interface into a namespace of its own, or set fwmark and add a rule that routes marked packets elsewhere",
				"9:24: routes has 192.0.2.2/32, which holds remote 192.0.2.2, so that outer packets would go into the tunnel again: choose a prefix without it, set netns to move the interface into a namespace of its own, or set fwmark and add a rule that routes marked packets elsewhere",
			)},
		{double + "address = ['192.0.2.9/24', '10.0.0.1/8']\n" +
			"routes = ['0.0.0.0/0', '192.0.2.2/32', '192.0.2.4/31']\n" +
			"netns = 'inner'\n",
			""},
		{double + "address = ['192.0.2.9/24', '10.0.0.1/8']\n" +
			"routes = ['0.0.0.0/0', '192.0.2.2/32', '192.0.2.4/31']\n" +
			"fwmark = 1\n",
			""},
		{double + "address = ['192.0.2.9/24', '10.0.0.1/8']\n" +
			"routes = ['0.0.0.0/0', '192.0.2.2/32', '192.0.2.4/31']\n" +
			"fwmark = '1'\n",
			`10:10: fwmark is "1": it must be an integer from 0 to 4294967295`},
		{without(double, "remote") + "remote = 'a.example'\n" +
			"address = ['192.0.2.9/24', '10.0.0.1/8']\n" +
			"routes = ['0.0.0.0/0', '192.0.2.2/32', '192.0.2.4/31']\n",
			""},
	})
}

func TestNeighbours(t *testing.T) {
	checkProblems(t, []problemRow{
		{single + strings.Replace(double, "'a'", "'b'", 1),
			"10:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address"},
		{strings.NewReplacer("192.0.2.1", "auto", "192.0.2.2", "A.example").Replace(single) + strings.NewReplacer("'a'", "'b'", "192.0.2.1", "auto", "192.0.2.2", "a.example.").Replace(single),
			"10:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address"},
		{single + strings.NewReplacer("'a'", "'b'", "192.0.2.1", "auto").Replace(single), ""},
		{strings.Replace(single, "192.0.2.1", "x", 1) + strings.NewReplacer("'a'", "'b'", "192.0.2.1", "y").Replace(single),
			lines(
				`4:9: local is "x": it must be an IPv4 address or "auto"`,
				`9:9: local is "y": it must be an IPv4 address or "auto"`,
			)},
		{single + single + single,
			lines(
				`7:8: name is "a", which the tunnel of line 1 has: give each tunnel its own`,
				"10:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address",
				`12:8: name is "a", which the tunnel of line 1 has: give each tunnel its own`,
				"15:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address",
			)},
	})
}
