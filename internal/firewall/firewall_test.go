package firewall

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"sixfour/internal/rig"
)

var (
	ours    = netip.MustParseAddr("203.0.113.10")
	theirs  = netip.MustParseAddr("203.0.113.20")
	far     = netip.MustParseAddr("192.0.2.9")
	ours6   = netip.MustParseAddr("2001:db8::10")
	theirs6 = netip.MustParseAddr("2001:db8::20")
)

func in(p byte) Packet {
	return Packet{Hook: Input, Source: theirs, Destination: ours, Protocol: p, Device: "eth0", Index: 7}
}
func out(p byte) Packet {
	return Packet{Hook: Output, Source: ours, Destination: theirs, Protocol: p, Device: "eth0", Index: 7}
}
func in6(p byte) Packet {
	return Packet{Hook: Input, Source: theirs6, Destination: ours6, Protocol: p, Device: "eth0", Index: 7}
}
func through(p byte) Packet {
	return Packet{Hook: Forward, Source: theirs, Destination: far, Protocol: p, Device: "eth0", Index: 7, To: "six0", ToIndex: 8}
}
func ping(p Packet, typ byte) Packet {
	p.Protocol, p.Payload = 1, []byte{typ, 0}
	return p
}
func answer(p Packet) Packet { p.Answer = true; return p }
func mark(p Packet, m uint32) Packet {
	p.Mark = m
	return p
}

// TestJudge uses rules made by the nft command, each in a namespace of its own.
func TestJudge(t *testing.T) {
	const input, output = "type filter hook input priority 0;", "type filter hook output priority 0;"
	for _, test := range []struct {
		name, rules string
		packet      Packet
		want        Verdict
		chain       string // of the place
	}{
		{"no rules", "", in(41), Pass, ""},
		{"protocol", "table inet f { chain i { " + input + " meta l4proto 41 drop; }; }", in(41), Drop, "i"},
		{"another protocol", "table inet f { chain i { " + input + " meta l4proto 41 drop; }; }", in(47), Pass, ""},
		{"another hook", "table inet f { chain i { " + input + " meta l4proto 41 drop; }; }", out(41), Pass, ""},
		{"protocol in the header", "table ip f { chain o { " + output + " ip protocol 41 drop; }; }", out(41), Drop, "o"},
		{"another family", "table ip6 f { chain i { " + input + " drop; }; }", in(41), Pass, ""},
		{"next header", "table ip6 f { chain i { " + input + " ip6 nexthdr 4 reject; }; }", in6(4), Drop, "i"},
		{"a set of protocols", "table inet f { chain i { " + input + " meta l4proto { 4, 41, 47 } drop; }; }", in(47), Drop, "i"},
		{"not in a set", "table inet f { chain i { " + input + " meta l4proto != { tcp, udp, icmp } reject; }; }", in(41), Drop, "i"},
		{"policy", "table inet f { chain i { " + input + " policy drop; tcp dport 22 accept; }; }", in(41), Drop, "i"},
		{"policy with a way out", "table inet f { chain i { " + input + " policy drop; ip saddr 203.0.113.0/24 ip protocol 41 accept; }; }", in(41), Pass, ""},
		{"a way out for others", "table inet f { chain i { " + input + " policy drop; ip saddr 198.51.100.0/24 ip protocol 41 accept; }; }", in(41), Drop, "i"},
		{"a set of networks", "table inet f { set n { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.16-203.0.113.31 }; }; chain i { " + input + " policy drop; ip saddr @n accept; }; }", in(41), Pass, ""},
		{"between the networks", "table inet f { set n { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.32-203.0.113.47 }; }; chain i { " + input + " policy drop; ip saddr @n accept; }; }", in(41), Drop, "i"},
		{"adjacent networks", "table inet f { chain i { " + input + " ip saddr vmap { 203.0.113.0/28 : accept, 203.0.113.16/28 : drop, 203.0.113.32/27 : accept }; }; }", in(41), Drop, "i"},
		{"up to the last address", "table inet f { chain i { " + input + " ip saddr vmap { 128.0.0.0/1 : drop }; }; }", in(41), Drop, "i"},
		{"all others", "table inet f { chain i { " + input + " ip saddr vmap { 198.51.100.0/24 : accept, * : drop }; }; }", in(41), Drop, "i"},
		{"not all others", "table inet f { chain i { " + input + " ip saddr vmap { 203.0.113.0/24 : accept, * : drop }; }; }", in(41), Pass, ""},
		{"concatenated ranges", "table inet f { set n { type ipv4_addr . inet_proto; flags interval; elements = { 203.0.113.16-203.0.113.31 . 40-42, 10.0.0.0/8 . 47 }; }; chain i { " + input + " policy drop; ip saddr . meta l4proto @n accept; }; }", in(41), Pass, ""},
		{"outside the concatenated ranges", "table inet f { set n { type ipv4_addr . inet_proto; flags interval; elements = { 203.0.113.16-203.0.113.31 . 40-42, 10.0.0.0/8 . 47 }; }; chain i { " + input + " policy drop; ip saddr . meta l4proto @n accept; }; }", in(47), Drop, "i"},
		{"an unknown field of a set", "table inet f { chain i { " + input + " ip saddr . ip ttl { 203.0.113.20 . 64 } drop; }; }", in(41), Depends, "i"},
		{"concatenation", "table inet f { chain i { " + input + " policy drop; ip saddr . meta l4proto { 203.0.113.20 . 41 } accept; }; }", in(41), Pass, ""},
		{"concatenation with a network", "table inet f { set n { type ipv4_addr . inet_proto; flags interval; elements = { 203.0.113.0/24 . 41 }; }; chain i { " + input + " policy drop; ip saddr . meta l4proto @n accept; }; }", in(41), Pass, ""},
		{"verdict map", "table inet f { chain i { " + input + " meta l4proto vmap { tcp : accept, 41 : drop }; }; }", in(41), Drop, "i"},
		{"verdict map that jumps", "table inet f { chain t { ip saddr 203.0.113.20 drop; }; chain i { " + input + " meta l4proto vmap { 41 : jump t }; }; }", in(41), Drop, "t"},
		{"new", "table inet f { chain i { " + input + " policy drop; ct state established,related accept; }; }", in(41), Drop, "i"},
		{"established", "table inet f { chain i { " + input + " policy drop; ct state established,related accept; }; }", answer(in(41)), Pass, ""},
		{"verdict map of states", "table inet f { chain i { " + input + " policy drop; ct state vmap { established : accept, invalid : drop }; }; }", answer(in(41)), Pass, ""},
		{"new connections of a map", "table inet f { chain i { " + input + " ct state vmap { established : accept, new : drop }; }; }", in(41), Drop, "i"},
		{"jump and return", "table inet f { chain t { meta l4proto 41 return; drop; }; chain i { " + input + " jump t; }; }", in(41), Pass, ""},
		{"jump to a drop", "table inet f { chain t { meta l4proto 41 drop; }; chain i { " + input + " jump t; accept; }; }", in(41), Drop, "t"},
		{"goto does not come back", "table inet f { chain t { meta l4proto 47 accept; }; chain i { " + input + " policy drop; goto t; accept; }; }", in(41), Drop, "i"},
		{"device", "table inet f { chain i { " + input + ` policy drop; iifname "eth0" accept; }; }`, in(41), Pass, ""},
		{"another device", "table inet f { chain i { " + input + ` policy drop; iifname "lo" accept; }; }`, in(41), Drop, "i"},
		{"devices", "table inet f { chain i { " + input + ` policy drop; iifname "eth*" accept; }; }`, in(41), Pass, ""},
		{"two base chains", "table inet f { chain i { " + input + " accept; }; }; table ip g { chain i { type filter hook input priority 10; ip protocol 41 drop; }; }", in(41), Drop, "i"},
		{"raw table", "table ip raw { chain p { type filter hook prerouting priority -300; ip protocol 47 drop; }; }", in(47), Drop, "p"},
		{"limit", "table inet f { chain i { " + input + " limit rate 5/second accept; drop; }; }", in(41), Depends, "i"},
		{"only some", "table inet f { chain i { " + input + " ip ttl < 5 drop; }; }", in(41), Depends, "i"},
		{"fragments", "table inet f { chain i { " + input + " ip frag-off & 0x1fff != 0 drop; }; }", in(41), Pass, ""},
		{"marks", "table inet f { chain o { " + output + " meta mark 7 accept; meta l4proto 41 drop; }; }", mark(out(41), 7), Pass, ""},
		{"no mark", "table inet f { chain o { " + output + " meta mark 7 accept; meta l4proto 41 drop; }; }", out(41), Drop, "o"},
		{"a mark that was set", "table inet f { chain o { " + output + " meta mark set meta mark or 8; meta mark 8 drop; }; }", out(41), Depends, "o"},
		{"a mark for what is accepted", "table inet f { chain i { " + input + " policy drop; ip protocol 41 meta mark set 5 accept; }; }", in(41), Pass, ""},
		{"a mark by a map", "table inet f { chain i { " + input + " policy drop; meta mark set ip saddr map { 203.0.113.20 : 5 }; meta mark 5 accept; }; }", in(41), Depends, "i"},
		{"not in a range", "table inet f { chain i { " + input + " ip saddr != 203.0.113.1-203.0.113.19 ip protocol 41 drop; }; }", in(41), Drop, "i"},
		{"not tracked", "table inet f { chain p { type filter hook prerouting priority -300; ip protocol 41 notrack; }; chain i { " + input + " policy drop; ct state established accept; }; }", answer(in(41)), Depends, "i"},
		{"reverse path", "table inet f { chain p { type filter hook prerouting priority -300; fib saddr . iif oif missing drop; }; }", in(41), Pass, ""},
		{"local destinations", "table inet f { chain i { " + input + " fib daddr type local accept; drop; }; }", in(41), Pass, ""},
		{"a device's ingress", `table netdev f { chain i { type filter hook ingress device "lo" priority 0; ip protocol 41 drop; }; }`, in(41), Depends, "i"},
		{"source route checks of IPv6", "table inet f { chain i { " + input + " rt type 0 drop; }; }", in6(41), Depends, "i"},
		{"nat", "table ip n { chain p { type nat hook postrouting priority 100; ip protocol 41 masquerade; }; }", out(41), Pass, ""},
		{"counted and logged", "table inet f { chain i { " + input + " ip protocol 41 counter log prefix \"x\" drop; }; }", in(41), Drop, "i"},
		{"comparison", "table inet f { chain i { " + input + " meta l4proto 40-48 drop; }; }", in(41), Drop, "i"},
		{"forward", "table inet f { chain c { type filter hook forward priority 0; policy drop; }; }", through(6), Drop, "c"},
		{"forward is not input", "table inet f { chain i { " + input + " drop; }; chain o { " + output + " drop; }; }", through(6), Pass, ""},
		{"input is not forward", "table inet f { chain c { type filter hook forward priority 0; drop; }; }", in(6), Pass, ""},
		{"forward by devices", `table inet f { chain c { type filter hook forward priority 0; policy drop; iifname "eth0" oifname "six0" accept; }; }`, through(6), Pass, ""},
		{"forward by other devices", `table inet f { chain c { type filter hook forward priority 0; policy drop; iifname "six0" oifname "eth0" accept; }; }`, through(6), Drop, "c"},
		{"no device to leave by yet", `table inet f { chain p { type filter hook prerouting priority 0; oifname "six0" drop; }; }`, through(6), Pass, ""},
		{"forward on the way out", `table inet f { chain p { type filter hook postrouting priority 0; oifname "six0" drop; }; }`, through(6), Drop, "p"},
		{"nobody's address here", "table inet f { chain p { type filter hook prerouting priority 0; fib daddr type != local drop; }; }", through(6), Drop, "p"},
		{"pings", "table inet f { chain i { " + input + " policy drop; icmp type echo-request accept; }; }", ping(in(1), 8), Pass, ""},
		{"answers to pings", "table inet f { chain i { " + input + " policy drop; icmp type echo-request accept; }; }", ping(in(1), 0), Drop, "i"},
		{"an unknown type", "table inet f { chain i { " + input + " policy drop; icmp type echo-request accept; }; }", in(1), Depends, "i"},
		{"ports of others", "table inet f { chain i { " + input + " tcp dport 1-65535 drop; udp dport 53 drop; }; }", in(41), Pass, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			nft(t, ns, test.rules)
			got := judge(t, ns, test.packet)
			if got.Verdict != test.want || got.Chain != test.chain {
				t.Errorf("%v at %+v, want %v in chain %q", got.Verdict, got.Place, test.want, test.chain)
			}
		})
	}
}

func namespace(t *testing.T) *rig.Namespace {
	t.Helper()
	ns, err := rig.New(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

func nft(t *testing.T, ns *rig.Namespace, rules string) {
	t.Helper()
	var said rig.Log
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(rules), &said
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v: %s", err, said.String())
	}
}

func judge(t *testing.T, ns *rig.Namespace, p Packet) (j Judgement) {
	t.Helper()
	if err := ns.Do(func() error {
		rules, err := Read()
		if err == nil {
			j = rules.Judge(p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestIPTables(t *testing.T) {
	for _, test := range []struct {
		name string
		args [][]string
		p    Packet
		want Verdict
	}{
		{"drop", [][]string{{"-A", "INPUT", "-p", "41", "-j", "DROP"}}, in(41), Drop},
		{"reject", [][]string{{"-A", "INPUT", "-p", "41", "-j", "REJECT"}}, in(41), Drop},
		{"policy", [][]string{{"-P", "INPUT", "DROP"}, {"-A", "INPUT", "-p", "41", "-s", "203.0.113.20", "-j", "ACCEPT"}}, in(41), Pass},
		{"states", [][]string{{"-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"}, {"-P", "INPUT", "DROP"}}, answer(in(41)), Pass},
		{"length", [][]string{{"-A", "INPUT", "-p", "41", "-m", "length", "--length", "1000:", "-j", "DROP"}}, in(41), Depends},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			for _, args := range test.args {
				var said rig.Log
				cmd := exec.Command("iptables-nft", args...)
				cmd.Stderr = &said
				if err := ns.Start(cmd); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err != nil {
					t.Fatalf("iptables-nft %v: %v: %s", args, err, said.String())
				}
			}
			if got := judge(t, ns, test.p); got.Verdict != test.want {
				t.Errorf("%v at %+v, want %v", got.Verdict, got.Place, test.want)
			}
		})
	}
}

// FuzzRule: rules with any bytes can be evaluated.
func FuzzRule(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0})
	// An immediate that is a verdict without data: linux/netfilter/nf_tables.h.
	f.Add([]byte{2, 0, 0, 0, 12, 0, 4, 128, 8, 0, 1, 128, 4, 0, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, r, err := parseRule(b)
		if err != nil {
			return
		}
		ch := &chain{family: c.family, table: c.name, name: c.chain, hook: input, rules: []rule{r}}
		ch.chains = map[string]*chain{c.chain: ch}
		rules := &Ruleset{base: []*chain{ch}, steps: 1000}
		rules.Judge(in(41))
		rules.Affects(in(41))
	})
}
