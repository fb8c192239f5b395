package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sixfour/internal/config/keys"
	"sixfour/internal/configfile"
	"sixfour/internal/ctl"
	"sixfour/internal/usage"
)

func made(t *testing.T) map[string][]byte {
	t.Helper()
	all, err := files()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What is made twice is the same twice, also by another process at another time.
func TestStable(t *testing.T) {
	if a, b := made(t), made(t); !maps.EqualFunc(a, b, slices.Equal) {
		t.Error("two runs make different files")
	}
	for name, content := range made(t) {
		if m := regexp.MustCompile(`\b20[0-9][0-9]-[01][0-9]|go1\.|devel`).Find(content); m != nil {
			t.Errorf("%s: has %q: a date or version", name, m)
		}
	}
}

// requests are those of man(7) and roff(7) that the pages use, with how many
// arguments each has at least and at most.
var requests = map[string][2]int{"TH": {5, 5}, "SH": {1, 99}, "SS": {1, 99}, "PP": {0, 0}, "TP": {0, 0}, "nf": {0, 0}, "fi": {0, 0}, "RS": {0, 0}, "RE": {0, 0}}

// escapes are those of roff that they use.
var escapes = regexp.MustCompile(`^\\(e|-|&|f[BIR])`)

// Each page has the parts that man(7) asks for, in its language, and nothing that a
// formatter would warn of.
func TestPages(t *testing.T) {
	pages := 0
	for name, content := range made(t) {
		if !strings.HasPrefix(name, "man/") {
			continue
		}
		pages++
		check(t, name, string(content))
	}
	if want := 3 + len(ctl.Root().Commands()); pages != want { // sixfourctl, sixfourd, sixfour.toml
		t.Errorf("%d pages, want %d", pages, want)
	}
}

func check(t *testing.T, name, content string) {
	t.Helper()
	if !strings.HasPrefix(content, ".TH ") || !strings.Contains(content, ".SH NAME\n"+strings.ReplaceAll(base(name), "-", `\-`)+` \- `) || !strings.Contains(content, "\n.SH SEE ALSO\n") {
		t.Errorf("%s: not all parts that a page has:\n%.300s", name, content)
	}
	depth, last := 0, ""
	for i, line := range strings.Split(strings.TrimSuffix(content, "\n"), "\n") {
		if line == "" {
			t.Errorf("%s:%d: an empty line", name, i+1)
		}
		for j := range len(line) {
			if line[j] == '\\' && (j == 0 || line[j-1] != '\\') && !escapes.MatchString(line[j:]) {
				t.Errorf("%s:%d: %q: what is the escape?", name, i+1, line)
			}
			if line[j] > '~' || line[j] < ' ' && line[j] != '\t' {
				t.Errorf("%s:%d: %q: not ASCII", name, i+1, line)
			}
		}
		if n := strings.Count(line, `\fB`) + strings.Count(line, `\fI`); n != strings.Count(line, `\fR`) {
			t.Errorf("%s:%d: %q: a font that does not end", name, i+1, line)
		}
		if line[0] != '.' && line[0] != '\'' {
			last = "text"
			continue
		}
		fields := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line[1:], -1)
		n, ok := requests[fields[0]]
		if args := len(fields) - 1; !ok || args < n[0] || args > n[1] {
			t.Errorf("%s:%d: %q: no such request, or not so", name, i+1, line)
		}
		switch fields[0] {
		case "RS", "nf":
			depth++
		case "RE", "fi":
			depth--
		case "SH":
			if last == "SH" {
				t.Errorf("%s:%d: an empty section", name, i)
			}
		}
		last = fields[0]
	}
	if depth != 0 {
		t.Errorf("%s: what was begun does not end", name)
	}
}

func base(name string) string {
	b := filepath.Base(name)
	return strings.TrimSuffix(b, filepath.Ext(b))
}

// The pages have every flag, command and key there is.
func TestComplete(t *testing.T) {
	all := made(t)
	has := func(page, term string) {
		if !strings.Contains(string(all[page]), `\fB`+strings.ReplaceAll(term, "-", `\-`)+`\fR`) {
			t.Errorf("%s: no %s", page, term)
		}
	}
	for _, f := range usage.DaemonFlags {
		has("man/man8/sixfourd.8", "-"+f.Name)
		if !strings.Contains(usage.Daemon(), "-"+f.Name) {
			t.Errorf("the help has no %s", f.Name)
		}
	}
	for _, k := range keys.Reference() {
		has("man/man5/sixfour.toml.5", k.Name)
	}
	for _, c := range ctl.Root().Commands() {
		has("man/man1/sixfourctl.1", "sixfourctl "+c.Use)
		has("man/man1/sixfourctl-"+c.Name()+".1", "--help")
		for _, leaf := range ctl.Leaves(c) {
			has("man/man1/sixfourctl-"+c.Name()+".1", leaf.Parent().CommandPath()+" "+leaf.Use)
			leaf.Flags().VisitAll(func(f *pflag.Flag) { has("man/man1/sixfourctl-"+c.Name()+".1", "--"+f.Name) })
		}
	}
	has("man/man1/sixfourctl-status.1", "--socket")
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "share")
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	for name, content := range made(t) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !slices.Equal(got, content) || len(got) < 500 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := write("/dev/null"); err == nil {
		t.Error("it wrote below a device")
	}
}

// What is Markdown in the reference is text in the page.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "the [path's MTU](mtu.md) learnt": "the path's MTU learnt", "`a`, [b](c) and [d](e)": "a, b and d", "odd ](": "odd ](",
	} {
		if got := text(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What the manual page shows is a configuration.
func TestConfigExample(t *testing.T) {
	if _, err := configfile.Parse("sixfour.toml(5)", []byte(configExample)); err != nil {
		t.Error(err)
	}
}

// A link in the place of a page is replaced, not followed: another user may have put it
// there.
func TestLinksAreReplaced(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	page := filepath.Join(dir, "share/man/man8/sixfourd.8")
	for _, err := range []error{
		os.WriteFile(victim, []byte("secret"), 0o600), os.MkdirAll(filepath.Dir(page), 0o755), os.Symlink(victim, page),
		write(filepath.Join(dir, "share")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "secret" {
		t.Errorf("the link's target has %.20q now, %v", b, err)
	}
	if info, err := os.Lstat(page); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
