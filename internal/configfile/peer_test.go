package configfile

import "testing"

func TestPeers(t *testing.T) {
	checkProblems(t, []problemRow{
		{tunnel("6rd", "192.0.2.1", "") + "prefix = '2001:db8::/32'\n" + peer("x", "192.0.2.3", "fc00::/7"),
			`6:10: peer contradicts mode "6rd", which finds the other ends' outer addresses itself: leave the peers out, or choose a configured mode`},
		{hubTunnel + peer("x", "192.0.2.2", "10.0.0.2/32") + peer("y", "y.example", "10.0.0.0/8"), ""},
		{hubTunnel + peer("x", "192.0.2.2", "10.0.0.0/8") + peer("x", "192.0.2.2", "10.0.0.0/8"),
			lines(
				`10:8: name is "x", which the peer of line 5 has: give each peer its own`,
				"11:10: remote is that of the peer of line 5, so that their packets could not be told apart: give each peer its own",
				`12:12: allowed has "10.0.0.0/8": the prefix is already allowed in line 8: leave one out, because it can be behind one peer only`,
			)},
		{hubTunnel + peer("x", "192.0.2.1", "10.0.0.1/8") + peer("", "learn", "fc00::/7") + peer("a b", "auto", "x"),
			lines(
				"7:10: remote is the same as local: it must be the other end's outer address",
				`8:12: allowed has "10.0.0.1/8": it has bits set beyond its prefix length: write 10.0.0.0/8`,
				`10:8: name is "": it must be the peer's name, of 1 to 63 bytes, all printable and without white space`,
				`11:10: remote is "learn": a remote end may be learnt from authenticated packets only, and no mode here has them: set it to an address or a DNS name`,
				`12:12: allowed has "fc00::/7": mode "4in4" does not carry IPv6: leave it out, or choose mode `+carrying6,
				`14:8: name is "a b": it must be the peer's name, of 1 to 63 bytes, all printable and without white space`,
				`15:10: remote is "auto": it must be an IPv4 address or a DNS name`,
				`16:12: allowed has "x": it must be an IP address and its prefix length, such as "192.0.2.0/24" or "2001:db8::/64"`,
			)},
		{hubTunnel + peer("x", "y.example", "10.0.0.0/8") + peer("y", "Y.example.", "10.0.0.0/9"),
			"11:10: remote is that of the peer of line 5, so that their packets could not be told apart: give each peer its own"},
		{hubTunnel + peer("x", "192.0.2.2", "0.0.0.0/0") + peer("y", "192.0.2.3", "192.0.2.3/32"), ""}, // from which no route follows
		{hubTunnel + "fwmark = 1\n" + peer("x", "192.0.2.2", "0.0.0.0/0") + peer("y", "192.0.2.3", "192.0.2.3/32"), ""},
		{hubTunnel + "remote = '192.0.2.5'\nremote6 = 'fc00::1'\n" + peer("x", "192.0.2.2", "10.0.0.0/8"),
			lines(
				"5:1: remote contradicts [[tunnel.peer]], where each peer has its own: leave it out, or leave the peers out",
				`6:1: remote6 contradicts mode "4in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
			)},
		{hubTunnel + "[[tunnel.peer]]\n[[tunnel.peer]]\nname = 'a'\nremote6 = 'fc00::1'\nallowed = []\nfoo = 1\nnmae = 1\n",
			lines(
				"5:10: name is missing in [[tunnel.peer]]: set it to a name of its own for the peer",
				`5:10: allowed is missing in [[tunnel.peer]]: set it to the prefixes behind the peer, such as ["10.0.0.2/32"]`,
				"5:10: remote is missing in [[tunnel.peer]]: set it to the peer's outer address or its DNS name",
				"6:10: remote is missing in [[tunnel.peer]]: set it to the peer's outer address or its DNS name",
				`8:1: remote6 contradicts mode "4in4", which has no IPv6 delivery header: leave it out, or choose mode "4in6in4", "4in6", "6in6" or "gre6"`,
				"9:11: allowed is empty: it must have the prefixes behind the peer",
				`10:1: unknown key "foo" in [[tunnel.peer]]`,
				`11:1: unknown key "nmae" in [[tunnel.peer]]`,
			)},
		{hubTunnel + "peer = []\n",
			"5:8: there is no peer: add one, which begins with [[tunnel.peer]], or set remote"},
		{hubTunnel + "peer = 1\n",
			"5:8: peer is an integer: it must be an array of tables, each of which begins with [[tunnel.peer]]"},
		{hubTunnel + "peer = [1]\n",
			"5:9: peer has an integer in it: it must be an array of tables, each of which begins with [[tunnel.peer]]"},
		{hubTunnel + "routes = ['192.0.2.2/32', '192.0.2.0/24']\n" + peer("x", "192.0.2.2", "10.0.0.0/8"),
			`5:11: routes has 192.0.2.2/32, which holds remote 192.0.2.2 of peer "x", so that outer packets would go into the tunnel again: choose a prefix without it, set netns to move the interface into a namespace of its own, or set fwmark and add a rule that routes marked packets elsewhere`},
		{tunnel("4in6in4", "192.0.2.1", "") + "local6 = 'fc00::1'\n" + peer("x", "192.0.2.2", "10.0.0.0/8") + "remote6 = 'fc00::1'\n" + peer("y", "192.0.2.3", "10.1.0.0/16"),
			lines(
				"10:11: remote6 is the same as local6: it must be the other end's address in the IPv6 layer",
				`11:10: remote6 is missing in [[tunnel.peer]]: set it to the peer's address in the IPv6 layer that mode "4in6in4" has`,
			)},
		{tunnel("4in6", "2001:db8::1", "") + peer("x", "2001:db8::2", "10.0.0.0/8") + "remote6 = 'fc00::1'\n" + peer("y", "2001:db8::1", "fc00::/7"),
			lines(
				`9:1: remote6 is the same end as remote in mode "4in6", which has no layer over IPv4: leave one out`,
				"12:10: remote is the same as local: it must be the other end's outer address",
				`13:12: allowed has "fc00::/7": mode "4in6" does not carry IPv6: leave it out, or choose mode `+carrying6,
			)},
		{tunnel("stack", "192.0.2.1", "") + "stack = [{mode = '4in4', local = '10.1.1.1', remote = '10.1.1.2'}, '4in4']\n" + peer("x", "192.0.2.2", "10.0.0.0/8"), ""},
		{tunnel("stack", "192.0.2.1", "") + "stack = ['4in4', '4in4']\n" + peer("x", "192.0.2.2", "10.0.0.0/8"),
			`5:18: stack: "4in4" and "4in4" would have the same ends: give one of them its own, as in { mode = "4in4", local = "10.1.1.1", remote = "10.1.1.2" }`},
		{tunnel("stack", "", "") + "stack = [{mode = '4in4', local = '10.1.1.1', remote = '10.1.1.2'}]\n" + peer("x", "192.0.2.2", "10.0.0.0/8"),
			"4:46: remote contradicts [[tunnel.peer]], where each peer has its own: leave it out, or leave the peers out"},
		{tunnel("6in4", "192.0.2.1", "any"),
			"5:10: remote is \"any\", but sixfourd exchanges packets with configured addresses only, because nothing but its outer address identifies a peer: set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each"},
		{hubTunnel + peer("x", "*", "10.0.0.0/8"),
			"7:10: remote is \"*\", but sixfourd exchanges packets with configured addresses only, because nothing but its outer address identifies a peer: set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each"},
		{tunnel("6in4", "192.0.2.1", "any.example"), ""},
		{tunnel("6in4", "192.0.2.1", "learn"),
			`5:10: remote is "learn": a remote end may be learnt from authenticated packets only, and no mode here has them: set it to an address or a DNS name`},
	})
}
