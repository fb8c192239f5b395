package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// An IPsec policy, or a routing rule, for the outer protocol applies to the daemon's
// packets, those of the socket and those that are configured to bypass the kernel's IP layer.
// Without them packets bypass it again.
func TestPolicyByProtocol(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind
		protocol      int
		local, remote netip.Addr
	}{
		{kind{name: "4in6in4", a: "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, toB: ip4B}, 41, outerA, outerB},
		{kind{name: "6in4", a: "mode = \"6in4\"\n" + over4 + inner6, toB: ip6B}, 41, outerA, outerB},
		{kindGRE, 47, outerA, outerB},
		{kind4in4, 4, outerA, outerB},
		{kind4in6, 4, outer6A, outer6B},
		{kind6in6, 41, outer6A, outer6B},
		{kindGRE6, 47, outer6A, outer6B},
		{kind4in6.with(" without limit", "encap_limit = \"none\"\n"), 4, outer6A, outer6B},
	} {
		ios := []string{"xdp"}
		if c.protocol == 47 { // one of each IP version is enough
			ios = append(ios, "kernel")
		}
		for _, io := range ios {
			t.Run(c.name+" "+io, func(t *testing.T) {
				h := newHosts6(t)
				d := start(t, h.a, c.atA()+fmt.Sprintf("io = %q\n", io))
				start(t, h.b, c.atB())
				to := c.toB[0]
				reachable(t, h.a, to)
				leavesBy(t, d, io, "")
				for _, p := range policies(c.protocol, c.local, c.remote) {
					must(t, h.a.Do(p.add))
					leavesBy(t, d, "socket", p.name)
					noAnswer(t, p.name, h.a, to)
					must(t, h.a.Do(p.remove))
					leavesBy(t, d, io, "")
					reachable(t, h.a, to)
				}
			})
		}
	}
}

// policy returns an IPsec policy that blocks outgoing packets.
type policy struct {
	name        string // as status has it
	add, remove func() error
}

func policies(protocol int, local, remote netip.Addr) []policy {
	ipsec := &netlink.XfrmPolicy{
		Src: singlePrefix(local), Dst: singlePrefix(remote), Proto: netlink.Proto(protocol),
		Dir: netlink.XFRM_DIR_OUT, Action: netlink.XFRM_POLICY_BLOCK,
	}
	rule := netlink.NewRule()
	rule.IPProto, rule.Priority, rule.Type = protocol, 10, unix.RTN_PROHIBIT
	rule.Family = netlink.FAMILY_V4
	if local.Is6() {
		rule.Family = netlink.FAMILY_V6
	}
	return []policy{
		{"IPsec policy", func() error { return netlink.XfrmPolicyAdd(ipsec) }, func() error { return netlink.XfrmPolicyDel(ipsec) }},
		{"routing rule", func() error { return netlink.RuleAdd(rule) }, func() error { return netlink.RuleDel(rule) }},
	}
}

// singlePrefix returns the prefix of a single address.
func singlePrefix(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// leavesBy waits until the status shows this way of sending, with this reason.
func leavesBy(t *testing.T, d *daemon, by, why string) {
	t.Helper()
	eventually(t, "packets leave by "+by, func() error {
		if _, s := d.status(t); s.State.IO != by || !strings.Contains(s.State.IOWhy, why) || why == "" && s.State.IOWhy != "" {
			return fmt.Errorf("by %s: %s", s.State.IO, s.State.IOWhy)
		}
		return nil
	})
}

// noAnswer fails the test if an address answers.
func noAnswer(t *testing.T, because string, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	if res, err := rig.Ping(t.Context(), from, to, rig.PingOptions{Count: 3, Interval: 10 * time.Millisecond, Timeout: 200 * time.Millisecond}); err == nil && res.Received > 0 {
		t.Errorf("%s: %v answers in spite of it: %+v", because, to, res)
	}
}
