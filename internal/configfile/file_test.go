package configfile

import (
	"fmt"
	"strings"
	"testing"
)

func TestSyntax(t *testing.T) {
	checkProblems(t, []problemRow{
		{"[[tunnel]\nname = 'a'\n", "1:9: not valid TOML: a header that begins with [[ ends with ]]"},
		{"name", "1:4: not valid TOML: = must stand between a key and its value"},
		{single + "mtu = \n", "6:7: not valid TOML: the value is missing behind ="},
		{single + "mtu = '", "6:7: not valid TOML: unterminated literal string"},
		{"\x00", "1:1: not valid TOML: invalid character at start of key: U+0000"},
		{"a = \"\xff\"", "1:6: not valid TOML: invalid UTF-8 character in basic string"},
		{"\xef\xbb\xbf" + single + "mtu = 1\n", "6:7: mtu is 1: it must be at least 68, the minimum of IPv4, or 0 to take it from the path"}, // a byte order mark
		{"\xef\xbb\xbfx = 1\n" + single, `1:4: unknown key "x"`},
		{"\xff\xfe[\x00l\x00", "1:1: the file is UTF-16: save it as UTF-8"},
		{"name = “six0”\n", "1:8: “ is not a quotation mark in TOML: write \""},
		{"name = ‘six0’\n", "1:8: ‘ is not a quotation mark in TOML: write '"},
		{"“name” = 1\n", "1:1: “ is not a quotation mark in TOML: write \""},
		{"name =\u00a0'x'\n", "1:7: U+00A0 is a special space, such as a no-break space: write a plain one"},
		{"name\u2003= 'x'\n", "1:5: U+2003 is a special space, such as a no-break space: write a plain one"},
		{"name: 'x'\n", "1:5: not valid TOML: a key and its value are separated by =, not by :"},
		{"name = six0\n", `1:8: not valid TOML: strings must be quoted: write "six0"`},
		{"keepalive = 25s\n", `1:15: not valid TOML: strings must be quoted: write "25s"`},
		{"local = 192.0.2.1\n", `1:14: not valid TOML: strings must be quoted: write "192.0.2.1"`},
		{"routes = [10.0.0.0/8]\n", `1:15: not valid TOML: strings must be quoted: write "10.0.0.0/8"`},
		{"address = '10.0.0.1/30', 'fc00::1/64'\n", `1:24: not valid TOML: several values are an array: write them in brackets, as in ["a", "b"]; a number has no commas`},
		{"mss_clamp = yes\n", `1:13: not valid TOML: "yes" is no value: write true`},
		{"mss_clamp = False\n", `1:13: not valid TOML: "False" is no value: write false`},
		{"; comment\n", "1:1: not valid TOML: a comment begins with #"},
		{"name = 'x\n", "1:10: not valid TOML: the string does not end: ' is missing"},
		{"[[tunnel.peer]]\nname = 'x'\n" + single, "1:3: [[tunnel.peer]] stands before the [[tunnel]] that it belongs to: put it below that"},
		{"[log]\n[[tunnel.peer]]\nname = 'x'\n", "2:10: [[tunnel.peer]] stands before the [[tunnel]] that it belongs to: put it below that"},
		{single + "mtu = 99999999999999999999\n",
			"6:7: not valid TOML: decimal number is too large to fit in a 64-bit signed integer"},
		{"[log]\n[log]\n", "2:2: not valid TOML: table log already exists"},
		{"[tunnel]\n[[tunnel]]\n",
			"2:3: not valid TOML: key tunnel already exists as a table, but should be an array table"},
		{"\"a\\nb\" = 1\n[\"a\\nb\".c]\n", "2:2: not valid TOML: key a�b already exists as a value"},
	})
}

// TestCrowdedTables: a file of another type, of any size, is refused at once.
func TestCrowdedTables(t *testing.T) {
	const want = "a table has more than 1000 keys here, so that it cannot be a configuration: name the right file with -config"
	var keys, inline, tables strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&keys, "k%d = 1\n", i)
		fmt.Fprintf(&inline, "k%d = 1, ", i)
		fmt.Fprintf(&tables, "[t%d]\n", i)
	}
	checkProblems(t, []problemRow{
		{single + keys.String(), "1002:1: " + want},
		{"x = {" + strings.TrimSuffix(inline.String(), ", ") + "}\n", "1:9896: " + want},
		{tables.String(), "1001:2: " + want},
	})
}

func TestRepeats(t *testing.T) {
	checkProblems(t, []problemRow{
		{single + "name = 'b'\n", `6:1: key "name" is already set in line 2: keep one of the two`},
		{single + "name = 'b'\nmtu = 1\nttl = true\nlocal = 'auto'\n",
			lines(
				`6:1: key "name" is already set in line 2: keep one of the two`,
				"7:7: mtu is 1: it must be at least 68, the minimum of IPv4, or 0 to take it from the path",
				`8:7: ttl is a boolean: it must be an integer from 1 to 255 or "inherit"`,
				`9:1: key "local" is already set in line 4: keep one of the two`,
			)},
		{"log = {level = 'info', level = 'warn'}\n" + single,
			`1:24: key "level" is already set in line 1: keep one of the two`},
		{"log.level = 'info'\nlog.level = 'warn'\n" + single,
			`2:5: key "level" is already set in line 1: keep one of the two`},
		{single + "mtu = 1300\nmtu = 1400\nttl = [\n",
			lines(
				`7:1: key "mtu" is already set in line 6: keep one of the two`,
				"8:8: not valid TOML: array is incomplete",
			)},
		{single + "mtu = 1300\nmtu = 1400\nfwmark = 99999999999999999999\n",
			lines(
				`7:1: key "mtu" is already set in line 6: keep one of the two`,
				"8:10: fwmark is 99999999999999999999: it must be an integer from 0 to 4294967295",
			)},
		{single + "[log]\n[log]\n[control]\nsocket = '/a'\nsocket = '/b'\n",
			"7:2: not valid TOML: table log already exists"},
	})
}

func TestUnknownKeys(t *testing.T) {
	checkProblems(t, []problemRow{
		{"tunnels = 1\n", `1:1: unknown key "tunnels": did you mean "tunnel"?`},
		{"[lgo]\n" + single, `1:2: unknown key "lgo": did you mean "log"?`},
		{"[metric]\nlisten = '127.0.0.1:9640'\n" + single, `1:2: unknown key "metric": did you mean "metrics"?`},
		{single + "keep_alive = '25s'\n" +
			"deadafter = 5\n" +
			"[[tunnel.peers]]\n" +
			"name = 'b'\n",
			lines(
				`6:1: unknown key "keep_alive" in [[tunnel]]: did you mean "keepalive"?`,
				`7:1: unknown key "deadafter" in [[tunnel]]: did you mean "dead_after"?`,
				`8:10: unknown key "peers" in [[tunnel]]: did you mean "peer"?`,
			)},
		{double + "tl = 3\nMTU = 3\nhop-limit = 3\nroute = []\nadress = []\nflowlabel = 3\n",
			lines(
				`8:1: unknown key "tl" in [[tunnel]]: did you mean "ttl"?`,
				`9:1: unknown key "MTU" in [[tunnel]]: did you mean "mtu"?`,
				`10:1: unknown key "hop-limit" in [[tunnel]]: did you mean "hop_limit"?`,
				`11:1: unknown key "route" in [[tunnel]]: did you mean "routes"?`,
				`12:1: unknown key "adress" in [[tunnel]]: did you mean "address"?`,
				`13:1: unknown key "flowlabel" in [[tunnel]]: did you mean "flow_label"?`,
			)},
		{without(single, "name", "remote") + "nmae = 'b'\nremote4 = '192.0.2.2'\n",
			lines(
				`4:1: unknown key "nmae" in [[tunnel]]: did you mean "name"?`,
				`5:1: unknown key "remote4" in [[tunnel]]: did you mean "remote"?`,
			)},
		{single + "nmae = 'b'\n", `6:1: unknown key "nmae" in [[tunnel]]`},
		{"[log]\nlevle = 'info'\n\"a b\\u0000\" = 1\n[control]\nsockets = 1\nx.y.z = 1\n" + single,
			lines(
				`2:1: unknown key "levle" in [log]: did you mean "level"?`,
				`3:1: unknown key "a b\x00" in [log]`,
				`5:1: unknown key "sockets" in [control]: did you mean "socket"?`,
				`6:1: unknown key "x" in [control]`,
			)},
		{"name = 'a'\nmode = '6in4'\n",
			lines(
				`1:1: unknown key "name": it belongs to [[tunnel]]`,
				"1:1: there is no tunnel: add one, which begins with [[tunnel]]",
				`2:1: unknown key "mode": it belongs to [[tunnel]]`,
			)},
		{strings.Repeat("k", 100) + " = 1\n" + single,
			`1:1: unknown key "` + strings.Repeat("k", 80) + `"…`},
		{single + "[tunnel.routes]\n",
			`6:9: routes is a table: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`},
	})
}

func TestTypes(t *testing.T) {
	checkProblems(t, []problemRow{
		{single + "address = '10.0.0.1/30'\nroutes = {}\n",
			lines(
				`6:11: address is a string: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
				`7:10: routes is a table: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
			)},
		{single + "address = [1, 'fc00::1/64', [], ['x']]\nroutes = [\n  true,\n  {}]\n",
			lines(
				`6:11: address has an array in it: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
				`6:12: address has an integer in it: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
				`8:3: routes has a boolean in it: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
				`9:3: routes has a table in it: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
			)},
		{without(single, "name", "mode", "local", "remote") + "name = 1\n" +
			"mode = 2\n" +
			"local = 3\n" +
			"remote = 4\n" +
			"local6 = 5\n" +
			"remote6 = 6\n",
			lines(
				"2:8: name is an integer: it must be a string, the interface's name",
				`3:8: mode is an integer: it must be a string, `+allModes,
				`4:9: local is an integer: it must be a string, an IP address or "auto"`,
				"5:10: remote is an integer: it must be a string, an IP address or a DNS name",
				"6:10: local6 is an integer: it must be a string, an IPv6 address",
				"7:11: remote6 is an integer: it must be a string, an IPv6 address",
			)},
		{double + "mtu = '1400'\n" +
			"ttl = true\n" +
			"hop_limit = 1.5\n" +
			"dscp = 2020-01-01\n" +
			"ecn = 1\n" +
			"pmtu = 12:00:00\n" +
			"encap_limit = []\n" +
			"flow_label = {}\n" +
			"martians = 2020-01-01T00:00:00\n" +
			"fwmark = inf\n" +
			"netns = 2020-01-01T00:00:00Z\n",
			lines(
				`8:7: mtu is "1400": it must be an integer from 0 to 65535`,
				`9:7: ttl is a boolean: it must be an integer from 1 to 255 or "inherit"`,
				`10:13: hop_limit is a float: it must be an integer from 1 to 255 or "inherit"`,
				`11:8: dscp is a date: it must be an integer from 0 to 63 or "inherit"`,
				`12:7: ecn is an integer: it must be a string, "normal" or "compat"`,
				`13:8: pmtu is a time: it must be a string, "dynamic" or "static"`,
				`14:15: encap_limit is an array: it must be an integer from 0 to 255 or "none"`,
				`15:14: flow_label is a table: it must be an integer from 0 to 1048575, "hash" or "inner"`,
				`16:12: martians is a date and time: it must be a string, "rfc" or "strict"`,
				"17:10: fwmark is a float: it must be an integer from 0 to 4294967295",
				"18:9: netns is a date and time: it must be a string, the name or the absolute path of a network namespace",
			)},
		{"log = 1\ncontrol = []\ntunnel = 2\n",
			lines(
				"1:7: log is an integer: it must be a table, which begins with [log]",
				"2:11: control is an array: it must be a table, which begins with [control]",
				"3:10: tunnel is an integer: it must be an array of tables, each of which begins with [[tunnel]]",
			)},
		{"[[log]]\n[tunnel]\nname = 'a'\n",
			lines(
				"1:3: log is an array: it must be a table, which begins with [log]",
				"2:2: tunnel is a table: it must be an array of tables, each of which begins with [[tunnel]]",
			)},
		{"tunnel = [1, [], {}]\n",
			lines(
				"1:10: tunnel has an array in it: it must be an array of tables, each of which begins with [[tunnel]]",
				"1:11: tunnel has an integer in it: it must be an array of tables, each of which begins with [[tunnel]]",
				"1:18: name is missing: set it to the interface's name",
				`1:18: mode is missing: set it to `+allModes,
				`1:18: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:18: remote is missing: set it to the other end's outer address or its DNS name",
			)},
		{"[log]\nlevel = 1\nformat = 2\n[control]\nsocket = 3\n" + single,
			lines(
				`2:9: level is an integer: it must be a string, "debug", "info", "warn" or "error"`,
				`3:10: format is an integer: it must be a string, "auto", "console", "json" or "journal"`,
				"5:10: socket is an integer: it must be a string, an absolute path",
			)},
	})
}

func TestTables(t *testing.T) {
	checkProblems(t, []problemRow{
		{"", "1:1: there is no tunnel: add one, which begins with [[tunnel]]"},
		{"tunnel = []\n", "1:10: there is no tunnel: add one, which begins with [[tunnel]]"},
		{"# nothing\n[log]\n", "1:1: there is no tunnel: add one, which begins with [[tunnel]]"},
		{"[log]\nlevel = 'trace'\nformat = ''\n" + single,
			lines(
				`2:9: level is "trace": it must be "debug", "info", "warn" or "error"`,
				`3:10: format is "": it must be "auto", "console", "json" or "journal"`,
			)},
		{"[control]\nsocket = 'run/s'\n" + single,
			`2:10: socket is "run/s": it must be an absolute path, such as "/run/sixfour/control.sock"`},
		{"[control]\nsocket = ''\n" + single,
			`2:10: socket is "": it must be an absolute path, such as "/run/sixfour/control.sock"`},
		{"[control]\nsocket = \"/a\\u0000\"\n" + single,
			`2:10: socket is "/a\x00": it must be an absolute path without NUL`},
		{"[control]\nsocket = '/" + strings.Repeat("a", 107) + "'\n" + single,
			"2:10: socket has 108 bytes: a socket's path has at most 107"},
		{"[control]\nsocket = '/" + strings.Repeat("a", 106) + "'\n" + single, ""},
	})
}

func TestPositions(t *testing.T) {
	checkProblems(t, []problemRow{
		{"log = { level = 1, forma = 2, format = 'x' }\n" + single,
			lines(
				`1:17: level is an integer: it must be a string, "debug", "info", "warn" or "error"`,
				`1:20: unknown key "forma" in [log]`,
				`1:40: format is "x": it must be "auto", "console", "json" or "journal"`,
			)},
		{"log.level = 1\nlog . \"format\" \t = \t 'x'\n" + single,
			lines(
				`1:13: level is an integer: it must be a string, "debug", "info", "warn" or "error"`,
				`2:22: format is "x": it must be "auto", "console", "json" or "journal"`,
			)},
		{"\r\n[ log ]\r\n  level = 1\r\n" + single,
			`3:11: level is an integer: it must be a string, "debug", "info", "warn" or "error"`},
		{"tunnel = [\n  { name = 'a', mode = '6in4', local = 1, remote = '192.0.2.2', routes = [ 'x', ['y'] ] },\n  {},\n]\n",
			lines(
				`2:40: local is an integer: it must be a string, an IPv4 address or "auto"`,
				`2:74: routes has an array in it: it must be an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`,
				`2:76: routes has "x": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				"3:3: name is missing: set it to the interface's name",
				`3:3: mode is missing: set it to `+allModes,
				`3:3: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"3:3: remote is missing: set it to the other end's outer address or its DNS name",
			)},
		{"[[tunnel]]\nname = '''\na\n'''\nmtu = [\n]\n[  [tunnel]]\n",
			"7:4: not valid TOML: invalid character at start of key: U+005B '['"},
		{"  [[  tunnel  ]]\nname = '''\na\n'''\nmtu = [\n]\n\"tt\\u006c\" = 0\n",
			lines(
				`1:7: mode is missing: set it to `+allModes,
				`1:7: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`,
				"1:7: remote is missing: set it to the other end's outer address or its DNS name",
				`2:8: name is "a\n": it must be the interface's name, of 1 to 15 bytes, without white space, control characters, "/", ":" and "%"`,
				"5:7: mtu is an array: it must be an integer from 0 to 65535",
				`7:14: ttl is 0: it must be an integer from 1 to 255 or "inherit"`,
			)},
		{"é = 'é' # é\n[é.\"é\"]\n" + single,
			"1:1: not valid TOML: invalid character at start of key: U+00E9 \"é\""},
	})
}

func TestOrder(t *testing.T) {
	checkProblems(t, []problemRow{
		{"[control]\n" +
			"socket = 's'\n" +
			"[log]\n" +
			"level = 'x'\n" +
			"[[tunnel]]\n" +
			"mtu = 1\n" +
			"name = ''\n" +
			"mode = '6in4'\n" +
			"fwmark = -1\n" +
			"routes = ['10.0.0.0/8', 'x']\n" +
			"foo = 1\n" +
			"local = 'auto'\n" +
			"[[tunnel]]\n" +
			"name = 'b'\n" +
			"mode = '6in4'\n" +
			"local = 'auto'\n" +
			"remote = '192.0.2.1'\n" +
			"[[tunnel]]\n" +
			"name = 'b'\n" +
			"mode = '6in4'\n" +
			"local = 'auto'\n" +
			"remote = '192.0.2.1'\n",
			lines(
				`2:10: socket is "s": it must be an absolute path, such as "/run/sixfour/control.sock"`,
				`4:9: level is "x": it must be "debug", "info", "warn" or "error"`,
				"5:3: remote is missing: set it to the other end's outer address or its DNS name",
				"6:7: mtu is 1: it must be at least 68, the minimum of IPv4, or 0 to take it from the path",
				`7:8: name is "": it must be the interface's name, of 1 to 15 bytes`,
				"9:10: fwmark is -1: it must be an integer from 0 to 4294967295",
				`10:11: routes has "10.0.0.0/8": mode "6in4" does not carry IPv4: leave it out, or choose mode "4in6in4", "4in4", "4in6", "gre", "gre6" or "seal"`,
				`10:25: routes has "x": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
				`11:1: unknown key "foo" in [[tunnel]]`,
				`19:8: name is "b", which the tunnel of line 13 has: give each tunnel its own`,
				"22:10: local and remote are those of the tunnel of line 13, so that their packets could not be told apart: give one of them another address",
			)},
	})
}
