package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/rig"
)

// double returns one end of the double tunnel; self is the number of this end.
func double(self int, lines ...string) string {
	local, remote := outerA, outerB
	if self == 2 {
		local, remote = outerB, outerA
	}
	text := config("4in6in4", local, remote, fmt.Sprintf("local6 = \"fc00::%d\"\nremote6 = \"fc00::%d\"", self, 3-self))
	if len(lines) == 0 {
		lines = []string{fmt.Sprintf(`address = ["10.0.0.%d/30", "fc00::%d/64"]`, self, self)}
	}
	return text + strings.Join(lines, "\n") + "\n"
}

// Faults inside the tunnel are found from both ends, and both name the same end.
func TestInside(t *testing.T) {
	const dropIP = `table ip f { chain i { type filter hook input priority 0; iifname "six0" drop; }; }`
	for _, test := range []struct {
		name  string
		a, b  string // configurations
		fault func(*testing.T, hosts)
		// What the two ends report, by check; "": no check fails there.
		atA, saysA, atB, saysB string
	}{
		{"nothing", double(1), double(2), nil, "", "", "", ""},
		{"the peer's rules", double(1), double(2), func(t *testing.T, h hosts) { nft(t, h.b, dropIP) },
			"inner_ipv4", "packets leave for the peer, but no answer comes back, although fc00::2 answers, so the path works: the other end drops them > on the peer, 203.0.113.20",
			"inner_firewall", "in nftables ip f i drops answers from 10.0.0.1 to 10.0.0.2 that arrive through six0 > nft insert rule ip f i iifname six0 accept"},
		{"our own rules, of IPv6", double(1), double(2), func(t *testing.T, h hosts) {
			nft(t, h.a, `table ip6 f { chain i { type filter hook input priority 0; policy drop; icmpv6 type nd-neighbor-advert accept; }; }`)
		}, "inner_firewall", "the policy of nftables ip6 f i drops answers from fc00::2 to fc00::1", "inner_ipv6", "fc00::1 does not answer a ping from fc00::2: packets leave"},
		{"our own rules on the way out", double(1), double(2), func(t *testing.T, h hosts) {
			nft(t, h.a, `table ip f { chain o { type filter hook output priority 0; oifname "six0" ip daddr 10.0.0.0/8 drop; }; }`)
		}, "inner_firewall", "drops pings from 10.0.0.1 to 10.0.0.2 that leave through six0", "inner_ipv4", "the other end drops them"},
		{"our own rules, which nobody understands", double(1), double(2), func(t *testing.T, h hosts) {
			nft(t, h.a, `table ip f { chain i { type filter hook input priority 0; iifname "six0" meta length 1-1500 drop; }; }`)
		}, "inner_ipv4", "the answer arrives through six0, but this host's own rules drop it", "inner_ipv4", "the other end drops them"},
		{"a refusal", double(1), double(2), func(t *testing.T, h hosts) {
			nft(t, h.b, `table ip f { chain i { type filter hook input priority 0; iifname "six0" reject with icmp type admin-prohibited; }; }`)
		}, "inner_ipv4", "10.0.0.2 reports that a firewall forbids it", "inner_firewall", "drops answers"},
		{"the same address", double(1), double(2, `address = ["10.0.0.1/30", "fc00::2/64"]`), nil,
			"inner_ipv4", "both ends have the same address > on the peer, 203.0.113.20: set its address to 10.0.0.2",
			"inner_ipv4", "both ends have the same address"},
		{"the other end in 6in4", double(1), plain(outerB, outerA, 2), nil,
			"inner_ipv4", `does not accept IPv4 in IPv6: the peer runs another mode, or its local6 is not fc00::2 > on the peer, 203.0.113.20: mode = "4in6in4"`, "", ""},
		{"not exchanged", double(1), strings.NewReplacer("203.0.113.20", "198.51.100.10", "198.51.100.10", "203.0.113.20").Replace(double(1)), nil,
			"answer", "both ends have the same inner address, or local6 and remote6 are the wrong way round", "answer", "local6 and remote6 are the wrong way round"},
		{"a route that leads elsewhere", double(1), double(2), func(t *testing.T, h hosts) {
			must(t, h.a.AddRoute(netip.MustParsePrefix("10.0.0.2/32"), netip.MustParseAddr("198.51.100.1"), "va"))
		}, "inner_ipv4", "the route to the peer's inner address 10.0.0.2 leads through va, not six0", "inner_ipv4", "the other end drops them"},
		{"a host that answers no pings", double(1), double(2), func(t *testing.T, h hosts) {
			must(t, h.a.Sysctl("net/ipv4/icmp_echo_ignore_all", "1"))
		}, "", "", "inner_ipv4", "the other end drops them"},
		{"another address in the layer", double(1), strings.Replace(double(2), `local6 = "fc00::2"`, `local6 = "fc00::3"`, 1), nil,
			"inner_ipv4", "the peer runs another mode, or its local6 is not fc00::2", "inner_ipv4", ""},
		{"an MTU that somebody has changed", double(1), double(2), func(t *testing.T, h hosts) { must(t, h.a.SetMTU("six0", 1400)) },
			"interface", "the MTU of six0 is 1400, but the daemon set 1440: another program has changed it > ip link set six0 mtu 1440", "", ""},
		{"GRE keys", config("gre", outerA, outerB, `key = 7`, `address = ["10.0.0.1/30"]`), config("gre", outerB, outerA, `key = 8`, `address = ["10.0.0.2/30"]`), nil,
			"answer", "the GRE keys of the two ends are not the same", "answer", "the GRE keys of the two ends are not the same"},
		{"GRE sequence numbers at one end", config("gre", outerA, outerB, `sequence = true`, `address = ["10.0.0.1/30"]`), config("gre", outerB, outerA, `address = ["10.0.0.2/30"]`), nil,
			"inner_ipv4", "their GRE sequence numbers are missing, or old", "answer", ""},
		{"a peer whose interface is down", double(1), double(2), func(t *testing.T, h hosts) { must(t, h.b.LinkDown("six0")) },
			"answer", "through the tunnel", "interface", "interface six0 is down > ip link set six0 up"},
		{"new connections", double(1), double(2), func(t *testing.T, h hosts) {
			nft(t, h.a, `table inet f { chain i { type filter hook input priority 0; ct state established,related accept; iifname "six0" drop; }; }`)
		}, "", "", "answer", "packets arrive from 198.51.100.10, but it does not answer ours"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			a, b := start(t, h.a, test.a, nil).ready(t), start(t, h.b, test.b, nil).ready(t)
			if test.fault != nil {
				test.fault(t, h)
			}
			for _, end := range []struct {
				d        *daemon
				at, says string
			}{{a, test.atA, test.saysA}, {b, test.atB, test.saysB}} {
				r := end.d.consult(t, nil)
				if end.at == "" {
					fails(t, r)
					continue
				}
				ids := strings.Split(end.at, ",")
				fails(t, r, ids...)
				verdict(t, r, ids[0], finding.Fail, end.says)
			}
			if test.name == "new connections" {
				verdict(t, a.consult(t, nil), "inner_firewall", finding.Skip, "drops pings from 10.0.0.2 to 10.0.0.1 that arrive through six0; answers to this host's own pings are accepted > nft insert rule inet f i iifname six0 accept")
			}
			if test.name == "nothing" {
				unharmed(t, a, b)
			}
		})
	}
}

// unharmed checks that daemons have neither drops nor warnings.
func unharmed(t *testing.T, all ...*daemon) {
	t.Helper()
	for _, d := range all {
		if log := d.log.String(); strings.Contains(log, "dropped") {
			t.Errorf("the daemon in %s drops packets:\n%s", d.ns.Name(), log)
		}
	}
}

// Probes cause neither drops nor warnings at either end, in any mode, and whether the
// interface has the layer's address or the daemon answers for it.
func TestUnharmed(t *testing.T) {
	all := append(ends[:len(ends):len(ends)], struct{ name, a, b string }{"4in6in4 whose layer is the daemon's",
		double(1, `address = ["10.0.0.1/30"]`), double(2, `address = ["10.0.0.2/30"]`)})
	for _, test := range all {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			a, b := start(t, h.a, test.a, nil).ready(t), start(t, h.b, test.b, nil).ready(t)
			fails(t, a.consult(t, nil))
			fails(t, b.consult(t, nil))
			unharmed(t, a, b)
		})
	}
}

// A daemon that does not run is reported.
func TestStopped(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2), nil).ready(t)
	a := start(t, h.a, double(1), nil).ready(t)
	a.kill()
	r := a.consultWith(t, nil, "--socket", filepath.Join(t.TempDir(), "s"))
	verdict(t, r, "daemon", finding.Fail, "sixfourd is not running: nothing answers at")
	r = a.consult(t, nil)
	fails(t, r) // with a named file, doctor needs no daemon
	verdict(t, r, "daemon", finding.Skip, "sixfourd is not running: nothing answers at")
	verdict(t, r, "inner_ipv4", finding.Pass, "10.0.0.2 answers a ping from 10.0.0.1 (sent by this program itself)")
}

// If the peer is silent, another source of packets is named.
func TestMoved(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a := start(t, h.a, double(1), nil).ready(t)
	moved := netip.MustParsePrefix("203.0.113.21/24")
	must(t, h.b.AddAddr("vb", moved))
	start(t, h.b, strings.Replace(double(2), "203.0.113.20", "203.0.113.21", 1), nil).ready(t)
	a.says(t, "foreign_source")
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, `packets of protocol 41 come from 203.0.113.21, which is no peer's remote: has the peer's address changed?`)
	verdict(t, r, "answer", finding.Fail, `remote = "203.0.113.21" in [[tunnel]] six0`)
}

// The peer's packets arrive here, but ours do not arrive there.
func TestOneWay(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a, b := start(t, h.a, double(1), nil).ready(t), start(t, h.b, double(2), nil).ready(t)
	nft(t, h.r, `table ip f { chain c { type filter hook forward priority 0; ip saddr 198.51.100.10 ip protocol 41 drop; }; }`)
	b.says(t, "suspect")
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "packets arrive from 203.0.113.20, but it does not answer ours")
	fails(t, b.consult(t, nil), "answer")
	verdict(t, b.consult(t, nil), "answer", finding.Fail, "no answer comes back through the tunnel")
}

// If no host on the link has the peer's address, doctor does not claim that the peer sent
// an error.
func TestNobodyOnTheLink(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a := start(t, h.a, config("6in4", outerA, netip.MustParsePrefix("198.51.100.99/24"), `address = ["fc00::1/64"]`), nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "no host on the link of va answers ARP or neighbour discovery for 198.51.100.99")
}

// The rules for forwarded packets are evaluated as well.
func TestForwardFirewall(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1, `routes = ["2001:db8:77::/48"]`), nil).ready(t)
	lan := newNamespace(t, "lan")
	must(t, rig.Veth(h.a, "lan0", lan, "l", 1500))
	must(t, h.a.AddAddr("lan0", netip.MustParsePrefix("2001:db8:78::1/64")))
	must(t, h.a.Forward())
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "forward_firewall", finding.Pass, "between six0 and lan0")
	for _, test := range []struct {
		rules string
		want  finding.Verdict
		says  string
	}{
		{"policy drop;", finding.Fail, "the policy of nftables inet f c drops packets that this host forwards between six0 and lan0 (such as 2001:db8:77::1 and 2001:db8:78::2) > nft insert rule inet f c iifname six0 accept; nft insert rule inet f c oifname six0 accept"},
		{`policy drop; iifname "lan0" accept;`, finding.Fail, "drops packets that this host forwards"},
		{`policy drop; ct state established accept; iifname "lan0" accept;`, finding.Skip, "drops connections from the tunnel to lan0; connections into the tunnel are accepted"},
		{`policy drop; iifname "lan0" oifname "six0" accept; iifname "six0" oifname "lan0" accept;`, finding.Pass, ""},
		{`meta length > 1000 drop;`, finding.Skip, "depends on something that is unknown here"},
	} {
		nft(t, h.a, "add table inet f\ndelete table inet f\ntable inet f { chain c { type filter hook forward priority 0; "+test.rules+" }; }")
		verdict(t, a.consult(t, nil), "forward_firewall", test.want, test.says)
	}
}

// Two daemons with the same ends would each receive every packet.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2), nil).ready(t)
	a := start(t, h.a, double(1), nil).ready(t)
	second := start(t, h.a, strings.NewReplacer("six0", "six1", "10.0.0.1", "10.9.0.1", "fc00::1/64", "fc09::1/64").Replace(double(1)), nil).ready(t)
	r := a.consult(t, nil)
	verdict(t, r, "kernel_tunnel", finding.Fail, fmt.Sprintf("another sixfourd (process %d) has a tunnel with the same ends", second.cmd.Process.Pid))
}

// A daemon in another mount namespace, such as that of a container, has another file at
// the same path.
func TestTwoDaemonsInTwoMountNamespaces(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2), nil).ready(t)
	a := start(t, h.a, double(1), nil).ready(t)
	same := strings.NewReplacer("six0", "six1", "10.0.0.1", "10.9.0.1", "fc00::1/64", "fc09::1/64").Replace(double(1))
	apart := strings.ReplaceAll(same, outerB.Addr().String(), "203.0.113.21")
	for _, test := range []struct {
		what, here, there string
		want              finding.Verdict
	}{
		{"the file here has the same ends", same, apart, finding.Pass},
		{"the file there has the same ends", apart, same, finding.Fail},
	} {
		there := file(t, h.a, test.there)
		second := file(t, h.a, test.here)
		second.start(t, map[string]string{second.path: there.path}).ready(t)
		t.Log(test.what)
		verdict(t, a.consult(t, nil), "kernel_tunnel", test.want, "")
		second.kill()
	}
}

// With an invalid file, the daemon's socket is not known.
func TestBrokenFile(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a := start(t, h.a, double(1), nil).ready(t)
	must(t, os.WriteFile(a.path, []byte("x = [\n"), 0o600))
	r := a.consult(t, nil)
	fails(t, r, "config")
	verdict(t, r, "daemon", finding.Skip, "the configuration file, which names the control socket, has errors")
}

// Packets of the tunnel expire on the path because their TTL is too small: a router
// reports it.
func TestSmallTTL(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2), nil).ready(t)
	a := start(t, h.a, double(1)+"ttl = 1\n", nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "hop limit")
}
