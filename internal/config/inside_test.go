package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sixfour/encap"
)

// TestProbed checks the inner addresses of a peer that follow from the configuration:
// certain ones come first.
func TestProbed(t *testing.T) {
	for _, test := range []struct {
		mode         string
		own, allowed []string
		probe        string
		hub          bool
		want         string
	}{
		{"4in4", []string{"10.0.0.1/30"}, nil, "", false, "10.0.0.1>10.0.0.2"},
		{"4in4", []string{"10.0.0.1/24", "10.9.0.1/31"}, nil, "", false, "10.9.0.1>10.9.0.0 10.0.0.1>10.0.0.2"},
		{"4in4", []string{"10.0.0.7/24"}, nil, "", false, "10.0.0.7>10.0.0.1 10.0.0.7>10.0.0.2"},
		{"4in4", []string{"10.0.0.7/24", "10.1.0.7/24", "10.2.0.7/24", "10.3.0.1/30"}, nil, "", false,
			"10.3.0.1>10.3.0.2 10.0.0.7>10.0.0.1 10.0.0.7>10.0.0.2 10.1.0.7>10.1.0.1"},
		{"4in4", []string{"10.0.0.1/30"}, nil, "", true, ""},
		{"4in4", []string{"10.0.0.1/24"}, []string{"10.0.0.7/32"}, "", true, "10.0.0.1>10.0.0.7"},
		{"4in4", []string{"10.0.0.1/24"}, []string{"10.0.0.7/32", "192.168.7.0/24"}, "", true, "10.0.0.1>10.0.0.7"},
		{"4in4", []string{"10.0.0.1/24"}, []string{"10.0.0.7/32", "10.0.0.8/32"}, "", true, ""},
		{"4in4", []string{"10.0.0.1/24"}, []string{"10.0.0.7/32", "10.0.0.8/32"}, "10.0.0.8", true, "10.0.0.1>10.0.0.8"},
		{"4in4", []string{"10.0.0.1/24"}, []string{"192.168.7.7/32"}, "", true, ""},
		{"4in4", []string{"10.0.0.1/24"}, []string{"192.168.7.0/24"}, "192.168.7.7", true, "10.0.0.1>192.168.7.7"},
		{"4in4", []string{"10.0.0.1/24"}, []string{"10.0.0.0/25"}, "", true, ""},
		{"4in4", []string{"fc00::1/64", "10.0.0.1/24"}, []string{"10.0.0.7/32"}, "", true, "10.0.0.1>10.0.0.7"},
		{"4in4", []string{"fc00::1/126"}, nil, "", false, ""}, // not carried
		{"4in4", []string{"192.0.0.2/29"}, nil, "", false, "192.0.0.2>192.0.0.1"},
		{"4in4", []string{"10.0.0.1/30", "10.9.0.1/24"}, nil, "10.9.0.9", false, "10.9.0.1>10.9.0.9"},
		{"6in4", []string{"2001:db8::2/64"}, nil, "", false, "2001:db8::2>2001:db8::1"},
		{"6in4", []string{"2001:db8::2/64"}, nil, "2001:db8:5::5", false, "2001:db8::2>2001:db8:5::5"},
	} {
		mode, _ := encap.ModeByName(test.mode)
		tun := Tunnel{Mode: mode, Hub: test.hub, Interface: Interface{Address: prefixList(test.own)}}
		p := &Peer{Allowed: prefixList(test.allowed)}
		if test.probe != "" {
			p.Probe = netip.MustParseAddr(test.probe)
		}
		var got []string
		for _, pair := range tun.Probed(p) {
			got = append(got, pair.Local.String()+">"+pair.Remote.String())
		}
		if s := strings.Join(got, " "); s != test.want {
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

// A path stays if its configuration does, in whatever order; the others keep their index if
// that is free on both sides, and the rest is new.
func TestMatchPaths(t *testing.T) {
	list := func(names string) (all []Path) {
		for _, name := range names {
			all = append(all, Path{Remote: Host{Name: string(name)}})
		}
		return all
	}
	for _, c := range []struct {
		old, next string
		want      []int
	}{
		{"a", "a", []int{0}},
		{"a", "b", []int{0}},
		{"a", "ab", []int{0, -1}},
		{"a", "ba", []int{-1, 0}},
		{"ab", "ba", []int{1, 0}},
		{"ab", "b", []int{1}},
		{"abc", "ac", []int{0, 2}},
		{"abc", "axc", []int{0, 1, 2}},
		{"abc", "xyzab", []int{-1, -1, 2, 0, 1}},
		{"aa", "aaa", []int{0, 1, -1}},
	} {
		if got := MatchPaths(list(c.old), list(c.next)); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.old, c.next, got, c.want)
		}
	}
}
