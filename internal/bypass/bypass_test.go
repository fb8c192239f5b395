package bypass_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/internal/bypass"
	"sixfour/internal/rig"
)

// host is a namespace with the device eth0, whose index is device.
type host struct {
	*rig.Namespace
	t      *testing.T
	device int
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t}
	var err error
	if h.Namespace, err = rig.New(t.Name()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	h.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	if err := h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			h.device = link.Attrs().Index
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) run(args ...string) {
	h.t.Helper()
	h.feed("", args...)
}

// feed runs a command with an input.
func (h *host) feed(in string, args ...string) {
	h.t.Helper()
	var said rig.Log
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(in), &said
	if err := h.Start(cmd); err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		h.t.Fatalf("%v: %v: %s", args, err, said.String())
	}
}

func (h *host) watch() *bypass.Watch {
	h.t.Helper()
	var w *bypass.Watch
	if err := h.Do(func() (err error) {
		w, err = bypass.NewPolling(100 * time.Millisecond)
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(w.Close)
	return w
}

// flow is protocol 41 between two addresses, or protocol 4 if they are of IPv6.
func (h *host) flow(local, remote string) bypass.Flow {
	f := bypass.Flow{Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote), Protocol: 41, Device: h.device}
	if f.Local.Is6() {
		f.Protocol = 4
	}
	return f
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if (got == "") != (want == "") || !strings.Contains(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The rules of nftables that have an effect, and those that do not.
func TestNftables(t *testing.T) {
	t.Parallel()
	const in, out = "chain c { type filter hook input priority 0; ", "chain c { type filter hook output priority 0; "
	h := newHost(t)
	w := h.watch()
	for _, test := range []struct{ rules, want string }{
		{"counter n { }", ""},
		{in + "ip protocol 41 drop; }", "handle 2 of table inet f, chain c, may drop protocol 41 between 203.0.113.10 and 203.0.113.20"},
		{out + "ip protocol 41 counter accept; }", ""},
		{out + "ip daddr 198.51.100.1 drop; tcp dport 25 reject; }", ""},
		{out + "ip length > 1000 drop; }", "may drop"},
		{out + "meta mark 5 drop; }", ""},
		{out + "meta mark set 5; }", "may change"},
		{in + "policy drop; ip saddr 203.0.113.20 ip protocol 41 accept; }", ""},
		{in + "policy drop; ct state established,related accept; }", "the policy of table inet f, chain c"},
		{in + "policy drop; ct state established,related accept; ip protocol 41 accept; }", ""},
		{in + `log prefix "x"; }`, "may log"},
		{in + "limit rate 5/second drop; }", "may drop"},
		{"counter n { }; " + in + "counter name n; }", "may record"},
		{"set s { type ipv4_addr; flags dynamic; size 10; }; " + in + "add @s { ip saddr }; }", "may record"},
		{"chain c { type filter hook prerouting priority raw; notrack; }", "connection tracking"},
		{"chain c { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }", "may translate"},
		{`chain c { type nat hook postrouting priority srcnat; iifname "six0" oifname eth0 masquerade; }`, ""},
		{"chain c { type filter hook forward priority 0; policy drop; }", ""},
		{"chain d { ip protocol 41 drop; }; " + in + "iifname eth0 jump d; }", "chain d, may drop"},
		{"chain d { ip protocol 41 drop; }; " + in + "iifname eth7 jump d; }", ""},
	} {
		h.feed("flush ruleset\ntable inet f { "+test.rules+"; }\n", "nft", "-f", "-")
		t.Log(test.rules)
		check(t, whyNow(t, w, h.flow("203.0.113.10", "203.0.113.20"), test.want), test.want)
	}
	h.feed("flush ruleset\ntable netdev f { chain c { type filter hook egress device eth0 priority 0; ip protocol 41 drop; }; }", "nft", "-f", "-")
	check(t, whyNow(t, w, h.flow("203.0.113.10", "203.0.113.20"), "netdev f"), "netdev f")
	h.feed("flush ruleset\ntable inet f { "+out+" udp sport 4000 udp dport 5000 drop; }; }", "nft", "-f", "-")
	udp := h.flow("203.0.113.10", "203.0.113.20")
	udp.Protocol, udp.LocalPort, udp.RemotePort = 17, 4000, 5000
	check(t, whyNow(t, w, udp, "may drop UDP between port 4000"), "may drop UDP between port 4000 and 203.0.113.20:5000")
	udp.RemotePort = 5001
	check(t, w.Why(udp), "")
}

// whyNow returns the answer about a flow. It is asked again while changes are announced, until it
// is as wanted.
func whyNow(t *testing.T, w *bypass.Watch, f bypass.Flow, want string) (got string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		if got = w.Why(f); (got == "") == (want == "") && strings.Contains(got, want) {
			return got
		}
		select {
		case <-w.Changed():
		case <-limit:
			return got
		}
	}
}

// The rules of iptables before nftables, which are there although the list of tables was empty
// when the Watch was made.
func TestLegacy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		command string
		rules   string
		want    string
	}{
		{"iptables-legacy", "-P INPUT ACCEPT", ""},
		{"iptables-legacy", "-A INPUT -p 41 -j DROP", "iptables-legacy: table filter, rule 1 of chain INPUT may drop protocol 41"},
		{"iptables-legacy", "-A INPUT -p 41 ! -s 203.0.113.20 -j DROP", ""},
		{"iptables-legacy", "-A INPUT ! -p 41 -j DROP", ""},
		{"iptables-legacy", "-A INPUT -s 203.0.112.0/22 -i eth+ -j DROP", "may drop"},
		{"iptables-legacy", "-A INPUT -i wan0 -j DROP", ""},
		{"iptables-legacy", "-A OUTPUT -d 203.0.113.20 -m length --length 1000: -j REJECT", "rule 1 of chain OUTPUT (REJECT) may affect"},
		{"iptables-legacy", "-A FORWARD -j DROP", ""},
		{"iptables-legacy", "-P OUTPUT DROP", "the policy of chain OUTPUT may drop"},
		{"iptables-legacy", "-P OUTPUT DROP/-A OUTPUT -p 41 -j ACCEPT", ""},
		{"iptables-legacy", "-P OUTPUT DROP/-A OUTPUT -p 41 -m length --length 1000: -j ACCEPT", "the policy of chain OUTPUT"},
		{"iptables-legacy", "-N other/-A other -j RETURN/-A INPUT -j other", ""},
		{"iptables-legacy", "-N other/-A other -p 41 -j DROP/-A INPUT -j other", "rule 1 of chain another chain may drop"},
		{"iptables-legacy", "-t nat -A POSTROUTING -o eth0 -j MASQUERADE", "table nat, rule 1 of chain POSTROUTING (MASQUERADE)"},
		{"ip6tables-legacy", "-A INPUT -p 4 -j DROP", "ip6tables-legacy: table filter, rule 1 of chain INPUT may drop protocol 4"},
		{"ip6tables-legacy", "-A INPUT -p 41 -j DROP", ""},
		{"ip6tables-legacy", "-A OUTPUT -d 2001:db8::/32 -o eth0 -j DROP", "may drop"},
		{"ip6tables-legacy", "-A OUTPUT -d 2001:db9::/32 -o eth0 -j DROP", ""},
	} {
		t.Run(test.rules, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			w := h.watch()
			for args := range strings.SplitSeq(test.rules, "/-") {
				args = strings.TrimPrefix(args, "-")
				h.run(append([]string{test.command}, strings.Fields("-"+args)...)...)
			}
			f := h.flow("203.0.113.10", "203.0.113.20")
			if test.command == "ip6tables-legacy" {
				f = h.flow("2001:db8::10", "2001:db8::20")
			}
			check(t, w.Why(f), test.want)
		})
	}
}

// Tables of iptables are found again while nothing says that they have changed.
func TestLegacyChanges(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.watch()
	f := h.flow("203.0.113.10", "203.0.113.20")
	check(t, w.Why(f), "")
	h.run("iptables-legacy", "-A", "INPUT", "-p", "41", "-j", "DROP")
	check(t, whyNow(t, w, f, "may drop"), "may drop")
	h.run("iptables-legacy", "-F")
	check(t, whyNow(t, w, f, ""), "")
}

// Filters for what arrives at the device, and those of another one.
func TestTrafficControl(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.watch()
	f := h.flow("203.0.113.10", "203.0.113.20")
	check(t, w.Why(f), "")
	h.run("tc", "qdisc", "add", "dev", "eth1", "clsact")
	h.run("tc", "filter", "add", "dev", "eth1", "ingress", "bpf", "bytecode", "1,6 0 0 0,")
	h.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
	check(t, whyNow(t, w, f, ""), "")
	h.run("tc", "filter", "add", "dev", "eth0", "ingress", "bpf", "bytecode", "1,6 0 0 0,")
	check(t, whyNow(t, w, f, "tc: eth0"), "tc: eth0 has filters for packets that arrive")
	h.run("ip", "link", "del", "eth0")
	check(t, whyNow(t, w, f, "not known"), "is not known")
}
