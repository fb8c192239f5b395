package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/demo"
)

// The demonstration runs as for its users, prints its report, and measures.
func TestDemo(t *testing.T) {
	var res demo.Result
	report := runDemo(t, &res)
	if res.RTT4 <= 0 || res.RTT6 <= 0 || res.TCPBitsPerSec <= 0 || res.UDPPacketsPerS <= 0 || res.TunnelMTU != 1440 {
		t.Errorf("%+v", res)
	}
	for _, want := range []string{
		`remote6 = "fc00::2"`, "203.0.113.10 > 203.0.113.20, protocol 41 (IPv6 inside)",
		"fc00::1 > fc00::2, next header 4 (IPv4 inside)", "10.0.0.1 > 10.0.0.2, protocol 1", "cleaned up",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is not in its story:\n%s", want, report)
		}
	}
	if strings.Contains(report, "WRONG") {
		t.Errorf("a checksum is wrong:\n%s", report)
	}
}

// runDemo runs sixfourctl demo, and returns its report.
func runDemo(t *testing.T, res any, args ...string) (report string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sixfourd", "sixfourctl"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "sixfour/cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "sixfourctl"), append([]string{"demo", "--json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	must(t, json.Unmarshal(stdout.Bytes(), res))
	return stderr.String()
}

// The demonstration of several paths uses each of them, loses many packets only while a
// filter is new, and draws what happened.
func TestDemoLadder(t *testing.T) {
	t.Parallel()
	var res demo.Ladder
	report := runDemo(t, &res, "--ladder")
	if len(res.Steps) != 4 {
		t.Fatalf("%+v", res)
	}
	for i, s := range res.Steps {
		filtered := i == 1 || i == 2
		if want := []int{1, 2, 3, 1}[i]; s.Path != want || s.Sent == 0 || (s.Lost > s.Sent/10) != filtered { // a busy host loses a few
			t.Errorf("step %d: %+v", i+1, s)
		}
	}
	for _, want := range []string{
		"encap       = \"https\"", "the provider drops protocol 41", "packets use path 3", "\n  fou           .", "|5 s", "cleaned up",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is not in its report:\n%s", want, report)
		}
	}
}

// The demonstration of a broker gives each of five clients behind a NAT a prefix of its own,
// and each reaches a host behind the broker.
func TestDemoBroker(t *testing.T) {
	t.Parallel()
	var res demo.Broker
	report := runDemo(t, &res, "--broker")
	if len(res.Clients) != 5 {
		t.Fatalf("%+v", res)
	}
	for _, c := range res.Clients {
		if c.RTT <= 0 || c.Address == "" {
			t.Errorf("%+v", c)
		}
		if !strings.Contains(report, "  "+c.Protocol+" ") {
			t.Errorf("%s is not in the report:\n%s", c.Protocol, report)
		}
	}
	for _, want := range []string{"sixfourctl broker account add home3 --type heartbeat", "2001:db8:100:4::/64", "203.0.113.20", "cleaned up"} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is not in the report:\n%s", want, report)
		}
	}
}
