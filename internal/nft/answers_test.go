package nft

import (
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

func TestKernelAnswers(t *testing.T) {
	ns := rigtest.Enter(t, "nft")
	const gre, ipip, ipv6, udp = unix.IPPROTO_GRE, unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_UDP
	for _, c := range []struct {
		modules string
		ends    []Endpoint
		want    string
	}{
		{"", []Endpoint{{one, ipv6}, {one6, ipv6}}, ""},
		{"sit ip6_tunnel", nil, ""},
		{"ip_gre gre", []Endpoint{{one, ipv6}}, ""},
		{"gre", []Endpoint{{one, gre}, {one6, gre}}, ""},
		{"ip_gre", []Endpoint{{one, gre}}, "module ip_gre"},
		{"ip_gre", []Endpoint{{one6, gre}}, ""},
		{"tunnel4", []Endpoint{{one, ipv6}}, "module tunnel4"},
		{"tunnel4 sit", []Endpoint{{one, ipv6}}, "module sit"},
		{"tunnel4 sit", []Endpoint{{one, ipip}}, "module sit"},
		{"tunnel4 sit", []Endpoint{{one, udp}}, ""},
		{"tunnel4 sit ipip", []Endpoint{{one6, ipv6}, {one6, ipip}}, ""},
		{"tunnel6 ip6_tunnel", []Endpoint{{one6, ipv6}}, "module ip6_tunnel"},
		{"tunnel6", []Endpoint{{one6, ipip}}, "module tunnel6"},
		{"tunnel6 ip6_tunnel", []Endpoint{{one6, gre}, {one6, udp}, {one, ipv6}, {one, ipip}}, ""},
		{"tunnel6 ip6_tunnel ip6_gre", []Endpoint{{one6, gre}}, "module ip6_gre"},
		{"ip_gre tunnel6", []Endpoint{{one, ipv6}, {two, ipv6}, {one6, ipip}, {one, gre}}, "module tunnel6"},
	} {
		modules := fstest.MapFS{}
		for _, m := range strings.Fields(c.modules) {
			modules[m+"/refcnt"] = &fstest.MapFile{}
		}
		if got := KernelAnswers(modules, c.ends); got != c.want {
			t.Errorf("modules %q, ends %v: %q, want %q", c.modules, c.ends, got, c.want)
		}
	}
	for _, c := range []struct {
		device string
		end    Endpoint
	}{{"sit0", Endpoint{one, ipv6}}, {"ip6tnl0", Endpoint{one6, ipip}}, {"ip6gre0", Endpoint{one6, gre}}} {
		rigtest.Must(t, rig.Veth(ns, c.device, ns, "peer", 1500)) // the type of device does not matter
		if got := KernelAnswers(fstest.MapFS{}, []Endpoint{c.end}); got != "device "+c.device {
			t.Errorf("with the device %s: %q", c.device, got)
		}
		rigtest.Must(t, ns.DelLink(c.device))
	}
}

func TestByHand(t *testing.T) {
	const (
		table4 = "add table ip sixfour; add chain ip sixfour output { type filter hook output priority 0; }; " +
			"add rule ip sixfour output icmp type destination-unreachable icmp code port-unreachable @th,136,8 "
		table6 = "add table ip6 sixfour; add chain ip6 sixfour output { type filter hook output priority 0; }; "
		rule6  = "add rule ip6 sixfour output icmpv6 type destination-unreachable icmpv6 code port-unreachable @th,112,8 "
	)
	for _, c := range []struct {
		ends []Endpoint
		want string
	}{
		{[]Endpoint{{one, unix.IPPROTO_IPV6}, {two, unix.IPPROTO_IPV6}}, "nft '" + table4 + "{ 41 } drop'"},
		{[]Endpoint{{one, unix.IPPROTO_GRE}, {two, unix.IPPROTO_IPIP}}, "nft '" + table4 + "{ 4, 47 } drop'"},
		{[]Endpoint{{one6, unix.IPPROTO_IPV6}}, "nft '" + table6 + rule6 + "{ 41 } drop; " + rule6 + "60 @th,384,8 { 41 } drop'"},
		{[]Endpoint{{one6, unix.IPPROTO_GRE}, {one, unix.IPPROTO_IPIP}},
			"nft '" + table4 + "{ 4 } drop; " + table6 + rule6 + "{ 47 } drop; " + rule6 + "60 @th,384,8 { 47 } drop'"},
	} {
		if got := SuppressCommand(c.ends); got != c.want {
			t.Errorf("%v:\n%s, want\n%s", c.ends, got, c.want)
		}
	}
}
