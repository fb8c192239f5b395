package importing

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/configfile"
	"sixfour/internal/importing/host"
)

var update = flag.Bool("update", false, "write the expected results again")

// Each input of testdata becomes the result beside it, which passes the check of the
// configuration. An input is a file, or a directory of files that belong together.
func TestImport(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*/*")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	checked := 0
	for _, path := range inputs {
		if filepath.Ext(path) == ".toml" {
			continue
		}
		checked++
		t.Run(strings.TrimPrefix(path, "testdata/"), func(t *testing.T) {
			r, err := Import(readTest(t, path), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := configfile.Parse("result", []byte(r.Config)); err != nil && len(r.Tunnels) > 0 {
				t.Errorf("the result does not pass the check: %v", err)
			}
			golden := strings.TrimSuffix(path, filepath.Ext(path)) + ".toml"
			if *update {
				if err := os.WriteFile(golden, []byte(r.Config), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != r.Config {
				t.Errorf("got\n%s\nwant\n%s", r.Config, want)
			}
		})
	}
	if checked < 10 {
		t.Errorf("only %d inputs", checked)
	}
}

func readTest(t *testing.T, path string) (files []File) {
	t.Helper()
	paths := []string{path}
	if info, err := os.Stat(path); err != nil {
		t.Fatal(err)
	} else if info.IsDir() {
		if paths, err = filepath.Glob(filepath.Join(path, "*")); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{filepath.Base(p), data})
	}
	return files
}

// Any input has a result that passes the check, or is refused.
func FuzzImport(f *testing.F) {
	inputs, _ := filepath.Glob("testdata/*/*")
	for _, path := range inputs {
		if data, err := os.ReadFile(path); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte("A=$A$A; ip tunnel add x mode sit remote ${A:-1.2.3.4}\nf() { f; }; f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Import([]File{{"-", data}}, Options{})
		if err != nil || len(r.Tunnels) == 0 {
			return
		}
		if _, err := configfile.Parse("", []byte(r.Config)); err != nil {
			t.Errorf("%v\n%s", err, r.Config)
		}
	})
}

// Values of variables can be given, and replace those of the script.
func TestSet(t *testing.T) {
	script := "REMOTE=192.0.2.9\nip tunnel add six0 mode sit local $1 remote $REMOTE ttl 64\n"
	r, err := Import([]File{{"-", []byte(script)}}, Options{Set: map[string]string{"1": "203.0.113.10", "REMOTE": "203.0.113.20"}})
	if err != nil || !strings.Contains(r.Config, `local   = "203.0.113.10"`) || !strings.Contains(r.Config, `remote  = "203.0.113.20"`) {
		t.Errorf("%v\n%s", err, r.Config)
	}
	r, err = Import([]File{{"-", []byte(script)}}, Options{})
	if err != nil || len(r.Tunnels) != 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0].Reason, "--set 1=VALUE") {
		t.Errorf("%v\n%+v", err, r)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		data   []byte
		format string
	}{{[]byte("a\x00b"), ""}, {make([]byte, maxSize+1), ""}, {[]byte("ip"), "dhcp"}} {
		if _, err := Import([]File{{"-", c.data}}, Options{Format: c.format}); err == nil {
			t.Errorf("%.10q as %q is accepted", c.data, c.format)
		}
	}
}

// Inputs that would need much time or memory are read in part.
func TestHostile(t *testing.T) {
	words := strings.Repeat(" a", 1000)
	for _, script := range []string{
		"f() { f; f; }\nf",
		"A=aaaaaaaa\n" + strings.Repeat("A=$A$A$A$A\n", 30) + "ip link add $A type sit",
		"for i in" + words + "; do for j in" + words + "; do for k in" + words + "; do true; done; done; done",
		"ip link add {1..100000000} type sit",
		"A=A\nip link add $((A)) type sit",
		"A=B\nB=A\nip link add $((A)) type sit",
		"ip link add ${A:=$A} type sit",
		"ip link add $((1<<99999)) type sit\nip link add $((2**9999999)) type sit\nip link add $((1/0)) type sit",
		strings.Repeat("$(", 1000),
		strings.Repeat("ip link add x type sit remote 192.0.2.1 mtu 1\n", 3000),
		strings.Repeat("{ ", 2000) + "ip" + strings.Repeat("; }", 2000),
	} {
		if _, err := Import([]File{{"-", []byte(script)}}, Options{}); err != nil {
			t.Errorf("%.50q: %v", script, err)
		}
	}
}

func FuzzUCIWords(f *testing.F) {
	f.Add(`option a 'b "c" d'"e"\'f`)
	f.Fuzz(func(t *testing.T, line string) {
		words, _ := uciWords(line)
		if n := len(strings.Join(words, "")); n > len(line) {
			t.Errorf("%q has %d bytes in %q", line, n, words)
		}
	})
}

// What only a user knows is given by --set.
func TestSetOfOtherFormats(t *testing.T) {
	for path, want := range map[string]string{
		"testdata/miredo/relay.conf": `prefix  = ["2001:db8:12:3400::/56"]`,
		"testdata/uci/map.network":   `rules   = [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16, offset = 6 }]`,
	} {
		r, err := Import(readTest(t, path), Options{Set: map[string]string{"prefix": "2001:db8:12:3400::/56"}})
		if err != nil || len(r.Tunnels) != 1 || !strings.Contains(r.Config, want) {
			t.Errorf("%s: %v\n%s", path, err, r.Config)
		}
	}
}

func TestApply(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sixfour.toml")
	secret := filepath.Join(t.TempDir(), "new", "x.password")
	r := host.Result{Config: "a\n", Secrets: []host.Secret{{Path: secret, Value: "hunter22"}}}
	if err := Apply(path, r); err != nil {
		t.Fatal(err)
	}
	r.Config = "b\n"
	if err := Apply(path, r); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "b\n", path + ".bak": "a\n", secret: "hunter22\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := Apply(path, r); err == nil || !strings.Contains(err.Error(), ".bak exists") {
		t.Errorf("a second backup: %v", err)
	}
	r.Secrets[0].Value = "other"
	if err := Apply(filepath.Join(t.TempDir(), "sixfour.toml"), r); err == nil {
		t.Error("a secret of another content is replaced")
	}
}
