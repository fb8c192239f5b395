package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/rig"
)

// newHosts6 is newHosts with outer addresses of both IP versions:
//
//	namespace a                                namespace b
//	203.0.113.10/24 va ──────────────────── vb 203.0.113.20/24
//	2001:db8:ff::10/64                         2001:db8:ff::20/64
func newHosts6(t *testing.T) hosts {
	t.Helper()
	h := newHosts(t, 1500)
	must(t, h.a.AddAddr("va", netip.PrefixFrom(outer6A, 64)))
	must(t, h.b.AddAddr("vb", netip.PrefixFrom(outer6B, 64)))
	return h
}

var (
	outer6A = netip.MustParseAddr("2001:db8:ff::10")
	outer6B = netip.MustParseAddr("2001:db8:ff::20")
)

// Between are the two ends of a tunnel over an IP version; %[1]d is 1 in a and 2 in
// b, %[2]d is the other's number, and %[3]s the last byte of our outer IPv4 address
// in hexadecimal digits.
const (
	over4   = "local = \"203.0.113.%[1]d0\"\nremote = \"203.0.113.%[2]d0\"\n"
	over6   = "local = \"2001:db8:ff::%[1]d0\"\nremote = \"2001:db8:ff::%[2]d0\"\n"
	local4  = "local = \"203.0.113.%[1]d0\"\n"
	inner4  = "address = [\"10.0.0.%[1]d/30\"]\n"
	inner6  = "address = [\"fc00::%[1]d/64\"]\n"
	innerAB = "address = [\"10.0.0.%[1]d/30\", \"fc00::%[1]d/64\"]\n"
	mid6    = "local6 = \"fd00:6::%[1]d\"\nremote6 = \"fd00:6::%[2]d\"\n"
)

// tunnelOf is the [[tunnel]] of one end, 1 or 2; 5 is a third one.
func tunnelOf(text string, self int) string {
	hex := [...]string{1: "0a", 2: "14", 5: "32"}
	return "[[tunnel]]\nname = \"six0\"\n" + fmt.Sprintf(text, self, 3-self, hex[self])
}

// kind is a tunnel between a and b.
type kind struct {
	name string
	a, b string       // the two ends' keys; b "" is as a
	toA  []netip.Addr // inner addresses, of each IP version that is carried
	toB  []netip.Addr
	over int      // what it adds to an inner packet
	wire []string // headers of an echo request, for each of the addresses
}

func (k kind) atA() string { return tunnelOf(k.a, 1) }
func (k kind) atB() string {
	if k.b == "" {
		return tunnelOf(k.a, 2)
	}
	return tunnelOf(k.b, 2)
}

func (k kind) with(name, lines string) kind {
	k.name += name
	k.a += lines
	if k.b != "" {
		k.b += lines
	}
	return k
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var (
	ip4A, ip4B   = []netip.Addr{inA}, []netip.Addr{inB}
	ip6A, ip6B   = []netip.Addr{in6A}, []netip.Addr{in6B}
	bothA, bothB = []netip.Addr{inA, in6A}, []netip.Addr{inB, in6B}
)

// The tunnels that tests use between a and b.
var (
	kind4in4   = kind{"4in4", "mode = \"4in4\"\n" + over4 + inner4, "", ip4A, ip4B, 20, []string{"IPv4(4) IPv4(1)"}}
	kind4in6   = kind{"4in6", "mode = \"4in6\"\n" + over6 + inner4, "", ip4A, ip4B, 40, []string{"IPv6(4) IPv4(1)"}}
	kindDSLite = kind{"4in6 as DS-Lite", "mode = \"4in6\"\nds_lite = true\n" + over6, "mode = \"4in6\"\naddress = [\"192.0.0.1/29\"]\n" + over6,
		addrs("192.0.0.2"), addrs("192.0.0.1"), 40, []string{"IPv6(4) IPv4(1)"}}
	kind6in6  = kind{"6in6", "mode = \"6in6\"\n" + over6 + inner6, "", ip6A, ip6B, 40, []string{"IPv6(41) IPv6(58)"}}
	kindGRE   = kind{"gre", "mode = \"gre\"\n" + over4 + innerAB, "", bothA, bothB, 24, []string{"IPv4(47) GRE(0800) IPv4(1)", "IPv4(47) GRE(86dd) IPv6(58)"}}
	kindGRE6  = kind{"gre6", "mode = \"gre6\"\n" + over6 + innerAB, "", bothA, bothB, 44, []string{"IPv6(47) GRE(0800) IPv4(1)", "IPv6(47) GRE(86dd) IPv6(58)"}}
	kindStack = kind{"gre6 in 6in4", "stack = [\"gre6\", \"6in4\"]\n" + over4 + mid6 + innerAB, "", bothA, bothB, 64,
		[]string{"IPv4(41) IPv6(47) GRE(0800) IPv4(1)", "IPv4(41) IPv6(47) GRE(86dd) IPv6(58)"}}
	kind6to4 = kind{"6to4", "mode = \"6to4\"\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\n", "",
		addrs("2002:cb00:710a::1"), addrs("2002:cb00:7114::1"), 20, []string{"IPv4(41) IPv6(58)"}}
	kind6rd = kind{"6rd", "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nborder_relay = \"203.0.113.1\"\n" + local4 + "address = [\"2001:db8:cb00:71%[3]s::1/32\"]\n", "",
		addrs("2001:db8:cb00:710a::1"), addrs("2001:db8:cb00:7114::1"), 20, []string{"IPv4(41) IPv6(58)"}}
	kindISATAP = kind{"isatap", "mode = \"isatap\"\nrouter = true\nprefix = \"2001:db8:5efe:1::/64\"\naddress = [\"2001:db8:5efe:1:200:5efe:203.0.113.10/64\"]\n" + local4,
		"mode = \"isatap\"\nrouters = [\"203.0.113.10\"]\n" + local4,
		addrs("2001:db8:5efe:1:200:5efe:203.0.113.10"), addrs("2001:db8:5efe:1:200:5efe:203.0.113.20"), 20, []string{"IPv4(41) IPv6(58)"}}
	kindCompat = kind{"v4compat", "mode = \"v4compat\"\n" + local4 + "address = [\"::203.0.113.%[1]d0/96\"]\n", "",
		addrs("::203.0.113.10"), addrs("::203.0.113.20"), 20, []string{"IPv4(41) IPv6(58)"}}
	kind6over4 = kind{"6over4", "mode = \"6over4\"\n" + local4 + "address = [\"2001:db8:64::%[1]d/64\"]\n", "",
		addrs("2001:db8:64::1"), addrs("2001:db8:64::2"), 20, []string{"IPv4(41) IPv6(58)"}}
)

// options of GRE change the header.
func (k kind) gre(name, lines string, over int, flags string) kind {
	k = k.with(name, lines)
	k.over += over
	k.wire = append([]string(nil), k.wire...)
	for i := range k.wire {
		k.wire[i] = strings.Replace(k.wire[i], "GRE(", "GRE("+flags+" ", 1)
	}
	return k
}

// pair starts both daemons and waits until each end reaches the other.
func (k kind) pair(t *testing.T, a, b *rig.Namespace) (onA, onB *daemon) {
	t.Helper()
	onA, onB = start(t, a, k.atA()), start(t, b, k.atB())
	for i := range k.toA {
		reachable(t, a, k.toB[i])
		reachable(t, b, k.toA[i])
	}
	return onA, onB
}
