package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

// A check that panics affects only itself, and does not change the subject.
func TestPanic(t *testing.T) {
	p := &subject.Peer{}
	f := attempt(t.Context(), p, func(_ context.Context, p *subject.Peer) finding.Finding {
		p.Failed = append(p.Failed, "x")
		var none *config.Peer
		return finding.Passed("%s", none.Name)
	})
	if f.Verdict != finding.Skip || !strings.Contains(f.Text, "nil pointer") || !strings.Contains(f.Text, "doctor_test.go:") || len(p.Failed) != 0 {
		t.Errorf("%+v, %v", f, p.Failed)
	}
}

// The same for a check that hangs.
func TestHang(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	over := make(chan struct{})
	p := &subject.Peer{}
	f := attempt(ctx, p, func(_ context.Context, p *subject.Peer) finding.Finding {
		p.Failed = append(p.Failed, "x")
		<-over
		return finding.Passed("")
	})
	close(over)
	if f.Verdict != finding.Skip || len(p.Failed) != 0 {
		t.Errorf("%+v, %v", f, p.Failed)
	}
}

func TestTun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tun")
	check := func(path string) finding.Finding {
		h := &subject.Host{Options: subject.Options{Paths: subject.Paths{Tun: path}.OrDefault()}}
		return checkTun(t.Context(), h)
	}
	if f := check(file); f.Verdict != finding.Fail || !strings.HasPrefix(f.Remedy, "modprobe tun; mkdir -p "+filepath.Dir(file)+"; mknod "+file+" c 10 200") {
		t.Errorf("missing: %+v", f)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := check(file); f.Verdict != finding.Fail || !strings.HasPrefix(f.Remedy, "rm "+file) {
		t.Errorf("a file: %+v", f)
	}
	if f := check(""); f.Verdict != finding.Pass {
		t.Errorf("the device: %+v", f)
	}
}

func TestKernelVersion(t *testing.T) {
	for _, test := range []struct {
		release      string
		major, minor int
		ok           bool
	}{
		{"6.18.44-fc-v669", 6, 18, true},
		{"4.14", 4, 14, true},
		{"5.10-rc1", 5, 10, true},
		{"six", 0, 0, false},
		{"6.x", 6, 0, false},
	} {
		if major, minor, ok := kernelVersion(test.release); major != test.major || minor != test.minor || ok != test.ok {
			t.Errorf("%q: %d %d %v", test.release, major, minor, ok)
		}
	}
}

// allChecks returns all checks in the order in which they run.
func allChecks() []Check {
	var all []Check
	for _, c := range hostChecks {
		all = append(all, c.Check)
	}
	for _, c := range tunnelChecks {
		all = append(all, c.Check)
	}
	for _, c := range peerChecks {
		all = append(all, c.Check)
	}
	for _, c := range natChecks {
		all = append(all, c.Check)
	}
	for _, c := range brokerChecks {
		all = append(all, c.Check)
	}
	for _, c := range mapServerChecks {
		all = append(all, c.Check)
	}
	for _, c := range gatewayChecks {
		all = append(all, c.Check)
	}
	return all
}

// The manual's page has each check, in the same words.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	page, seen := string(b), 0
	for _, c := range allChecks() {
		row := "| `" + c.ID + "` | " + c.What + " | " + c.Why + " |"
		if !strings.Contains(page, row) {
			t.Errorf("docs/doctor.md lacks the row\n%s", row)
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| `") && !strings.HasPrefix(line, "| `doctor") {
			seen++
		}
	}
	if seen != len(allChecks()) {
		t.Errorf("docs/doctor.md has %d checks, of %d", seen, len(allChecks()))
	}
}
