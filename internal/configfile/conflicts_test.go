package configfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sixfour/internal/config/problem"
)

// over4 returns the beginning of a tunnel of a mode over IPv4, between 192.0.2.1 and
// 192.0.2.n.
func over4(name, mode, n string) string {
	return "[[tunnel]]\nname = '" + name + "'\nmode = '" + mode + "'\nlocal = '192.0.2.1'\nremote = '192.0.2." + n + "'\n"
}

// TestContradictions: each of these files is valid TOML with known keys and possible
// values, and cannot work. The problem is reported for the right line. In "at: text",
// text is part of the problem.
func TestContradictions(t *testing.T) {
	layer := "local6 = 'fc00::1'\nremote6 = 'fc00::2'\n"
	hub := "[[tunnel]]\nname = 'h'\nmode = 'gre'\nlocal = '192.0.2.1'\naddress = ['10.0.0.1/24', 'fc00::1/64']\n"
	for _, c := range []struct{ file, want string }{
		// The interface's own address.
		{over4("a", "4in4", "2") + "address = ['10.0.0.0/30']\n", "6:12: the subnet's own address: it must be a host's, such as 10.0.0.1/30"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.3/30']\n", "6:12: the subnet's broadcast address: it must be a host's, such as 10.0.0.2/30"},
		{over4("a", "gre", "2") + "address = ['10.255.255.255/8']\n", "6:12: the subnet's broadcast address"},
		{over4("a", "4in6in4", "2") + layer + "address = ['10.0.0.255/24']\n", "8:12: the subnet's broadcast address"},
		{over4("a", "6in4", "2") + "address = ['fc00::/64']\n", "6:12: subnet-router anycast): it must be a host's, such as fc00::1/64"},
		{over4("a", "6in4", "2") + "address = ['2001:db8:0:7::/126']\n", "6:12: subnet-router anycast"},
		{over4("a", "gre", "2") + "address = ['10.0.0.1/30', 'fc00::/48']\n", "6:27: subnet-router anycast"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/0']\nfwmark = 1\n", "6:12: a subnet that holds every address: write 10.0.0.1/32"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/0']\n", "6:12: a subnet that holds every address: write fc00::1/128"},
		{over4("a", "4in4", "2") + "address = ['127.0.0.5/32']\n", "6:12: a loopback address"},
		{over4("a", "4in4", "2") + "address = ['0.1.2.3/32']\n", "6:12: which means this network"},
		{over4("a", "4in4", "2") + "address = ['224.0.0.1/32']\n", "6:12: must be a unicast address"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30', '10.0.0.1/24']\n", "6:27: the address is already in line 6"},
		// The other end's address.
		{over4("a", "4in6in4", "2") + layer + "address = ['10.0.0.1/30', 'fc00::2/64']\n", "8:27: address has fc00::2, which is the other end's"},
		{tunnel("4in6", "2001:db8::1", "2001:db8::2") + "fwmark = 7\naddress = ['10.0.0.1/30']\n", ""},
		{tunnel("6in6", "2001:db8::1", "2001:db8::2") + "fwmark = 7\naddress = ['2001:db8::2/128']\n", "7:12: which is the other end's"},
		{tunnel("6in6", "2001:db8::1", "2001:db8::2") + "address = ['2001:db8::2/128']\n", "6:12: which holds remote 2001:db8::2"},
		{over4("a", "4in4", "2") + "address = ['192.0.2.2/32']\n", "6:12: which holds remote 192.0.2.2"},
		{over4("a", "4in4", "2") + "netns = 'x'\naddress = ['192.0.2.2/32']\n", ""}, // another network
		{over4("a", "4in4", "1"), "5:10: remote is the same as local"},
		{over4("a", "4in6in4", "2") + "local6 = 'fc00::1'\nremote6 = 'fc00::1'\n", "7:11: remote6 is the same as local6"},
		{strings.Replace(over4("a", "4in4", "2"), "192.0.2.1", "127.0.0.1", 1), "5:10: the loopback network reaches only this host"},
		{tunnel("4in4", "192.0.2.1", "127.0.0.1"), "5:10: "},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + tunnel("4in4", "192.0.2.1", "10.0.0.1")[:11] + "name = 'b'\nmode = '4in4'\nlocal = '192.0.2.1'\nremote = '10.0.0.1'\n", "11:10: an address of the tunnel of line 1, and so this host itself"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30', '10.0.0.2/30']\n", "6:27: leaves none of the subnet's two addresses to the other end"},
		{over4("a", "gre", "2") + "address = ['fc00::/127', 'fc00::1/127']\n", "6:26: leaves none of the subnet's two addresses"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/126', 'fc00::2/126']\n", ""},
		// Routes.
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\nroutes = ['10.0.0.0/30']\n", "7:11: routes has 10.0.0.0/30, which address adds already"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\nroutes = ['10.0.0.1/32']\n", "7:11: an address of the interface itself"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/64']\nroutes = ['fc00::1/128']\n", "7:11: an address of the interface itself"},
		{over4("a", "4in4", "2") + "routes = ['127.0.0.0/8']\n", "6:11: of this host itself"},
		{over4("a", "6in4", "2") + "routes = ['::1/128']\n", "6:11: of this host itself"},
		{over4("a", "4in4", "2") + "routes = ['10.0.0.0/8', '10.0.0.0/8']\n", "6:25: the route is already in line 6"},
		// Two tunnels.
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.1/30']\n", "12:12: address has 10.0.0.1, which the tunnel of line 1 has"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "gre", "3") + "address = ['10.0.0.1/24']\n", "12:12: which the tunnel of line 1 has"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/64']\n" + over4("b", "6in4", "3") + "address = ['fc00::1/128']\n", ""}, // borrowed
		{over4("a", "6in4", "2") + "address = ['fc00::1/128']\n" + over4("b", "6in4", "3") + "address = ['fc00::1/64']\n", ""},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/24']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.1/32']\nroutes = ['10.7.0.0/16']\n", ""},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/24']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.1/32']\n" + over4("c", "4in4", "4") + "address = ['10.0.0.1/25']\n", "18:12: which the tunnel of line 1 has"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/32']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.1/32']\n", ""}, // unnumbered
		{over4("a", "6in4", "2") + "address = ['fe80::1/64']\n" + over4("b", "6in4", "3") + "address = ['fe80::1/64']\n", ""},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "netns = 'x'\naddress = ['10.0.0.1/30']\n", ""},
		{over4("a", "4in4", "2") + "netns = 'x'\naddress = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "netns = 'x'\naddress = ['10.0.0.1/30']\n", "14:12: which the tunnel of line 1 has"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.2/30']\n", "12:12: packets to 10.0.0.0/30 would take that tunnel"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/64']\n" + over4("b", "gre", "3") + "address = ['fc00::2/64']\n", "12:12: packets to fc00::/64 would take that tunnel"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/24']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.129/25']\n", ""}, // the longer one holds
		{over4("a", "4in4", "2") + "routes = ['10.9.0.0/16']\n" + over4("b", "4in4", "3") + "routes = ['10.9.0.0/16']\n", "12:11: routes has 10.9.0.0/16, which the tunnel of line 1 has"},
		{over4("a", "6in4", "2") + "routes = ['::/0']\n" + over4("b", "gre", "3") + "routes = ['::/0']\n", "12:11: which the tunnel of line 1 has"},
		{over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "routes = ['10.0.0.0/30']\n", "12:11: the subnet of an address of the tunnel of line 1"},
		{over4("a", "4in4", "2") + "routes = ['10.0.0.0/30']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.1/30']\n", "12:12: has its subnet in routes"},
		{over4("a", "4in4", "2") + over4("a", "4in4", "3"), "7:8: name is \"a\", which the tunnel of line 1 has"},
		{over4("a", "4in4", "2") + over4("b", "4in4", "2"), "10:10: their packets could not be told apart"},
		{over4("a", "gre", "2") + "key = 1\n" + over4("b", "gre", "2") + "key = 1\n", "11:10: their packets could not be told apart"},
		{tunnel("6to4", "192.0.2.1", "") + second(tunnel("6to4", "192.0.2.1", "")), "8:9: their packets could not be told apart"},
		// A hub.
		{hub + "routes = ['10.9.0.0/16']\n" + peer("x", "192.0.2.2", "10.0.0.2/32', '192.168.2.0/24"), "10:27: allowed has 192.168.2.0/24, to which no packet goes"},
		{hub + "routes = ['10.9.0.0/16']\n" + peer("x", "192.0.2.2", "2001:db8:b::/48"), "10:12: to which no packet goes"},
		{hub + peer("x", "192.0.2.2", "192.168.2.0/24"), ""},
		{hub + peer("x", "192.0.2.2", "192.0.2.2/32"), "9:12: allowed has 192.0.2.2/32, which holds remote 192.0.2.2 of peer \"x\""},
		{hub + peer("x", "192.0.2.2", "127.0.0.0/8"), "9:12: allowed has 127.0.0.0/8"},
		{over4("a", "4in4", "9") + "routes = ['192.168.2.0/24']\n" + hub + peer("x", "192.0.2.2", "192.168.2.0/24"), "15:12: allowed has 192.168.2.0/24, which the tunnel of line 1 has"},
		{over4("a", "4in4", "9") + "address = ['192.168.2.1/24']\n" + hub + peer("x", "192.0.2.2", "192.168.2.0/24"), "15:12: allowed has 192.168.2.0/24, which is the subnet of an address of the tunnel of line 1"},
		{hub + "routes = ['192.168.0.0/16']\n" + peer("x", "192.0.2.2", "192.168.2.0/24"), ""},
		{hub + "routes = ['192.168.2.0/24']\n" + peer("x", "192.0.2.2", "192.168.0.0/16"), ""},
		{hub + "routes = []\n" + peer("x", "192.0.2.2", "192.168.2.0/24"), ""}, // another program adds the routes
		{hub + peer("x", "192.0.2.2", "10.0.0.2/32") + peer("y", "192.0.2.3", "0.0.0.0/0"), ""},
		{"[gateway]\ndefault_route = true\n" + hub + peer("x", "192.0.2.2", "0.0.0.0/0', '::/0', '192.168.2.0/24"), ""},
		{hub + peer("x", "192.0.2.2", "10.0.0.1/32"), "9:12: an address of this end's interface"},
		{hub + peer("x", "192.0.2.2", "10.0.0.2/32") + peer("y", "192.0.2.3", "10.0.0.2/32"), "13:12: the prefix is already allowed in line 9"},
		{hub + peer("x", "192.0.2.2", "10.0.0.2/32") + peer("x", "192.0.2.3", "10.0.0.3/32"), "11:8: which the peer of line 6 has"},
		{hub + peer("x", "192.0.2.2", "10.0.0.2/32") + peer("y", "192.0.2.2", "10.0.0.3/32"), "12:10: their packets could not be told apart"},
		{hub + peer("x", "192.0.2.1", "10.0.0.2/32"), "8:10: remote is the same as local"},
		{hub + peer("x", "192.0.2.2", "10.0.0.2/24"), "9:12: bits set beyond its prefix length"},
		{"[[tunnel]]\nname = 'h'\nmode = '4in6in4'\nlocal = '192.0.2.1'\nlocal6 = 'fc00::1'\naddress = ['10.0.0.1/24', 'fc00::2/64']\n" + peer("x", "192.0.2.2", "10.0.0.2/32") + "remote6 = 'fc00::2'\n", "6:27: which is the other end's of peer \"x\""},
		// The rest.
		{"[gateway]\nmasquerade = 'lo'\n" + over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n", "2:14: through which nothing leaves this host"},
		{"[metrics]\nlisten = '224.0.0.1:9640'\n" + single, "2:10: at which nothing can listen"},
		{"[metrics]\nlisten = '[ff02::1]:9640'\n" + single, "2:10: at which nothing can listen"},
		{strings.Replace(single, "'a'", "'all'", 1), "2:8: the kernel reserves for settings of all interfaces"},
		{strings.Replace(single, "'a'", "'default'", 1), "2:8: the kernel reserves for settings of all interfaces"},
		{"[control]\nsocket = '/run/sixfour/'\n" + single, "2:10: an absolute path of a file"},
		{"[control]\nsocket = '/run/sixfour/..'\n" + single, "2:10: an absolute path of a file"},
		{over4("a", "gre", "2") + "sequence = true\nqueues = 2\n", "7:10: "},
		{over4("a", "4in4", "2") + "mtu = 65535\n", "6:7: it must be at most"},
		{over4("a", "6in4", "2") + "address = ['fc00::1/64']\nmtu = 1200\n", "7:7: it must be at least 1280"},
		{tunnel("stack", "192.0.2.1", "192.0.2.2") + "stack = ['4in4', '6in4']\n", "6:18: carries IPv6, but"},
		{tunnel("isatap", "192.0.2.1", ""), "1:3: "},
		{tunnel("6rd", "192.0.2.1", ""), "1:3: "},
		{tunnel("6to4", "10.0.0.1", ""), "4:9: "},
	} {
		_, err := Parse("f", []byte(c.file))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s\n%v, want nothing", c.file, err)
			}
			continue
		}
		at, text, _ := strings.Cut(c.want, ": ")
		var problems problem.List
		if !errors.As(err, &problems) || !strings.HasPrefix(problems[0].String(), "f:"+at+": ") || !strings.Contains(problems[0].Text, text) {
			t.Errorf("%s\n%v, want %s", c.file, err, c.want)
		}
		if len(problems) > 1 {
			t.Errorf("%s\n%d problems: %v", c.file, len(problems), err)
		}
	}
}

// Routes of a hub follow the prefixes of its peers, unless the file says which routes there
// are, nothing gives the interface an address, or a default route leads into the tunnel.
func TestRoutesFollowAllowed(t *testing.T) {
	const head = "[[tunnel]]\nname = 'h'\nmode = 'gre'\nlocal = '192.0.2.1'\n"
	const address = "address = ['10.0.0.1/24']\n"
	peers := peer("x", "192.0.2.2", "10.0.0.2/32', '192.168.2.0/24', 'fe80::/64") + peer("y", "192.0.2.3", "10.0.0.3/32', '2001:db8:b::/48")
	for _, c := range []struct{ file, want string }{
		{head + address + peers, "[192.168.2.0/24 2001:db8:b::/48]"},
		{head + address + "routes = []\n" + peers, "[]"},
		{head + address + "routes = ['192.168.0.0/16', '2001:db8::/32']\n" + peers, "[192.168.0.0/16 2001:db8::/32]"},
		{head + peers, "[]"},
		{head + address + peers + peer("z", "192.0.2.4", "0.0.0.0/0"), "[2001:db8:b::/48]"},
		{"[gateway]\ndefault_route = true\n" + head + address + peers + peer("z", "192.0.2.4", "0.0.0.0/0"), "[2001:db8:b::/48]"},
	} {
		got, err := Parse("f", []byte(c.file))
		if err != nil {
			t.Errorf("%s\n%v", c.file, err)
		} else if routes := fmt.Sprint(got.Tunnels[0].Routes); routes != c.want {
			t.Errorf("%s\nroutes %s, want %s", c.file, routes, c.want)
		}
	}
}
