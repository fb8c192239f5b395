package differential

import "net/netip"

// Configurations that match the defaults of the kernel's devices. A row adds the options of
// its device.
const (
	sit = `
mode      = "6in4"
local     = "203.0.113.1"
remote    = "203.0.113.2"
address   = ["fc00:1::1/64"]
routes    = ["2001:db8:2::/64"]
ttl       = "inherit"
mss_clamp = false
`
	double = `
mode      = "4in6in4"
local     = "203.0.113.1"
remote    = "203.0.113.2"
local6    = "fc00::1"
remote6   = "fc00::2"
address   = ["10.0.0.1/30", "fc00::1/64"]
routes    = ["192.168.2.0/24"]
ttl       = 64
hop_limit = 64
dscp      = 0
mss_clamp = false
`

	gre = `
mode      = "gre"
local     = "203.0.113.1"
remote    = "203.0.113.2"
address   = ["10.0.0.1/30", "fc00:1::1/64"]
routes    = ["192.168.2.0/24", "2001:db8:2::/64"]
ttl       = "inherit"
dscp      = 0
mss_clamp = false
`
	ipip = `
mode      = "4in4"
local     = "203.0.113.1"
remote    = "203.0.113.2"
address   = ["10.0.0.1/30"]
routes    = ["192.168.2.0/24"]
ttl       = "inherit"
dscp      = 0
mss_clamp = false
`
	ip6tnl = `
local     = "2001:db8:ffff::1"
remote    = "2001:db8:ffff::2"
hop_limit = 64
dscp      = 0
mss_clamp = false
`
	ipip6 = ip6tnl + `
mode      = "4in6"
address   = ["10.0.0.1/30"]
routes    = ["192.168.2.0/24"]
`
	ip6ip6 = ip6tnl + `
mode      = "6in6"
address   = ["fc00:1::1/64"]
routes    = ["2001:db8:2::/64"]
`
	ip6gre = ip6tnl + `
mode      = "gre6"
address   = ["10.0.0.1/30", "fc00:1::1/64"]
routes    = ["192.168.2.0/24", "2001:db8:2::/64"]
`

	sixToFour = `
mode      = "6to4"
local     = "203.0.113.1"
relay     = "192.88.99.1"
address   = ["2002:cb00:7101::1/16"]
routes    = ["2001:db9::/32"]
ttl       = "inherit"
dscp      = 0
mss_clamp = false
`
	sixRD = `
mode         = "6rd"
local        = "203.0.113.1"
prefix       = "2001:db8::/32"
border_relay = "203.0.113.2"
routes       = ["2001:db9::/32"]
ttl          = "inherit"
dscp         = 0
mss_clamp    = false
`
	isatap = `
mode      = "isatap"
local     = "203.0.113.1"
routers   = ["203.0.113.2"]
address   = ["2001:db8:9:0:200:5efe:cb00:7101/64"]
routes    = ["2001:db9::/32"]
ttl       = "inherit"
dscp      = 0
mss_clamp = false
`
)

// rows are the recordings, in testdata/golden, and their tunnels.
var rows = []struct{ capture, tunnel string }{
	{"sit-encap", sit + `dscp = 0`},
	{"sit-decap", sit + `dscp = 0`},
	{"sit-big", sit + `dscp = 0`},
	{"sit-errors", sit + `dscp = 0`},
	{"sit-pmtu", sit + `dscp = 0`},
	{"sit-tos-fixed", sit + `dscp = 10`}, // TOS 0x28
	{"sit-nopmtu", sit + "dscp = 0\npmtu = \"static\"\nmtu = 1500"},
	{"double-encap", double + `encap_limit = 4`},
	{"double-decap", double + `encap_limit = 4`},
	{"double-big", double + `encap_limit = 4`},
	{"double-errors4", double + `encap_limit = 4`},
	{"double-errors6", double + `encap_limit = 4`},
	{"double-none-encap", double + `encap_limit = "none"`},
	{"double-none-big", double + `encap_limit = "none"`},
	{"ipip-encap", ipip},
	{"ipip-decap", ipip},
	{"ipip-big", ipip},
	{"ipip-bad", ipip},
	{"ipip-errors", ipip},
	{"ipip-pmtu", ipip},
	{"ipip-nopmtu", ipip + "pmtu = \"static\"\nmtu = 1500"},
	{"gre-v4-encap", gre},
	{"gre-v4-decap", gre},
	{"gre-v4-big", gre},
	{"gre-v4-bad", gre},
	{"gre-v4-errors", gre},
	{"gre-v4-pmtu", gre},
	{"gre-key", gre + `key = "1.2.3.4"`},
	{"gre-csum", gre + `checksum = true`},
	{"gre-seq", gre + `sequence = true`},
	{"gre-all", gre + "key = 7\nchecksum = true\nsequence = true"},
	{"ipip6-encap", ipip6 + `encap_limit = 4`},
	{"ipip6-decap", ipip6 + `encap_limit = 4`},
	{"ipip6-big", ipip6 + `encap_limit = 4`},
	{"ipip6-errors", ipip6 + `encap_limit = 4`},
	{"ipip6-none", ipip6 + `encap_limit = "none"`},
	{"ip6ip6-encap", ip6ip6 + `encap_limit = 4`},
	{"ip6ip6-decap", ip6ip6 + `encap_limit = 4`},
	{"ip6ip6-big", ip6ip6 + `encap_limit = 4`},
	{"ip6ip6-errors", ip6ip6 + `encap_limit = 4`},
	{"ip6ip6-lowmtu", ip6ip6 + `encap_limit = 4`},
	{"ip6ip6-none", ip6ip6 + `encap_limit = "none"`},
	{"ip6gre", ip6gre + `encap_limit = 4`},
	{"6to4-encap", sixToFour},
	{"6to4-decap", sixToFour},
	{"6to4-stale-gw", sixToFour},
	{"6to4-stale-onlink", sixToFour},
	{"6rd", sixRD + `address = ["2001:db8:cb00:7101::1/32"]`},
	{"6rd-relay", sixRD + "address = [\"2001:db8:100::1/32\"]\nmask_len = 24"},
	{"isatap", isatap},
}

// site holds the differences between the router of a recording and the others.
type site struct {
	wanMTU       int        // 0: 1500
	router, host netip.Addr // more addresses, on the LAN
}

var sites = map[string]site{
	"ip6ip6-lowmtu":     {wanMTU: 1280},
	"6to4-encap":        siteOf("2002:cb00:7101:1::1"),
	"6to4-decap":        siteOf("2002:cb00:7101:1::1"),
	"6to4-stale-gw":     siteOf("2002:cb00:7101:1::1"),
	"6to4-stale-onlink": siteOf("2002:cb00:7101:1::1"),
	"6rd":               siteOf("2001:db8:cb00:7101::2"),
	"6rd-relay":         siteOf("2001:db8:100::2"),
}

// siteOf returns a site with addresses in a prefix of 64 bits, of which the host has ::10.
func siteOf(router string) site {
	r := netip.MustParseAddr(router)
	host := r.As16()
	host[15] = 0x10
	return site{router: r, host: netip.AddrFrom16(host)}
}
