package configfile

import "testing"

func TestLISP(t *testing.T) {
	const (
		xtr      = "[[tunnel]]\nname = 'a'\nmode = 'lisp'\nlocal = '192.0.2.1'\nrole = 'xtr'\n"
		pxtr     = "[[tunnel]]\nname = 'a'\nmode = 'lisp'\nlocal = '192.0.2.1'\nrole = 'pxtr'\n"
		xtr6     = "[[tunnel]]\nname = 'a'\nmode = 'lisp'\nlocal = '2001:db8::1'\nrole = 'xtr'\n"
		eid      = "eid = ['2001:db8:e1::/48', '10.1.0.0/16']\n"
		resolver = "map_resolver = '198.51.100.53'\n"
	)
	checkProblems(t, []problemRow{
		{xtr + eid + resolver, ""},
		{xtr + eid + resolver + "map_server = ['ms.example.com', '198.51.100.53']\nkey_file = '/k'\nnonce_file = '/n'\nalgorithm = 'sha1'\ninstance = 16777215\nproxy_reply = true\n", ""},
		{pxtr + eid + resolver + "check_source = true\n", ""},
		{xtr6 + eid + "map_resolver = '2001:db8::53'\nhop_limit = 64\n", ""},
		{xtr + eid + resolver + "rloc = [{ address = '192.0.2.1', priority = 1, weight = 75 }, { address = '192.0.2.2' }, { address = '2001:db8::1' }]\n", ""},
		{xtr + eid,
			`1:3: map_resolver is missing: set it to the address of the map resolver, which knows the locators of other sites, or its DNS name`},
		{xtr + resolver,
			`1:3: eid is missing: set it to the prefixes of this site, such as ["2001:db8:e1::/48"]`},
		{xtr + resolver + "eid = '192.0.2.0/24'\n",
			`4:9: lisp: eid has 192.0.2.0/24, which contains the locator 192.0.2.1: packets to the locator would enter the tunnel; use other prefixes for hosts than for the network between the sites`},
		{xtr + resolver + "eid = '::/0'\n",
			`7:7: eid has ::/0, which contains all addresses, locators too: it must be the prefixes of sites`},
		{xtr + resolver + "eid = ['10.0.0.0/8', '10.1.0.0/16']\n",
			`7:7: eid has 10.0.0.0/8 and 10.1.0.0/16, which overlap: leave the longer one out`},
		{xtr + resolver + "eid = ['198.51.100.0/24']\n",
			`6:16: map_resolver has 198.51.100.53, which is in the prefix 198.51.100.0/24 of eid: packets to it would enter the tunnel`},
		{xtr + eid + "map_resolver = '2001:db8::53'\n",
			`7:16: map_resolver has 2001:db8::53, and local is 192.0.2.1: both must be IPv4 addresses, or both IPv6 addresses`},
		{xtr + eid + resolver + "map_server = '198.51.100.53'\n",
			`8:14: map_server needs key_file: set it to a file with the key that the map server has for this site`},
		{xtr + eid + resolver + "nonce_file = 'n'\n",
			`8:14: nonce_file is "n": it must be the absolute path of a file`},
		{pxtr + eid + resolver + "nonce_file = '/n'\n",
			`8:14: nonce_file contradicts role "pxtr": leave it out, or set role to "xtr"`},
		{xtr + eid + resolver + "key_file = '/k'\n",
			`8:12: key_file needs map_server: set it to the map server at which this site registers, or leave key_file out`},
		{xtr + eid + resolver + "rloc = [{ address = '192.0.2.2' }]\n",
			`8:8: rloc lacks 192.0.2.1, which is local, so that other sites would send nothing to this router: add it`},
		{xtr + eid + resolver + "rloc = [{ address = '192.0.2.1' }, { address = '10.1.0.1' }, { address = '192.0.2.1' }]\n",
			lines(
				`8:8: rloc has 10.1.0.1, which is in the prefix 10.1.0.0/16 of eid: packets to it would enter the tunnel; a locator is an address of the network between the sites`,
				`8:8: rloc has 192.0.2.1 twice: leave one out`,
			)},
		{xtr + eid + resolver + "rloc = [{ priority = 1 }]\n",
			`8:9: address is missing: set it to the address of the locator`},
		{xtr + eid + resolver + "instance = 16777216\n",
			`8:12: instance is 16777216: it must be an integer from 0 to 16777215`},
		{pxtr + eid + resolver + "map_server = '198.51.100.53'\nkey_file = '/k'\n",
			lines(
				`8:14: map_server contradicts role "pxtr": leave it out, or set role to "xtr"`,
				`9:12: key_file contradicts role "pxtr": leave it out, or set role to "xtr"`,
			)},
		{xtr + eid + resolver + "[[tunnel]]\nname = 'b'\nmode = 'lisp'\nlocal = '192.0.2.1'\nrole = 'xtr'\neid = '2001:db8:e2::/48'\ninstance = 5\n" + resolver,
			`11:9: local is that of the tunnel of line 1, which is of mode "lisp", too, so that their packets could not be told apart: give one of them another address`},
		{xtr + eid + resolver + "remote = '192.0.2.2'\n",
			`8:1: remote contradicts mode "lisp", which finds the other ends' outer addresses itself: leave it out, or choose a configured mode, such as "6in4"`},
	})
}
