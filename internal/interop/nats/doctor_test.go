package nats

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// check is one result of doctor.
type check struct{ Check, Verdict, Finding, Mend string }

// doctor runs doctor on a host, with a configuration or, if it is empty, with none.
func (n *internet) doctor(ns *rig.Namespace, config string, args ...string) map[string]check {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "sixfour.toml")
	if config != "" {
		rigtest.Must(n.t, os.WriteFile(file, []byte(config), 0o600))
	}
	cmd := exec.CommandContext(n.t.Context(), doctor, append([]string{"doctor", "--json", "--config", file}, args...)...)
	var out rig.Log
	cmd.Stdout = &out
	rigtest.Must(n.t, ns.Start(cmd))
	_ = cmd.Wait() // some checks fail without a daemon
	var report struct{ Checks []check }
	if err := json.Unmarshal([]byte(out.String()), &report); err != nil {
		n.t.Fatalf("doctor: %v: %s", err, out.String())
	}
	found := make(map[string]check)
	for _, c := range report.Checks {
		found[c.Check] = c
	}
	return found
}

// Doctor says what NAT there is, and what passes it.
func TestDoctor(t *testing.T) {
	const client = "[[tunnel]]\nname = \"six0\"\nmode = \"teredo\"\nrole = \"client\"\nserver = \"198.51.100.120\"\n"
	for _, k := range []struct {
		server    who
		nat       string
		says      string
		udp, of44 string
	}{
		{ours, "none", "no NAT: 203.0.113.5 is this host's address on the Internet; the path lets packets of all hosts in", "can be either end", "SKIP"},
		{ours, "full cone", "a full cone NAT at 203.0.113.5: one port for all destinations (endpoint-independent mapping), it lets packets of all hosts in (endpoint-independent filtering), ports are kept where possible, and hosts behind it reach each other at its address", "must forward a port", "PASS"},
		{theirs, "restricted", "a restricted cone NAT at 203.0.113.5", "must forward a port", "PASS"},
		{ours, "port-restricted", "a port-restricted cone NAT at 203.0.113.5", "must forward a port", "PASS"},
		{theirs, "port-restricted", "(address and port-dependent filtering), ports are kept where possible, and hosts behind it do not reach each other at its address", "must forward a port", "PASS"},
		{ours, "symmetric", "a symmetric NAT at 203.0.113.5: each destination gets another port (address-dependent mapping), ports are changed", "must forward a port", "PASS"},
	} {
		t.Run(fmt.Sprintf("%s behind %s", k.server, k.nat), func(t *testing.T) {
			t.Parallel()
			n := newInternet(t, k.nat, "none")
			n.server(k.server)
			n.serverAnswers()
			found := n.doctor(n.a, client)
			for name, text := range map[string]string{"nat": k.says, "nat_udp": k.udp, "nat_teredo": "", "nat_6bed4": "", "nat_https": "", "nat_6a44": ""} {
				want := "PASS"
				if name == "nat_6a44" {
					want = k.of44
				}
				if c, ok := found[name]; !ok || c.Verdict != want || !strings.Contains(c.Finding, text) {
					t.Errorf("%s: %+v, want %s with %q", name, c, want, text)
				}
			}
			if c := found["firewall_out"]; !strings.Contains(c.Finding, "UDP port 3544 to 198.51.100.120") {
				t.Errorf("firewall_out: %+v", c)
			}
		})
	}
}

// A server that is silent, at one address or at both, is a failure with a way out. A packet
// filter of this host hides how the NAT filters.
func TestDoctorInDoubt(t *testing.T) {
	for _, k := range []struct{ name, server, verdict, says, teredo string }{
		{"a filter", "198.51.100.120", "PASS", "this host's own packet filter accepts only answers", "PASS"},
		{"the second address is silent", "198.51.100.120,198.51.100.9", "FAIL", "not at its second address 198.51.100.9", "SKIP"},
		{"no server", "198.51.100.8", "FAIL", "no Teredo server answers at 198.51.100.8 and 198.51.100.9", "SKIP"},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t, "port-restricted", "none")
			n.server(ours)
			n.serverAnswers()
			n.command(n.a, "nft", `table ip own { chain in { type filter hook input priority 0; policy drop; ct state established accept; }; }`)
			found := n.doctor(n.a, "", "--nat-server", k.server)
			if c := found["nat"]; c.Verdict != k.verdict || !strings.Contains(c.Finding, k.says) || (c.Mend == "") != (k.verdict == "PASS") {
				t.Errorf("nat: %+v", c)
			}
			if c := found["nat_teredo"]; c.Verdict != k.teredo {
				t.Errorf("nat_teredo: %+v", c)
			}
		})
	}
}

// serverAnswers waits until the server has its port.
func (n *internet) serverAnswers() {
	n.t.Helper()
	eventually(n.t, "the server has its port", func() error {
		out, err := n.output(n.s, "ss", "-lunH", "sport = 3544")
		if err == nil && !strings.Contains(out, ":3544") {
			err = fmt.Errorf("%q", out)
		}
		return err
	})
}

// output runs a command, and returns what it prints.
func (n *internet) output(ns *rig.Namespace, name string, args ...string) (string, error) {
	n.t.Helper()
	var out rig.Log
	cmd := exec.CommandContext(n.t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	rigtest.Must(n.t, ns.Start(cmd))
	err := cmd.Wait()
	return out.String(), err
}
