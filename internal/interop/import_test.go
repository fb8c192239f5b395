//go:build interop

package interop

import (
	"strings"
	"testing"
)

// TestImportOfTheKernel makes tunnels of all kinds in the machine's kernel, and lets
// sixfourctl read them.
func TestImportOfTheKernel(t *testing.T) {
	t.Cleanup(func() { run(t, "ip netns del imp") })
	out, err := lab.vm.Run(t.Context(), `set -e
		ip netns add imp
		ip netns exec imp sh -ec '
			ip link set lo up
			ip fou add port 5555 ipproto 41
			ip link add s0 type sit local 203.0.113.10 remote 203.0.113.20 ttl 64 tos inherit
			ip link add s1 type sit local 203.0.113.10 remote 203.0.113.21 ttl 64 tos inherit encap fou encap-sport 5555 encap-dport 5555 encap-csum
			ip link add i0 mtu 1400 type ipip local 203.0.113.10 remote 203.0.113.20 ttl inherit tos 20 nopmtudisc
			ip link add g0 type gre local 203.0.113.10 remote 203.0.113.20 ikey 1 okey 2 csum seq ttl 64 tos inherit
			ip link add t4 type ip6tnl mode ipip6 local 2001:db8::10 remote 2001:db8::20 encaplimit none hoplimit 99 tclass inherit
			ip link add t6 type ip6tnl mode ip6ip6 local 2001:db8::10 remote 2001:db8::21 encaplimit 7 hoplimit 64 tclass 20
			ip link add g6 type ip6gre local 2001:db8::10 remote 2001:db8::20 key 5 encaplimit none hoplimit 64
			for d in s0 s1 i0 g0 t4 t6 g6; do ip link set $d up; done
			ip addr add 2001:db8:6::1/64 dev s0 nodad
			ip addr add 10.4.6.1/30 dev t4
			ip addr add 10.9.0.1 peer 10.9.0.2 dev g0
			ip route add 2001:db8:b::/48 dev s0
			ip route add 192.168.2.0/24 dev t4
		' >&2
		ip netns exec imp sixfourctl import >/run/import.toml
		ip netns exec imp sixfourctl import --json >/dev/null
		sixfourd -check -config /run/import.toml >&2
		cat /run/import.toml`)
	if err != nil {
		t.Fatal(err, out)
	}
	const s0 = `[[tunnel]]
name    = "s0"
mode    = "6in4"
local   = "203.0.113.10"
remote  = "203.0.113.20"
address = ["2001:db8:6::1/64"]
routes  = ["2001:db8:b::/48"]

[[tunnel]]
name    = "s1"
mode    = "6in4"
local   = "203.0.113.10"
remote  = "203.0.113.21"

[[tunnel.path]]
encap   = "fou"
port    = 5555

[[tunnel]]
name    = "i0"
mode    = "4in4"
local   = "203.0.113.10"
remote  = "203.0.113.20"
mtu     = 1400
pmtu    = "static"
ttl     = "inherit"
dscp    = 8

[[tunnel]]
name    = "g0"
mode    = "gre"
local   = "203.0.113.10"
remote  = "203.0.113.20"
ikey    = 1
okey    = 2
checksum = true
sequence = true
address = ["10.9.0.1/32"]
routes  = ["10.9.0.2/32"]

[[tunnel]]
name    = "t4"
mode    = "4in6"
local   = "2001:db8::10"
remote  = "2001:db8::20"
address = ["10.4.6.1/30"]
routes  = ["192.168.2.0/24"]
hop_limit = 99

[[tunnel]]
name    = "t6"
mode    = "6in6"
local   = "2001:db8::10"
remote  = "2001:db8::21"
encap_limit = 7
dscp    = 8

[[tunnel]]
name    = "g6"
mode    = "gre6"
local   = "2001:db8::10"
remote  = "2001:db8::20"
ikey    = 5
okey    = 5
`
	if !strings.HasPrefix(out, s0) {
		t.Errorf("got\n%s\nwant\n%s", out, s0)
	}
	report(t, "%d tunnels of the kernel", strings.Count(out, "[[tunnel]]"))
}
