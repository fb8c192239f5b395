package configfile

import (
	"net/netip"
	"reflect"
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/section"
)

// addressed is single with an address, to which rows add lines from line 7.
const addressed = single + "address = ['2001:db8::1/64']\n"

func TestGateway(t *testing.T) {
	two := addressed + "[[tunnel]]\nname = 'b'\nmode = '4in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.3'\naddress = ['10.0.0.1/30']\nfwmark = 7\n"
	for _, c := range []struct {
		text  string
		want  config.Gateway
		marks []uint32
	}{
		{addressed, config.Gateway{}, []uint32{0}},
		{addressed + "[gateway]\n", config.Gateway{}, []uint32{0}},
		{addressed + "[gateway]\ndefault_route = false\nmasquerade = []\nbypass = []\n", config.Gateway{}, []uint32{0}},
		{addressed + "[gateway]\ndefault_route = true\n", config.Gateway{DefaultRoute: "a", IPv6: true}, []uint32{config.GatewayMark}},
		{"[gateway]\nmasquerade = 'eth0'\n" + two, config.Gateway{Masquerade: []string{"eth0"}}, []uint32{0, 7}},
		{two + "[gateway]\nmasquerade = ['eth0', 'ppp0']\ndefault_route = true\ntunnel = 'b'\nbypass = ['192.0.2.0/25', '198.51.100.7/32']\n",
			config.Gateway{Masquerade: []string{"eth0", "ppp0"}, DefaultRoute: "b", IPv4: true, Bypass: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("198.51.100.7/32")}},
			[]uint32{config.GatewayMark, 7}},
		{double + "address = ['10.0.0.1/30', 'fc00::1/64']\n[gateway]\ndefault_route = true\nmasquerade = 'eth0'\n",
			config.Gateway{Masquerade: []string{"eth0"}, DefaultRoute: "a", IPv4: true, IPv6: true}, []uint32{config.GatewayMark}},
		{addressed + "[gateway]\ndefault_route = true\nprobe = '192.0.2.9'\n", config.Gateway{DefaultRoute: "a", IPv6: true, Probe: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}, []uint32{config.GatewayMark}},
		{single + "address = ['fc00::1/64']\n[gateway]\nmasquerade = 'eth0'\n", config.Gateway{Masquerade: []string{"eth0"}}, []uint32{0}},
		{without(addressed, "remote") + "[[tunnel.peer]]\nname = 'p'\nremote = '192.0.2.2'\nallowed = ['2001:db8::2/128', '::/0']\n[gateway]\ndefault_route = true\n",
			config.Gateway{DefaultRoute: "a", IPv6: true}, []uint32{config.GatewayMark}},
		{"[[tunnel]]\nname = 'a'\nmode = 'isatap'\nlocal = '192.0.2.1'\nrouters = ['192.0.2.7']\n[gateway]\ndefault_route = true\n", // its address comes from the router
			config.Gateway{DefaultRoute: "a", IPv6: true}, []uint32{config.GatewayMark}},
	} {
		got, err := Parse("file", []byte(c.text))
		if err != nil {
			t.Errorf("%v in\n%s", err, c.text)
			continue
		}
		if wanted := len(c.want.Masquerade) > 0 || c.want.DefaultRoute != ""; wanted && c.want.Probe == nil {
			c.want.Probe, c.want.DefaultProbe = section.DefaultProbe, true
		}
		var marks []uint32
		for _, tunnel := range got.Tunnels {
			marks = append(marks, tunnel.FwMark)
		}
		if !reflect.DeepEqual(got.Gateway, c.want) || !reflect.DeepEqual(marks, c.marks) {
			t.Errorf("%+v, marks %v, want %+v, %v, of\n%s", got.Gateway, marks, c.want, c.marks, c.text)
		}
	}
}

func TestGatewayProblems(t *testing.T) {
	gateway := addressed + "[gateway]\n" // line 7
	other := addressed + "[[tunnel]]\nname = 'b'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.3'\n[gateway]\n"
	const array = `an array of strings, such as ["192.0.2.0/24", "2001:db8::/64"]`
	checkProblems(t, []problemRow{
		{"gateway = 1\n" + addressed, "1:11: gateway is an integer: it must be a table, which begins with [gateway]"},
		{gateway + "defaultroute = true\n", `8:1: unknown key "defaultroute" in [gateway]: did you mean "default_route"?`},
		{gateway + "default_route = 'yes'\n", `8:17: default_route is "yes": it must be true or false`},
		{gateway + "default_route = true\ntunnel = 1\n", `9:10: tunnel is an integer: it must be a string, the name of a tunnel`},
		{gateway + "masquerade = true\n", "8:14: masquerade is a boolean: it must be an interface's name, or an array of them"},
		{gateway + "masquerade = ['eth0', 1]\n", "8:23: masquerade is an integer: it must be an interface's name, or an array of them"},
		{gateway + "masquerade = ''\n", `8:14: masquerade is "", which cannot be the name of an interface: name the one towards the internet, such as "eth0"`},
		{gateway + "masquerade = 'eth%d'\n", `8:14: masquerade is "eth%d", which cannot be the name of an interface: name the one towards the internet, such as "eth0"`},
		{gateway + "masquerade = ['eth0', 'eth0']\n", `8:23: masquerade has "eth0" twice: leave one out`},
		{double + "[gateway]\nmasquerade = 'a'\n", `9:14: masquerade is "a", which is a tunnel: name the interface towards the internet, such as "eth0"`},
		{gateway + "masquerade = 'eth0'\n", "8:14: masquerade has no effect: no tunnel in the daemon's own network namespace carries IPv4, or has an address of fc00::/7: " +
			"leave it out, or choose a mode that carries IPv4 (" + problem.Alternatives(problem.QuoteAll(keys.Modes(keys.Carries(4)))) + ")"},
		{gateway + "default_route = false\ntunnel = 'a'\n", `9:10: tunnel is "a", but default_route is false: set default_route = true, or leave tunnel out`},
		{gateway + "tunnel = 'a'\n", `8:10: tunnel is "a", but default_route is false: set default_route = true, or leave tunnel out`},
		{gateway + "bypass = ['2001:db8::/64']\n", "8:11: bypass has 2001:db8::/64, but there is no default route through a tunnel: set default_route = true, or leave bypass out"},
		{gateway + "default_route = true\ntunnel = 'six0'\n", `9:10: tunnel is "six0", which does not exist: it must be "a"`},
		{other + "default_route = true\n", `13:17: default_route is true, but there are 2 tunnels: say which, by tunnel = NAME, of "a" or "b"`},
		{other + "default_route = true\ntunnel = 'b'\n", `14:10: tunnel "b" (line 7) has no address from which anything could be sent into it: give it one by address`},
		{addressed + "netns = 'n'\n[gateway]\ndefault_route = true\n", `9:17: tunnel "a" (line 1) has a network namespace of its own, where nothing else has a default route: leave default_route out, and give the tunnel routes = ["0.0.0.0/0"]`},
		{without(addressed, "remote") + "[[tunnel.peer]]\nname = 'p'\nremote = '192.0.2.2'\nallowed = ['2001:db8::2/128']\n[gateway]\ndefault_route = true\n",
			`11:17: no peer of tunnel "a" (line 1) takes everything: give one allowed = ["0.0.0.0/0"], and the tunnel an IPv4 address, or "::/0" and an IPv6 address`},
		{gateway + "probe = '192.0.2.9'\n", "8:9: probe tests internet access through a tunnel, which this gateway does not give: set default_route or masquerade, or leave probe out"},
		{gateway + "default_route = true\nprobe = ['192.0.2.9', 'example.net', '127.0.0.1', 7, '192.0.2.9']\n", lines(
			`9:23: probe is "example.net": it must be the address of a host on the internet, such as "192.0.2.1", or an array of them`,
			`9:38: probe is "127.0.0.1": it must be the address of a host on the internet, such as "192.0.2.1", or an array of them`,
			`9:51: probe is an integer: it must be the address of a host on the internet, such as "192.0.2.1", or an array of them`,
			"9:54: probe has 192.0.2.9 twice: leave one out",
		)},
		{gateway + "default_route = true\nbypass = '2001:db8::/64'\n", "9:10: bypass is a string: it must be " + array},
		{gateway + "default_route = true\nbypass = [1, '2001:db8::1', '2001:db8::1/64', '::/0', '2001:db8:7::/48', '2001:db8:7::/48', '192.0.2.0/24']\n", lines(
			"9:11: bypass has an integer in it: it must be "+array,
			`9:14: bypass has "2001:db8::1": it has no prefix length: write 2001:db8::1/LENGTH, with a length from 0 to 128`,
			`9:29: bypass has "2001:db8::1/64": it has bits set beyond its prefix length: write 2001:db8::/64`,
			`9:47: bypass has "::/0": that is everything: leave default_route out instead`,
			`9:74: bypass has "2001:db8:7::/48": it is there twice: leave one out`,
			`9:93: bypass has 192.0.2.0/24, but tunnel "a" is not the default route of IPv4: leave it out, or give the tunnel an IPv4 address`,
		)},
	})
}
