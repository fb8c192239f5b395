package main

import (
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/configfile"
	"sixfour/internal/rig/rigtest"
)

// A pool that an interface of this host has on its link is found before clients miss it.
func TestBrokerHindrances(t *testing.T) {
	ns := rigtest.Enter(t, "host")
	rigtest.Must(t, ns.AddAddr("lo", netip.MustParsePrefix("2001:db8:5::2/64")))
	for _, c := range []struct{ pool, lines, want string }{
		{"2001:db8:100::/40", "", ""},
		{"2001:db8:5::/48", "", "f:2:8: pool has 2001:db8:5::/48, in which interface lo has the address 2001:db8:5::2"},
		{"2001:db8:5:0:8000::/65", "ndp_proxy = 'eth0'\nprefix_length = 80\n", "which is on the link of interface lo (2001:db8:5::/64): set ndp_proxy to \"lo\""},
		{"2001:db8:100::/40", "endpoints = '2001:db8:5::/64'\n", "endpoints has 2001:db8:5::/64, in which interface lo has the address"},
	} {
		cfg, err := configfile.Parse("f", []byte("[broker]\npool = ['"+c.pool+"']\n"+c.lines+"[[broker.listen]]\nprotocol = 'json'\naddress = '192.0.2.1'\n"))
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if problems := brokerProblems(&cfg.Broker); len(problems) > 0 {
			got = problems[0].String()
		}
		if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.pool, got, c.want)
		}
	}
}
