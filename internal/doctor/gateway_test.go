package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/rig"
)

// A tunnel that leads to the internet is checked for it, at the end that uses it and at
// the end that serves it.
func TestGateway(t *testing.T) {
	const probe = "probe = \"203.0.113.1\"\n" // the router's address on b's link
	client := "[gateway]\ndefault_route = true\n" + probe + double(1, `address = ["10.0.0.1/30"]`)
	server := func(lines string) string {
		return lines + double(2, `address = ["10.0.0.2/30"]`)
	}
	for _, test := range []struct {
		name, server string
		rules        string // of the server
		atA, saysA   string
		atB, saysB   string
	}{
		{"all is well", server("[gateway]\nmasquerade = \"vb\"\n" + probe), "",
			"", "203.0.113.1 answers a ping through six0", "", "203.0.113.1 answers a ping of this host through vb"},
		{"nobody serves", server(""), "",
			"internet_ipv4", `does not answer a ping through six0, but it answers one through va, past the tunnel: the peer does not forward packets to the internet, or their answers > on the peer: set masquerade = "INTERFACE" in [gateway]`, "", ""},
		{"an interface that there is not", server("[gateway]\nmasquerade = \"wan7\"\n" + probe), "",
			"internet_ipv4", "the peer does not forward packets to the internet", "masquerade", `there is no interface wan7`},
		{"the wrong interface", server("[gateway]\nmasquerade = \"lan0\"\n" + probe), "",
			"internet_ipv4", "the peer does not forward packets to the internet", "masquerade", `packets to the internet leave through vb, but masquerade is lan0 > masquerade = "vb" in [gateway]`},
		{"a filter that drops what is forwarded", server("[gateway]\nmasquerade = \"vb\"\n" + probe), "table inet f { chain c { type filter hook forward priority 0; policy drop; }; }",
			"internet_ipv4", "the peer does not forward packets to the internet", "forward_firewall", "the policy of nftables inet f c drops packets that this host forwards between six0 and vb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			must(t, rig.Veth(h.b, "lan0", newNamespace(t, "lan"), "l", 1500))
			b := start(t, h.b, test.server, nil).ready(t)
			a := start(t, h.a, client, nil).ready(t)
			if test.rules != "" {
				nft(t, h.b, test.rules)
			}
			for _, end := range []struct {
				d        *daemon
				at, says string
			}{{a, test.atA, test.saysA}, {b, test.atB, test.saysB}} {
				r := end.d.consult(t, nil)
				switch {
				case end.at != "":
					fails(t, r, end.at)
					verdict(t, r, end.at, finding.Fail, end.says)
				case end.says != "":
					fails(t, r)
					verdict(t, r, "internet_ipv4", finding.Pass, end.says)
				default:
					fails(t, r)
				}
			}
			if test.name == "all is well" {
				r := a.consult(t, nil)
				verdict(t, r, "default_route", finding.Pass, "packets without another route go into six0")
				verdict(t, r, "internet_ipv6", finding.Skip, "[gateway] is not used for IPv6 here")
				verdict(t, b.consult(t, nil), "masquerade", finding.Pass, "leave through vb with its address")
				nft(t, h.a, `table ip f { chain i { type filter hook input priority 0; policy drop; ip saddr { 10.0.0.0/8, 203.0.113.20 } accept; }; }`)
				verdict(t, a.consult(t, nil), "internet_ipv4", finding.Fail, "the policy of nftables ip f i drops answers from the internet (such as those of 203.0.113.1) that arrive through six0")
			}
		})
	}
}

// A gateway without IPv6 internet access is in order, unless the file names an IPv6 host.
func TestGatewayWithoutIPv6(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	must(t, h.r.AddAddr("lo", netip.MustParsePrefix("1.1.1.1/32")))
	for _, n := range []struct {
		ns     *rig.Namespace
		router netip.Addr
		dev    string
	}{{h.a, outerA6.Masked().Addr().Next(), "va"}, {h.b, outerB6.Masked().Addr().Next(), "vb"}} {
		must(t, n.ns.DelRoute(all6, n.router, n.dev))
	}
	b := start(t, h.b, "[gateway]\nmasquerade = \"vb\"\n"+double(2), nil).ready(t)
	a := start(t, h.a, "[gateway]\ndefault_route = true\n"+double(1), nil).ready(t)
	r := b.consult(t, nil)
	fails(t, r)
	verdict(t, r, "internet_ipv4", finding.Pass, "1.1.1.1 answers a ping of this host through vb")
	verdict(t, r, "internet_ipv6", finding.Skip, "this host has no IPv6 route to the internet")
	r = a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "internet_ipv4", finding.Pass, "1.1.1.1 answers a ping through six0")
	verdict(t, r, "internet_ipv6", finding.Skip, "the peer may have no IPv6 internet access")
	for _, end := range []*daemon{a, b} {
		text, err := os.ReadFile(end.path)
		must(t, err)
		must(t, os.WriteFile(end.path, []byte(strings.Replace(string(text), "[gateway]\n", "[gateway]\nprobe = [\"1.1.1.1\", \"2606:4700:4700::1111\"]\n", 1)), 0o600))
		r := end.consult(t, nil)
		fails(t, r, "internet_ipv6")
	}
}

// Without a host that answers, not everything is in order, and a stopped daemon gives no
// access to the internet.
func TestGatewayUnreached(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2), nil).ready(t)
	a := start(t, h.a, "[gateway]\ndefault_route = true\n"+double(1), nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r, "internet_ipv4", "internet_ipv6")
	verdict(t, r, "internet_ipv4", finding.Fail, "1.1.1.1 does not answer a ping, neither through six0")
	verdict(t, r, "internet_ipv4", finding.Fail, `to ping another host: probe = "ADDRESS" in [gateway]`)
	a.kill()
	r = a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "internet_ipv4", finding.Skip, "no daemon is running")
	silent := file(t, h.a, strings.Replace(fmt.Sprintf("[gateway]\ndefault_route = true\nprobe = []\n%s", double(1)), "six0", "six9", 1))
	verdict(t, silent.consult(t, nil), "internet_ipv4", finding.Skip, "probe in [gateway] has no IPv4 address")
}
