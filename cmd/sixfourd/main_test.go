package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sixfour/internal/rig"
)

func runMain(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		stdout string // prefix
		stderr string
	}{
		{[]string{"--version"}, 0, "sixfourd ", ""},
		{[]string{"-version"}, 0, "sixfourd ", ""},
		{[]string{"--help"}, 0, "sixfourd carries", ""},
		{[]string{"-h"}, 0, "sixfourd carries", ""},
		{[]string{"-frobnicate"}, 2, "", "sixfourd: there is no flag -frobnicate: choose -config, -check,"},
		{[]string{"-chek"}, 2, "", "sixfourd: there is no flag -chek: did you mean -check?"},
		{[]string{"-config"}, 2, "", "sixfourd: -config needs a value: -config VALUE"},
		{[]string{"start"}, 2, "", `sixfourd: argument "start" is one too many: sixfourd takes only flags, such as -config PATH`},
		{[]string{"-config", "no/such/file", "-check"}, 2, "", "no/such/file:1:1: "},
		{[]string{"-check", "-config", "dist/sixfour.toml", "-log-level", "loud"}, 2, "", `sixfourd: log level "loud"`},
		{[]string{"-check", "-config", "dist/sixfour.toml", "-log-format", "xml"}, 2, "", `sixfourd: log format "xml"`},
		{[]string{"-check", "-config", "dist/sixfour.toml"}, 0, "", ""},
	} {
		code, stdout, stderr := runMain(c.args...)
		if code != c.code || !strings.HasPrefix(stdout, c.stdout) || !strings.HasPrefix(stderr, c.stderr) || c.stdout == "" && stdout != "" || c.stderr == "" && stderr != "" {
			t.Errorf("%v: %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
	if _, help, _ := runMain("-help"); strings.Count(help, "\n") > 24 {
		t.Error("the help does not fit one screen")
	}
}

// What stops a part of the traffic makes -check fail, but not the start after an upgrade.
func TestCheckStart(t *testing.T) {
	const tunnel = "[[tunnel]]\nname = 'a'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	for _, c := range []struct {
		file         string
		check, start int
	}{
		{tunnel, 0, 0},
		{tunnel + "address = ['2001:db8::/64']\n", 2, 0},
		{tunnel + "adress = ['2001:db8::1/64']\n", 2, 2},
	} {
		path := filepath.Join(t.TempDir(), "f.toml")
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		for flag, want := range map[string]int{"-check": c.check, "-check-start": c.start} {
			if code, _, stderr := runMain(flag, "-config", path); code != want || (code == 0) != (stderr == "") {
				t.Errorf("%s: %d, want %d: %q\n%s", flag, code, want, stderr, c.file)
			}
		}
	}
}

// TestSampleOfTheOtherServer: the sample must be valid on both servers.
func TestSampleOfTheOtherServer(t *testing.T) {
	b, err := os.ReadFile("dist/sixfour.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, other, ok := strings.Cut(string(b), "# Server B:\n")
	if !ok {
		t.Fatal("no server B")
	}
	path := filepath.Join(t.TempDir(), "b.toml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(other, "# ", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runMain("-check", "-config", path); code != 0 {
		t.Errorf("%d: %s", code, stderr)
	}
}

// TestSampleKeysAreKnown: commented keys of the sample must show the default values.
func TestSampleKeysAreKnown(t *testing.T) {
	b, err := os.ReadFile("dist/sixfour.toml")
	if err != nil {
		t.Fatal(err)
	}
	all, _, _ := strings.Cut(string(b), "# Server B:\n")
	all = regexp.MustCompile(`(?m)^# (\[?[a-z_0-9]+\]? *=|\[)`).ReplaceAllString(all, "$1")
	path := filepath.Join(t.TempDir(), "all.toml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	ns, err := rig.New("empty") // no other interface has a route in it
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	_ = ns.Do(func() error {
		if code, _, stderr := runMain("-check", "-config", path); code != 0 {
			t.Errorf("%d: %s\n%s", code, stderr, all)
		}
		return nil
	})
}

// TestUnit: systemd must accept the unit, with possible drop-ins, and rate its exposure
// at 2.0 at most without them.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("dist/sixfourd.service")
	if err != nil {
		t.Fatal(err)
	}
	// The unit must be valid even if the programs are not installed.
	unit = regexp.MustCompile(`/usr/local/s?bin/sixfour(d|ctl)`).ReplaceAll(unit, []byte("/bin/true"))
	for _, drop := range []string{"", "dist/sixfourd-netns.conf", "dist/sixfourd-xdp.conf", "dist/sixfourd-kernel.conf", "dist/sixfourd-port.conf"} {
		text := unit
		if drop != "" {
			b, err := os.ReadFile(drop)
			if err != nil {
				t.Fatal(err)
			}
			text = append(append(bytes.Clone(unit), '\n'), b...)
		}
		file := filepath.Join(t.TempDir(), "sixfourd.service")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify, with %q: %v\n%s", drop, err, out)
		}
		if drop == "" {
			exposure(t, file)
		}
	}
}

func exposure(t *testing.T, unit string) {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil || level > 2.0 {
		t.Errorf("exposure %s:\n%s", m[1], out)
	}
}
