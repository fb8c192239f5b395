package kernelpath_test

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/source"
	"sixfour/internal/config"
	"sixfour/internal/kernelpath"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// What the configuration says against the kernel.
func TestWhyNot(t *testing.T) {
	for want, cfg := range map[string]config.Tunnel{
		"": {},
		"the outer addresses are found packet by packet": {Mode: encap.Mode{Automatic: true}},
		"the interface is in another network namespace":  {Interface: config.Interface{Netns: "other"}},
		"packets may be cut in two pieces (reserve)":     {Interface: config.Interface{Reserve: 1500}},
	} {
		if got := kernelpath.WhyNot(&cfg); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// The addresses of this host are those of its interfaces and our ends of the layers; subnets of
// the tunnel's own interface are not other ones.
func TestSetupOf(t *testing.T) {
	a := netip.MustParseAddr
	const six0, eth0, lan = 7, 2, 3
	host := []source.HostAddress{
		{Addr: a("203.0.113.10"), Subnet: netip.MustParsePrefix("203.0.113.0/24"), Link: eth0},
		{Addr: a("192.168.1.1"), Subnet: netip.MustParsePrefix("192.168.1.0/24"), Link: lan},
		{Addr: a("10.0.0.1"), Subnet: netip.MustParsePrefix("10.0.0.0/30"), Link: six0},
		{Addr: a("10.0.0.9"), Subnet: netip.MustParsePrefix("10.0.0.0/30"), Link: lan}, // on both
		{Addr: a("127.0.0.1"), Link: 1},
		{Addr: a("fe80::1"), Subnet: netip.MustParsePrefix("fe80::/64"), Link: eth0},
		{Addr: a("2001:db8:1::1"), Subnet: netip.MustParsePrefix("2001:db8:1::/64"), Link: lan},
	}
	cfg := &config.Tunnel{IO: config.IOKernel, FwMark: 9, Layers: []config.Layer{{Local: a("fc00::1")}, {}}, Peers: []config.Peer{{Paths: make([]config.Path, 1)}}}
	s := kernelpath.SetupOf(cfg, six0, prefixes("10.0.0.1/30"), host, 1)
	if !s.Wanted || !s.TwoLayers || s.Interface != six0 || s.Why != "" || s.Mark != 9 {
		t.Errorf("%+v", s)
	}
	own := []netip.Addr{a("10.0.0.1"), a("fc00::1"), a("203.0.113.10"), a("192.168.1.1"), a("10.0.0.9"), a("2001:db8:1::1")}
	if !slices.Equal(s.Own, own) {
		t.Errorf("own %v", s.Own)
	}
	if want := prefixes("203.0.113.0/24", "192.168.1.0/24", "2001:db8:1::/64"); !slices.Equal(s.Subnets, want) {
		t.Errorf("subnets %v", s.Subnets)
	}
}

// The tables have room for the addresses of this host in a number of tunnels.
func TestTooMany(t *testing.T) {
	cfg := &config.Tunnel{IO: config.IOKernel, Peers: []config.Peer{{Paths: make([]config.Path, 1)}}}
	for tunnels, want := range map[int]bool{50: true, 51: false} {
		if s := kernelpath.SetupOf(cfg, 7, nil, make([]source.HostAddress, 1000), tunnels); (s.Why == "") != want {
			t.Errorf("%d tunnels: %q", tunnels, s.Why)
		}
	}
}

// Behind the only peer is everything, and what is configured counts beside a subnet of this host;
// behind a hub's peer is what it is allowed.
func TestPrefixesOf(t *testing.T) {
	behind := [][]netip.Prefix{prefixes("10.0.0.1/30"), prefixes("192.168.1.128/25")}
	if got := kernelpath.PrefixesOf(&config.Tunnel{}, &config.Peer{}, behind); !slices.Equal(got, prefixes("0.0.0.0/0", "::/0", "10.0.0.0/30", "192.168.1.128/25")) {
		t.Errorf("%v", got)
	}
	allowed := prefixes("10.2.0.0/16")
	if got := kernelpath.PrefixesOf(&config.Tunnel{Hub: true}, &config.Peer{Allowed: allowed}, behind); !slices.Equal(got, allowed) {
		t.Errorf("%v", got)
	}
}
