package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/rig"
)

// pair returns the setting of most faults: a daemon in b, and only a configuration in a.
func pair(t *testing.T) (hosts, *daemon) {
	t.Helper()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	return h, file(t, h.a, plain(outerA, outerB, 1))
}

// Each fault makes only its own check fail; checks that cannot work because of it are
// skipped. There is no daemon on our side.
func TestFaults(t *testing.T) {
	const forward = "table inet f { chain c { type filter hook forward priority 0; %s; }; }"
	for _, test := range []struct {
		check string
		fault func(*testing.T, hosts)
		says  string
	}{
		{"firewall_out", func(t *testing.T, h hosts) {
			nft(t, h.a, "table inet f { chain o { type filter hook output priority 0; meta l4proto 41 drop; }; }")
		}, "nft insert rule inet f o ip daddr 203.0.113.20 meta l4proto 41 accept"},
		{"firewall_in", func(t *testing.T, h hosts) {
			nft(t, h.a, "table ip f { chain i { type filter hook input priority 0; policy drop; ip protocol icmp accept; }; }")
		}, "nft insert rule ip f i ip saddr 203.0.113.20 meta l4proto 41 accept"},
		{"address", func(t *testing.T, h hosts) {
			must(t, h.a.DelAddr("va", outerA))
			must(t, h.a.AddAddr("va", netip.MustParsePrefix("198.51.100.11/24")))
			must(t, h.a.AddRoute(all4, netip.MustParseAddr("198.51.100.1"), "va"))
		}, "no interface that is up has 198.51.100.10 > ip addr add 198.51.100.10/24 dev va"},
		{"route", func(t *testing.T, h hosts) {
			must(t, h.a.DelRoute(all4, netip.MustParseAddr("198.51.100.1"), "va"))
		}, "ip route add 203.0.113.20/32 via GATEWAY"},
		{"route", func(t *testing.T, h hosts) { must(t, h.r.LinkDown("ra")) }, "the route to 203.0.113.20 leads through va, which has no carrier"},
		{"answer", func(t *testing.T, h hosts) { must(t, h.b.LinkDown("vb")) }, "no answer comes back through the tunnel"},
		{"gro_list", func(t *testing.T, h hosts) { must(t, h.a.Feature("va", "rx-gro-list", true)) }, "rx-gro-list is on for va: small datagrams of one flow in a tunnel can arrive merged into one > ethtool -K va rx-gro-list off"},
		{"rp_filter", asymmetric, "sysctl -w net.ipv4.conf.va.rp_filter=2"},
		{"answer", func(t *testing.T, h hosts) {
			nft(t, h.r, fmt.Sprintf(forward, "ip protocol 41 drop"))
		}, "the host 203.0.113.20 answers pings"},
		{"full_size", func(t *testing.T, h hosts) {
			must(t, h.r.DropUnreachable())
			must(t, h.r.SetMTU("rb", 1400))
		}, "packets of 1500 bytes are lost without an ICMP error; packets of 1400 bytes arrive > mtu = 1380 in [[tunnel]] six0"},
		{"icmp", func(t *testing.T, h hosts) {
			nft(t, h.r, "table ip f { chain o { type filter hook output priority 0; icmp type time-exceeded drop; }; }")
		}, "the router on the path does not report that the hop limit is exceeded > accept ICMP errors"},
		{"icmp", func(t *testing.T, h hosts) {
			nft(t, h.a, "table inet f { chain i { type filter hook input priority 0; policy drop; meta l4proto 41 accept; iifname six0 accept; }; }")
		}, "the policy of nftables inet f i drops ICMP > nft insert rule inet f i icmp type { destination-unreachable"},
		{"fragments", func(t *testing.T, h hosts) {
			nft(t, h.r, fmt.Sprintf(forward, "ip frag-off & 0x3fff != 0 drop"))
		}, "a packet in two fragments does not arrive"},
		{"ecn", func(t *testing.T, h hosts) {
			nft(t, h.r, fmt.Sprintf(forward, "ip ecn set not-ect"))
		}, `marks do not reach the peer, or it does not copy them: a packet marked CE left the tunnel marked ECT(0) > find what changes the TOS`},
		{"ecn", func(t *testing.T, h hosts) {
			nft(t, h.r, fmt.Sprintf(forward, "ip ecn ce drop"))
		}, "packets marked CE are lost"},
		{"ecn", func(t *testing.T, h hosts) {
			nft(t, h.r, fmt.Sprintf(forward, "ip ecn ect0 ip ecn set ce"))
		}, "is marked CE on the path"},
		{"interface", func(t *testing.T, h hosts) { must(t, rig.Veth(h.a, "six0", h.a, "other", 1500)) }, "ip link delete six0"},
	} {
		t.Run(test.check, func(t *testing.T) {
			t.Parallel()
			h, a := pair(t)
			test.fault(t, h)
			r := a.consult(t, nil)
			fails(t, r, test.check)
			verdict(t, r, test.check, finding.Fail, test.says)
		})
	}
}

// asymmetric gives a a second link by which a sends to b, while b's packets still arrive
// by the first:
//
//	wa 198.51.101.10/24 ─── rw .1
func asymmetric(t *testing.T, h hosts) {
	must(t, rig.Veth(h.a, "wa", h.r, "rw", 1500))
	must(t, h.a.AddAddr("wa", netip.MustParsePrefix("198.51.101.10/24")))
	must(t, h.r.AddAddr("rw", netip.MustParsePrefix("198.51.101.1/24")))
	must(t, h.a.AddRoute(netip.MustParsePrefix("203.0.113.0/24"), netip.MustParseAddr("198.51.101.1"), "wa"))
	must(t, h.a.Sysctl("net/ipv4/conf/va/rp_filter", "1"))
}

// If routers report the MTU, everything works.
func TestNarrowPath(t *testing.T) {
	t.Parallel()
	h, a := pair(t)
	must(t, h.r.SetMTU("rb", 1400))
	must(t, h.b.SetMTU("vb", 1400))
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "full_size", finding.Pass, "packets of 1400 bytes arrive: the path MTU (as router 198.51.100.1 reported)")
}

// A daemon that has found an MTU by probes, without routers' reports, is right.
func TestBlackHoleIsKnown(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	must(t, h.r.DropUnreachable())
	must(t, h.r.SetMTU("rb", 1400))
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	a.says(t, `"path_mtu": 1400`)
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "full_size", finding.Pass, "packets of 1400 bytes arrive: the path MTU that the daemon found")
}

func TestDeadPeer(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "203.0.113.20 reports that it has no tunnel with these addresses (about a packet of the tunnel)")
	for _, id := range []string{"full_size", "fragments", "ecn"} {
		verdict(t, r, id, finding.Skip, "the peer does not answer")
	}
	must(t, h.b.LinkDown("vb"))
	verdict(t, a.consult(t, nil), "answer", finding.Fail, "198.51.100.1 reports that the host is unreachable (about a packet of the tunnel)")
}

// The route to the peer leads into the tunnel.
func TestLoop(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	must(t, h.a.AddRoute(netip.PrefixFrom(outerB.Addr(), 32), netip.Addr{}, "six0"))
	a.says(t, "waiting")
	r := a.consult(t, nil)
	fails(t, r, "route")
	verdict(t, r, "route", finding.Fail, "the tunnel itself > ip route add 203.0.113.20/32 via GATEWAY dev va")
}

// Both ends are link-local addresses with zones.
func TestLinkLocalEnds(t *testing.T) {
	a, b := newNamespace(t, "a"), newNamespace(t, "b")
	must(t, rig.Veth(a, "va", b, "vb", 1500))
	must(t, a.AddAddr("va", netip.MustParsePrefix("fe80::1/64")))
	must(t, b.AddAddr("vb", netip.MustParsePrefix("fe80::2/64")))
	end := func(local, remote string, self int) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"gre6\"\nlocal = %q\nremote = %q\naddress = [\"10.0.0.%d/30\"]\n", local, remote, self)
	}
	start(t, b, end("fe80::2%vb", "fe80::1%vb", 2), nil).ready(t)
	for _, local := range []string{"fe80::1%va", "auto"} {
		d := start(t, a, end(local, "fe80::2%va", 1), nil).ready(t)
		r := d.consult(t, nil)
		fails(t, r)
		verdict(t, r, "address", finding.Pass, "va")
		verdict(t, r, "route", finding.Pass, "on the link of va")
		verdict(t, r, "answer", finding.Pass, "")
		must(t, d.cmd.Process.Signal(syscall.SIGTERM))
		_, _ = d.cmd.Process.Wait()
	}
}

// The peer's address becomes an address of this host.
func TestRemoteIsOurs(t *testing.T) {
	h := newHosts(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	must(t, h.a.AddAddr("lo", netip.PrefixFrom(outerB.Addr(), 32)))
	a.says(t, "is an address of this host itself")
	r := a.consult(t, nil)
	verdict(t, r, "route", finding.Fail, "203.0.113.20 is an address of this host itself > set remote to the other host's address")
}

// The local address of a running daemon is removed.
func TestAddressChanged(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	must(t, h.a.DelAddr("va", outerA))
	a.says(t, "waiting")
	r := a.consult(t, nil)
	fails(t, r, "address")
	verdict(t, r, "state", finding.Skip, "the daemon waits, and the check address fails")
}

// A daemon that hangs is not reported as missing.
func TestHungDaemon(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	r := a.consult(t, nil)
	fails(t, r, "daemon")
	verdict(t, r, "daemon", finding.Fail, "systemctl restart sixfourd")
	verdict(t, r, "answer", finding.Pass, "")
}

func TestNames(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	names, err := h.a.ServeNames()
	must(t, err)
	defer names.Close()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(resolv, []byte(rig.Resolv), 0o644))
	files := map[string]string{"/etc/resolv.conf": resolv}

	const cfg = "[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"auto\"\nremote = \"b.example\"\naddress = [\"fc00::1/64\"]\n"
	a := file(t, h.a, cfg)
	r := a.consult(t, files)
	fails(t, r, "name")
	verdict(t, r, "name", finding.Fail, "b.example does not resolve to an IPv4 address")
	verdict(t, r, "answer", finding.Skip, "not known")

	names.Set("b.example", outerB.Addr())
	r = a.consult(t, files)
	fails(t, r)
	verdict(t, r, "name", finding.Pass, "b.example resolves to 203.0.113.20")
	verdict(t, r, "address", finding.Pass, `"auto" is 198.51.100.10`)

	a = start(t, h.a, cfg, files).ready(t)
	fails(t, a.consult(t, files))
	names.Set("b.example", netip.MustParseAddr("203.0.113.21"))
	r = a.consult(t, files)
	fails(t, r, "name")
	verdict(t, r, "name", finding.Fail, "b.example resolves to 203.0.113.21, but the daemon sends to 203.0.113.20")
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1, `routes = ["2001:db8:77::/48"]`), nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "forwarding", finding.Skip, "no other network")

	lan := newNamespace(t, "lan")
	must(t, rig.Veth(h.a, "lan0", lan, "l", 1500))
	must(t, h.a.AddAddr("lan0", netip.MustParsePrefix("2001:db8:78::1/64")))
	r = a.consult(t, nil)
	fails(t, r, "forwarding")
	verdict(t, r, "forwarding", finding.Fail, "packets from lan0 are not forwarded into the tunnel, nor back > sysctl -w net.ipv6.conf.all.forwarding=1")
	must(t, h.a.Forward())
	verdict(t, a.consult(t, nil), "forwarding", finding.Pass, "")
}

// hub returns a tunnel with many peers, of which one exists.
func hub(n int) string {
	cfg := fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"%v\"\naddress = [\"10.0.0.1/24\"]\nroutes = []\n", outerA.Addr())
	for i := range n {
		remote, inner := netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}), i+100
		if i == 0 {
			remote, inner = outerB.Addr(), 2
		}
		cfg += fmt.Sprintf("[[tunnel.peer]]\nname = \"p%d\"\nremote = \"%v\"\nallowed = [\"10.0.0.%d/32\", \"10.%d.0.0/16\"]\n", i, remote, inner, i+1)
	}
	return cfg
}

func TestHub(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, config("4in4", outerB, outerA, `address = ["10.0.0.2/24"]`, `routes = ["10.0.0.0/16"]`), nil).ready(t)
	a := start(t, h.a, hub(25), nil).ready(t)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.1.0.0/16"), netip.Addr{}, "six0"))
	r := a.consult(t, nil, "six0/p0")
	fails(t, r)
	verdict(t, r, "answer", finding.Pass, "10.0.0.2 answers")

	must(t, h.a.Sysctl("net/ipv4/conf/six0/rp_filter", "1"))
	r = a.consult(t, nil, "six0/p0")
	fails(t, r, "inner_rp_filter")
	verdict(t, r, "inner_rp_filter", finding.Fail, "drops packets from 10.2.0.0/16, which peer p1 may send")

	r = a.consult(t, nil)
	if r.Unseen != 25-subject.MaxPeers {
		t.Errorf("%d peers unseen", r.Unseen)
	}
	answers := 0
	for _, c := range r.Checks {
		if c.Check == "answer" {
			answers++
		}
	}
	if answers != subject.MaxPeers {
		t.Errorf("%d peers were asked", answers)
	}
}

// Another user can check less, gets a notice, and no check fails because of it.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	_, a := pair(t)
	r := a.consultAs(t, 65534)
	fails(t, r)
	verdict(t, r, "config", finding.Skip, "may not be read by this user > sudo sixfourctl doctor")
	must(t, os.Chmod(a.path, 0o644))
	must(t, os.Chmod(filepath.Dir(a.path), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(a.path)), 0o755))
	r = a.consultAs(t, 65534)
	fails(t, r)
	verdict(t, r, "capabilities", finding.Skip, "sudo sixfourctl doctor")
	verdict(t, r, "answer", finding.Skip, "sudo sixfourctl doctor")
	verdict(t, r, "firewall_in", finding.Skip, "sudo sixfourctl doctor")
	verdict(t, r, "route", finding.Pass, "through va via 198.51.100.1")
}

// A notice is given if the daemon is in another namespace.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	h, _ := pair(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	a.ns = h.r
	r := a.consult(t, nil)
	verdict(t, r, "daemon", finding.Fail, fmt.Sprintf("nsenter --net=/proc/%d/task/", a.cmd.Process.Pid))
}

// The file with which the daemon was started is found, and changes in it are reported.
func TestChangedFile(t *testing.T) {
	t.Parallel()
	h, _ := pair(t)
	a := start(t, h.a, plain(outerA, outerB, 1), nil).ready(t)
	socket := filepath.Join(filepath.Dir(a.path), "control.sock")
	r := a.consultWith(t, nil, "--socket", socket)
	fails(t, r)
	verdict(t, r, "config", finding.Pass, a.path+" has the same 1 tunnel as the daemon")

	text, err := os.ReadFile(a.path)
	must(t, err)
	must(t, os.WriteFile(a.path, append(text, strings.NewReplacer("six0", "six1", "203.0.113.20", "203.0.113.21", "fc00::1/64", "fc01::1/64").Replace(plain(outerA, outerB, 1))...), 0o600))
	r = a.consultWith(t, nil, "--socket", socket, "six0")
	fails(t, r, "config")
	verdict(t, r, "config", finding.Fail, "tunnel six1 is in "+a.path+", but the daemon does not run it > sixfourctl reload")

	must(t, os.WriteFile(a.path, []byte("[[tunnel]]\nmode = \"none\"\n"), 0o600))
	r = a.consultWith(t, nil, "--socket", socket)
	fails(t, r, "config")
	verdict(t, r, "answer", finding.Pass, "")

	must(t, os.Remove(a.path))
	r = a.consultWith(t, nil, "--socket", socket)
	fails(t, r)
	verdict(t, r, "config", finding.Skip, "name its configuration file with --config")
	verdict(t, r, "answer", finding.Pass, "")
}

// The tunnel's interface is in a namespace of its own.
func TestNetns(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	inner := newNamespace(t, "inner")
	start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1, fmt.Sprintf("netns = %q", inner.Path()), `routes = ["2001:db8:77::/48"]`), nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "interface", finding.Pass, "six0 is up")
	verdict(t, r, "answer", finding.Pass, "")
	lan := newNamespace(t, "lan")
	must(t, rig.Veth(inner, "lan0", lan, "l", 1500))
	must(t, inner.AddAddr("lan0", netip.MustParsePrefix("2001:db8:78::1/64")))
	r = a.consult(t, nil)
	fails(t, r, "forwarding")
	verdict(t, r, "forwarding", finding.Fail, fmt.Sprintf("nsenter --net=%s sysctl -w net.ipv6.conf.all.forwarding=1", inner.Path()))

	gone := file(t, h.a, plain(outerA, outerB, 1, `netns = "no-such-namespace"`))
	verdict(t, gone.consult(t, nil), "interface", finding.Fail, "ip netns add no-such-namespace")
}

// A connection tracking entry is sufficient for answers, but the peer cannot send first.
func TestStateful(t *testing.T) {
	t.Parallel()
	h, a := pair(t)
	nft(t, h.a, "table inet f { chain i { type filter hook input priority 0; policy drop; ct state established,related accept; }; }")
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "firewall_in", finding.Pass, "only for up to 10 minutes after a packet in the other direction (connection tracking); otherwise the policy of nftables inet f i drops it > nft insert rule")
}

// A rule that cannot be interpreted does not count if the peer answers, and is named.
func TestUnknownRule(t *testing.T) {
	t.Parallel()
	h, a := pair(t)
	nft(t, h.a, "table inet f { chain i { type filter hook input priority 0; meta l4proto 41 limit rate over 1000/second drop; }; }")
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "firewall_in", finding.Skip, "> nft -a list chain inet f i")
}

// The node with the name of the TUN device is something else.
func TestNoTun(t *testing.T) {
	t.Parallel()
	_, a := pair(t)
	fails(t, a.consult(t, map[string]string{"/dev/net/tun": "/dev/null"}), "tun")
}
