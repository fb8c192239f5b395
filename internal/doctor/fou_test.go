package doctor_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/doctor/finding"
)

// fouA and fouB are the two ends of a 6in4 tunnel over UDP, between different ports.
var (
	fouA = plain(outerA, outerB, 1) + "[[tunnel.path]]\nencap = \"fou\"\nport = 5001\nlocal_port = 5002\n"
	fouB = plain(outerB, outerA, 2) + "[[tunnel.path]]\nencap = \"fou\"\nport = 5002\nlocal_port = 5001\n"
)

// A tunnel over UDP is checked as such: with and without the daemon, and without the file.
func TestFOU(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, fouB, nil).ready(t)
	a := file(t, h.a, fouA)
	without := a.consult(t, nil)
	fails(t, without)
	verdict(t, without, "answer", finding.Pass, "answers through the tunnel")
	a = start(t, h.a, fouA, nil).ready(t)
	r := a.consult(t, nil)
	fails(t, r)
	for id, text := range map[string]string{
		"firewall_out": "accept UDP port 5001 to 203.0.113.20", "firewall_in": "accept UDP port 5002 from 203.0.113.20",
		"answer": "fc00::2 answers through the tunnel", "full_size": "packets of 1500 bytes arrive", "icmp": "", "fragments": "", "ecn": "", "kernel_tunnel": "",
	} {
		verdict(t, r, id, finding.Pass, text)
	}
	verdict(t, r, "kernel_answers", finding.Skip, "the tunnel modules of the kernel do not receive UDP port 5002")

	must(t, os.Remove(a.path))
	r = a.consultWith(t, nil, "--socket", filepath.Join(filepath.Dir(a.path), "control.sock"))
	fails(t, r)
	verdict(t, r, "config", finding.Skip, "name its configuration file with --config")
	verdict(t, r, "firewall_in", finding.Pass, "accept UDP port 5002 from 203.0.113.20")
	verdict(t, r, "kernel_answers", finding.Skip, "UDP port 5002")
	for _, c := range r.Checks {
		if c.Check == "answer" && (c.Verdict == finding.Fail || strings.Contains(c.Finding, "protocol")) {
			t.Errorf("without the file: %+v", c)
		}
	}
}

// The packet filter is evaluated for UDP packets with the ports of the path.
func TestFOUFaults(t *testing.T) {
	for _, test := range []struct {
		name, check, rules string
		want               finding.Verdict
		says               string
	}{
		{"protocol 41 does not matter", "firewall_in", "type filter hook input priority 0; meta l4proto 41 drop;", finding.Pass, ""},
		{"another port", "firewall_in", "type filter hook input priority 0; udp dport 5001 drop;", finding.Pass, ""},
		{"our port", "firewall_in", "type filter hook input priority 0; udp dport 5002 drop;", finding.Fail,
			"drops UDP port 5002 from 203.0.113.20 > nft insert rule inet f c ip saddr 203.0.113.20 udp dport 5002 accept"},
		{"the peer's port", "firewall_out", "type filter hook output priority 0; udp dport 5001 drop;", finding.Fail,
			"drops UDP port 5001 to 203.0.113.20 > nft insert rule inet f c ip daddr 203.0.113.20 udp dport 5001 accept"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			start(t, h.b, fouB, nil).ready(t)
			a := file(t, h.a, fouA)
			nft(t, h.a, "table inet f { chain c { "+test.rules+" }; }")
			r := a.consult(t, nil)
			if test.want == finding.Fail {
				fails(t, r, test.check)
			} else {
				fails(t, r)
			}
			verdict(t, r, test.check, test.want, test.says)
		})
	}
}

// A peer over UDP that is silent is looked for by its port, and its new address is found.
func TestFOUSilent(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	nft(t, h.r, `table ip f { chain c { type filter hook forward priority 0; ip daddr 203.0.113.20 udp dport 5001 drop; }; }`)
	a := start(t, h.a, strings.Replace(fouA, "fc00::1/64", "fc00::2/127", 1), nil).ready(t) // the peer must be fc00::3
	r := a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "firewalls on the path must accept UDP port 5001")

	moved := netip.MustParsePrefix("203.0.113.21/24")
	must(t, h.b.AddAddr("vb", moved))
	start(t, h.b, strings.NewReplacer("203.0.113.20", "203.0.113.21", "fc00::2/64", "fc00::3/127").Replace(fouB), nil).ready(t)
	a.says(t, "foreign_source")
	r = a.consult(t, nil)
	fails(t, r, "answer")
	verdict(t, r, "answer", finding.Fail, "UDP packets come from 203.0.113.21, which is no peer's remote")
}

// Without the file, probes are sent over UDP, between the ports in the daemon's status.
func TestFOUWithoutFile(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	start(t, h.b, double(2)+"[[tunnel.path]]\nencap = \"fou\"\nport = 5002\nlocal_port = 5001\n", nil).ready(t)
	a := start(t, h.a, double(1)+"[[tunnel.path]]\nencap = \"fou\"\nport = 5001\nlocal_port = 5002\n", nil).ready(t)
	must(t, os.Remove(a.path))
	r := a.consultWith(t, nil, "--socket", filepath.Join(filepath.Dir(a.path), "control.sock"))
	fails(t, r)
	verdict(t, r, "answer", finding.Pass, "fc00::2 answers through the tunnel")
}
