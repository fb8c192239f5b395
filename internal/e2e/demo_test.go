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
	dir := t.TempDir()
	for _, name := range []string{"sixfourd", "sixfourctl"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "sixfour/cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "sixfourctl"), "demo", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var res demo.Result
	must(t, json.Unmarshal(stdout.Bytes(), &res))
	if res.RTT4 <= 0 || res.RTT6 <= 0 || res.TCPBitsPerSec <= 0 || res.UDPPacketsPerS <= 0 || res.TunnelMTU != 1440 {
		t.Errorf("%+v", res)
	}
	for _, want := range []string{
		`remote6 = "fc00::2"`, "203.0.113.10 > 203.0.113.20, protocol 41 (IPv6 inside)",
		"fc00::1 > fc00::2, next header 4 (IPv4 inside)", "10.0.0.1 > 10.0.0.2, protocol 1", "cleaned up",
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not in its story:\n%s", want, stderr.String())
		}
	}
	if strings.Contains(stderr.String(), "WRONG") {
		t.Errorf("a checksum is wrong:\n%s", stderr.String())
	}
}
