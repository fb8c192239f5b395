package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/config"
)

// A pool on the link of an interface needs the proxy there, and must not have this host's own
// address.
func TestBrokerPool(t *testing.T) {
	b := &config.Broker{Interface: "six0", Pool: []netip.Prefix{netip.MustParsePrefix("2001:db8:5:0:8000::/65")}}
	for _, c := range []struct{ proxy, name, network, want string }{
		{"", "eth0", "2001:db8:6::2/64", ""},
		{"", "six0", "2001:db8:5::2/64", ""},
		{"", "eth0", "2001:db8:5::2/64", `ndp_proxy = "eth0"`},
		{"eth1", "eth0", "2001:db8:5::2/64", `ndp_proxy = "eth0"`},
		{"eth0", "eth0", "2001:db8:5::2/64", ""},
		{"eth0", "eth0", "2001:db8:5:0:8000::2/64", "without the addresses of this host"},
	} {
		b.NDPProxy = c.proxy
		f, bad := overlap(b, c.name, []netip.Prefix{netip.MustParsePrefix(c.network)})
		if bad != (c.want != "") || !strings.Contains(f.Remedy, c.want) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}
