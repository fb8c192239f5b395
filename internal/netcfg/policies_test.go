package netcfg

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
)

// TestPoliciesAgainst: an IPsec policy excludes AF_XDP if it is the first one that
// selects the packets, in either direction, and does something with them.
func TestPoliciesAgainst(t *testing.T) {
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	peer := netip.MustParsePrefix("203.0.113.20/32")
	out := ipsecPolicy{source: any4, dest: peer, direction: netlink.XFRM_DIR_OUT, acts: true}
	with := func(p ipsecPolicy, change func(*ipsecPolicy)) ipsecPolicy {
		change(&p)
		return p
	}
	for _, c := range []struct {
		name     string
		policies []ipsecPolicy
		want     string
	}{
		{"none", nil, ""},
		{"any protocol", []ipsecPolicy{out}, "to 203.0.113.20"},
		{"this protocol", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.protocol = 41 })}, "to 203.0.113.20"},
		{"another protocol", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.protocol = 47 })}, ""},
		{"another peer", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.dest = netip.MustParsePrefix("203.0.113.21/32") })}, ""},
		{"inwards", []ipsecPolicy{{source: peer, dest: any4, direction: netlink.XFRM_DIR_IN, acts: true}}, "from 203.0.113.20"},
		{"for what is forwarded", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.direction = netlink.XFRM_DIR_FWD })}, ""},
		{"leave alone, first", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.priority = 2 }), with(out, func(p *ipsecPolicy) { p.priority, p.acts = 1, false })}, ""},
		{"leave alone, last", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.priority = 1 }), with(out, func(p *ipsecPolicy) { p.priority, p.acts = 2, false })}, "to 203.0.113.20"},
		{"another device", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.device = 9 })}, ""},
		{"another mark", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.mark, p.mask = 2, 3 })}, ""},
		{"this mark", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.mark, p.mask = 1, 3 })}, "to 203.0.113.20"},
		{"ports", []ipsecPolicy{with(out, func(p *ipsecPolicy) { p.ports = true })}, ""},
	} {
		o := Outer{Local: netip.MustParseAddr("203.0.113.10"), Remote: peer.Addr(), Protocol: unix.IPPROTO_IPV6, Mark: 5, Device: 3}
		if got := (Policies{ipsec: c.policies}).Conflict(o); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestReadIPsec: all of a policy is read, also if an IPv6 prefix looks like an IPv4
// address.
func TestReadIPsec(t *testing.T) {
	n := rigtest.Enter(t, "netcfg")
	rigtest.Must(t, n.Do(func() error {
		_, dst, err := net.ParseCIDR("2001:db8::/64")
		rigtest.Must(t, err)
		return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{
			Dst: dst, Src: dst, Proto: unix.IPPROTO_GRE, Dir: netlink.XFRM_DIR_IN, Priority: 7, Action: netlink.XFRM_POLICY_BLOCK,
			Mark: &netlink.XfrmMark{Value: 1, Mask: 3},
		})
	}))
	var p Policies
	rigtest.Must(t, n.Do(func() error { return p.readIPsec(unix.AF_INET6) }))
	prefix := netip.MustParsePrefix("2001:db8::/64")
	want := ipsecPolicy{source: prefix, dest: prefix, protocol: unix.IPPROTO_GRE, mark: 1, mask: 3, direction: netlink.XFRM_DIR_IN, priority: 7, acts: true}
	if len(p.ipsec) != 1 || p.ipsec[0] != want {
		t.Errorf("read %+v, want %+v", p.ipsec, want)
	}
}
