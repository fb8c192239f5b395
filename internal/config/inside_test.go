package config

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
)

// The peer's inner address where the configuration shows it, and where it does not.
func TestProbed(t *testing.T) {
	for _, test := range []struct {
		own, allowed []string
		hub          bool
		want         string
	}{
		{[]string{"10.0.0.1/30"}, nil, false, "10.0.0.1 10.0.0.2"},
		{[]string{"10.0.0.1/24", "10.9.0.1/31"}, nil, false, "10.9.0.1 10.9.0.0"},
		{[]string{"10.0.0.1/24"}, nil, false, "invalid IP invalid IP"},
		{[]string{"10.0.0.1/30"}, nil, true, "invalid IP invalid IP"},
		{[]string{"10.0.0.1/24"}, []string{"10.0.0.7/32"}, true, "10.0.0.1 10.0.0.7"},
		{[]string{"10.0.0.1/24"}, []string{"10.0.0.7/32", "192.168.7.0/24"}, true, "10.0.0.1 10.0.0.7"},
		{[]string{"10.0.0.1/24"}, []string{"10.0.0.7/32", "10.0.0.8/32"}, true, "invalid IP invalid IP"},
		{[]string{"10.0.0.1/24"}, []string{"192.168.7.7/32"}, true, "invalid IP invalid IP"},
		{[]string{"10.0.0.1/24"}, []string{"10.0.0.0/25"}, true, "invalid IP invalid IP"},
		{[]string{"fc00::1/64", "10.0.0.1/24"}, []string{"10.0.0.7/32"}, true, "10.0.0.1 10.0.0.7"},
		{[]string{"fc00::1/126"}, nil, false, "invalid IP invalid IP"}, // not carried
		{[]string{"192.0.0.2/29"}, nil, false, "192.0.0.2 192.0.0.1"},
		{[]string{"192.0.0.3/29"}, nil, false, "invalid IP invalid IP"},
	} {
		mode, _ := encap.ModeByName("4in4")
		tun := Tunnel{Mode: mode, Hub: test.hub, Address: prefixList(test.own)}
		got := tun.Probed(&Peer{Allowed: prefixList(test.allowed)})
		if s := got.Local.String() + " " + got.Remote.String(); s != test.want {
			t.Errorf("%v, %v, hub %v: %s, want %s", test.own, test.allowed, test.hub, s, test.want)
		}
	}
}

func prefixList(texts []string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func TestOtherHosts(t *testing.T) {
	for _, test := range []struct {
		own  string
		want []string
		sure bool
	}{
		{"10.0.0.1/32", nil, false},
		{"10.0.0.0/31", []string{"10.0.0.1"}, true},
		{"10.0.0.1/31", []string{"10.0.0.0"}, true},
		{"10.0.0.1/30", []string{"10.0.0.2"}, true},
		{"10.0.0.2/30", []string{"10.0.0.1"}, true},
		{"10.0.0.7/24", []string{"10.0.0.1", "10.0.0.2"}, false},
		{"10.0.0.1/24", []string{"10.0.0.2"}, false},
		{"fc00::2/64", []string{"fc00::1"}, false},
		{"fc00::/127", []string{"fc00::1"}, true},
	} {
		got, sure := otherHosts(netip.MustParsePrefix(test.own))
		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}
		if !slices.Equal(texts, test.want) || sure != test.sure {
			t.Errorf("%s: %v %v, want %v %v", test.own, texts, sure, test.want, test.sure)
		}
	}
}
