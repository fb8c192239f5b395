package configfile

import "testing"

const (
	ce  = "[[tunnel]]\nname = 'a'\nmode = 'map_e'\nrole = 'ce'\n"
	br  = "[[tunnel]]\nname = 'a'\nmode = 'map_e'\nrole = 'br'\nlocal = '2001:db8:ffff::1'\n"
	b4  = "[[tunnel]]\nname = 'a'\nmode = 'lw4o6'\nrole = 'b4'\n"
	lwa = "[[tunnel]]\nname = 'a'\nmode = 'lw4o6'\nrole = 'aftr'\nlocal = '2001:db8:ffff::1'\n"

	mapRule = "rules = [{ ipv6 = '2001:db8::/40', ipv4 = '192.0.2.0/24', ea_bits = 16 }]\n"
	mapOwn  = "prefix = '2001:db8:12:3400::/56'\n"
	mapVia  = "border_relay = '2001:db8:ffff::1'\n"
)

func TestMapE(t *testing.T) {
	checkProblems(t, []problemRow{
		{ce + mapOwn + mapRule + mapVia, ""},
		{br + mapRule, ""},
		{ce,
			lines(
				`1:3: rules is missing: set it to the provider's mapping rules, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`,
				`1:3: prefix is missing: set it to the IPv6 prefix that the provider has delegated to this site`,
				`1:3: border_relay is missing: set it to the IPv6 address of the provider's border relay, or its DNS name`,
			)},
		{ce + mapRule + mapOwn,
			`1:3: border_relay is missing: set it to the IPv6 address of the provider's border relay, or its DNS name`},
		{ce + mapRule + mapVia + "prefix = '2001:db8:12::/48'\n",
			`7:10: prefix is 2001:db8:12::/48, and the rule for 2001:db8::/40 gives each customer a /56: give the prefix that the provider has delegated to this site`},
		{ce + mapRule + mapVia + "prefix = '2001:db9::/56'\n",
			`7:10: prefix is 2001:db9::/56, which is in the IPv6 prefix of no rule: give the one that the provider has delegated to this site, and the provider's rules`},
		{ce + mapOwn + mapVia + mapRule + "local = '2001:db8:12:3400::1'\n",
			`8:9: map_e: local address 2001:db8:12:3400::1: a customer edge with 2001:db8:12:3400::/56 must have the address 2001:db8:12:3400:0:c000:212:34 (RFC 7597 section 6): leave local out, and give that address to an interface of this host`},
		{ce + mapOwn + mapVia + mapRule + "netns = 'blue'\n",
			`8:9: netns contradicts a shared IPv4 address: packets are translated to 192.0.2.18 in the daemon's own namespace only: leave it out, and run the daemon in that namespace`},
		{ce + mapOwn + mapVia + "rules = []\n",
			`7:9: rules is empty: it must be an array of tables, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`},
		{ce + mapOwn + mapVia + "rules = [{ ipv6 = '2001:db8::/40' }]\n",
			`7:10: ipv4 is missing: set it to the IPv4 prefix of the rule`},
		{ce + mapOwn + mapVia + "rules = [{ ipv6 = '2001:db8::/40', ipv4 = '192.0.2.0/24', ea_bits = 32 }]\n",
			`7:10: rules: the prefix of a customer would have 72 bits, which is more than 64: 40 of the IPv6 prefix and 32 EA bits`},
		{ce + mapOwn + mapVia + "rules = [{ ipv6 = '2001:db8::/40', ipv4 = '192.0.2.0/24', eabits = 16 }]\n",
			`7:59: unknown key "eabits" in a table of rules: did you mean "ea_bits"?`},
		{ce + mapOwn + mapVia + "rules = 'x'\n",
			`7:9: rules is a string: it must be an array of tables, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`},
		{ce + mapOwn + mapVia + "rules = ['x']\n",
			`7:10: rules has a string in it: it must be an array of tables, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`},
		{ce + mapOwn + mapVia + "option94 = '005e'\n",
			`7:12: option94 is "005e": the option ends too early: ask for what the DHCP server sent`},
		{ce + mapOwn + mapVia + "option94 = '0060'\n",
			`7:12: option94 is "0060", an option with code 96: it must be option 94 of DHCPv6 as hexadecimal digits, with its code and length`},
		{ce + mapOwn + mapRule + "option94 = '005e00250059000d001018c00002002820010db800005a001020010db8ffff00000000000000000001'\n",
			`6:9: rules contradicts option94, which has rules, too: leave one of them out`},
		{ce + mapOwn + "option94 = '005e00110059000d001018c00002002820010db800'\n",
			`6:12: option94 has no border relay: set border_relay to its IPv6 address or its DNS name`},
		{br + mapRule + mapOwn,
			`7:10: prefix contradicts role "br": leave it out, or set role to "ce"`},
		{br,
			`1:3: rules is missing: set it to the provider's mapping rules, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`},
		{br + "rules = [{ ipv6 = '2001:db8::/40', ipv4 = '192.0.2.0/24', ea_bits = 16 }, { ipv6 = '2001:db8:100::/40', ipv4 = '192.0.2.0/24', ea_bits = 16 }]\n",
			`5:9: map_e: two rules have the IPv4 prefix 192.0.2.0/24`},
		{b4 + mapVia + "bindings = [{ ipv4 = '192.0.2.1', psid_len = 6, psid = 1 }]\n", ""},
		{b4 + "bindings = [{ ipv4 = '192.0.2.1', psid_len = 6, psid = 1 }]\n",
			`1:3: border_relay is missing: set it to the IPv6 address of the provider's AFTR, or its DNS name`},
		{b4 + mapVia,
			`1:3: bindings is missing: set it to the IPv4 address and the ports of this end, such as [{ ipv4 = "192.0.2.1", psid_len = 6, psid = 1 }]`},
		{b4 + mapVia + "bindings = [{ ipv4 = '192.0.2.1', psid_len = 6, psid = 64 }]\n",
			`6:13: bindings: port set identifier 64: with 6 bits there can be 0 to 63`},
		{b4 + mapVia + "bindings = [{ ipv4 = '192.0.2.1' }, { ipv4 = '192.0.2.2' }]\n",
			`6:12: bindings has 2 tables: a B4 has only its own`},
		{b4 + mapVia + "bindings = [{ ipv4 = '192.0.2.0/24' }]\n",
			`6:13: bindings: 192.0.2.0/24 is not one IPv4 address: write a binding for each`},
		{lwa + "bindings = [{ ipv4 = '192.0.2.1', psid_len = 6, psid = 1 }]\n",
			`6:12: bindings: that of 192.0.2.1 has no ipv6: give the customer's IPv6 address`},
		{lwa + "bindings = [{ ipv4 = '192.0.2.1', ipv6 = '2001:db8::1' }, { ipv4 = '192.0.2.1', ipv6 = '2001:db8::2' }]\n",
			`5:9: lw4o6: two bindings have 192.0.2.1 with the same port set: all ports`},
		{lwa + mapVia + "bindings = [{ ipv4 = '192.0.2.1', ipv6 = '2001:db8::1' }]\n",
			`6:16: border_relay contradicts role "aftr": leave it out, or set role to "b4"`},
	})
}
