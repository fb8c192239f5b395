// Package differential holds the daemon against the Linux kernel: it replays
// recordings of what a kernel's tunnel router was sent, lets sixfourd be that
// router in a namespace, and compares all that the router sends, frame by frame,
// with what the kernel sent. Where we differ on purpose, differences_test.go
// says so and why; any other difference is a failure.
//
// Another tunnel's recording joins by a row in the table of TestAgainstKernel.
// The test needs root.
package differential

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"sixfour/internal/rig"
)

// program is the daemon that the tests run.
var program string

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "the differential test makes namespaces and TUN devices: run it as root")
		os.Exit(1)
	}
	// The rows wait more than they work.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sixfour-differential")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if program, err = rig.Build(dir, "sixfour/cmd/sixfourd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// Configurations that do what the kernel's devices do by default. A row adds
// what its device was given.
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
)

const (
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
)

const (
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

// rows are the recordings, in testdata/golden, and the tunnels that they show.
var rows = []struct {
	capture, tunnel string
	site            site
}{
	{"sit-encap", sit + `dscp = 0`, site{}},
	{"sit-decap", sit + `dscp = 0`, site{}},
	{"sit-big", sit + `dscp = 0`, site{}},
	{"sit-errors", sit + `dscp = 0`, site{}},
	{"sit-pmtu", sit + `dscp = 0`, site{}},
	{"sit-tos-fixed", sit + `dscp = 10`, site{}}, // TOS 0x28
	{"sit-nopmtu", sit + "dscp = 0\npmtu = \"static\"\nmtu = 1500", site{}},
	{"double-encap", double + `encap_limit = 4`, site{}},
	{"double-decap", double + `encap_limit = 4`, site{}},
	{"double-big", double + `encap_limit = 4`, site{}},
	{"double-errors4", double + `encap_limit = 4`, site{}},
	{"double-errors6", double + `encap_limit = 4`, site{}},
	{"double-none-encap", double + `encap_limit = "none"`, site{}},
	{"double-none-big", double + `encap_limit = "none"`, site{}},
	{"ipip-encap", ipip, site{}},
	{"ipip-decap", ipip, site{}},
	{"ipip-big", ipip, site{}},
	{"ipip-bad", ipip, site{}},
	{"ipip-errors", ipip, site{}},
	{"ipip-pmtu", ipip, site{}},
	{"ipip-nopmtu", ipip + "pmtu = \"static\"\nmtu = 1500", site{}},
	{"gre-v4-encap", gre, site{}},
	{"gre-v4-decap", gre, site{}},
	{"gre-v4-big", gre, site{}},
	{"gre-v4-bad", gre, site{}},
	{"gre-v4-errors", gre, site{}},
	{"gre-v4-pmtu", gre, site{}},
	{"gre-key", gre + `key = "1.2.3.4"`, site{}},
	{"gre-csum", gre + `checksum = true`, site{}},
	{"gre-seq", gre + `sequence = true`, site{}},
	{"gre-all", gre + "key = 7\nchecksum = true\nsequence = true", site{}},
	{"ipip6-encap", ipip6 + `encap_limit = 4`, site{}},
	{"ipip6-decap", ipip6 + `encap_limit = 4`, site{}},
	{"ipip6-big", ipip6 + `encap_limit = 4`, site{}},
	{"ipip6-errors", ipip6 + `encap_limit = 4`, site{}},
	{"ipip6-none", ipip6 + `encap_limit = "none"`, site{}},
	{"ip6ip6-encap", ip6ip6 + `encap_limit = 4`, site{}},
	{"ip6ip6-decap", ip6ip6 + `encap_limit = 4`, site{}},
	{"ip6ip6-big", ip6ip6 + `encap_limit = 4`, site{}},
	{"ip6ip6-errors", ip6ip6 + `encap_limit = 4`, site{}},
	{"ip6ip6-lowmtu", ip6ip6 + `encap_limit = 4`, site{wanMTU: 1280}},
	{"ip6ip6-none", ip6ip6 + `encap_limit = "none"`, site{}},
	{"6to4-encap", sixToFour, siteOf("2002:cb00:7101:1::1")},
	{"6to4-decap", sixToFour, siteOf("2002:cb00:7101:1::1")},
	{"6to4-stale-gw", sixToFour, siteOf("2002:cb00:7101:1::1")},
	{"6to4-stale-onlink", sixToFour, siteOf("2002:cb00:7101:1::1")},
	{"6rd", sixRD + `address = ["2001:db8:cb00:7101::1/32"]`, siteOf("2001:db8:cb00:7101::2")},
	{"6rd-relay", sixRD + "address = [\"2001:db8:100::1/32\"]\nmask_len = 24", siteOf("2001:db8:100::2")},
	{"isatap", isatap, site{}},
	{"ip6gre", ip6gre + `encap_limit = 4`, site{}},
}

func TestAgainstKernel(t *testing.T) {
	for _, row := range rows {
		t.Run(row.capture, func(t *testing.T) {
			t.Parallel()
			steps := readSteps(t, row.capture)
			expected := expect(t, row.capture, steps)
			r := newRouter(t, row.tunnel, row.site)
			for i, s := range steps {
				r.replay(t, s, expected[i])
			}
			r.silence(t)
		})
	}
}

func TestDifferencesAreOfRows(t *testing.T) {
	known := map[string]bool{}
	for _, row := range rows {
		known[row.capture] = true
	}
	for _, d := range differences {
		for _, name := range d.captures {
			if !known[name] {
				t.Errorf("%q is no capture of a row (%s)", name, d.why)
			}
		}
	}
}
