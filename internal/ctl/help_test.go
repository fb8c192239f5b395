package ctl

import (
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// All help texts fit on one screen.
func TestHelp(t *testing.T) {
	var all func(c *cobra.Command, path []string)
	all = func(c *cobra.Command, path []string) {
		out, errs, err := ctl(t.Context(), strings.Join(append(path, "--help"), " "))
		if err != nil || errs.String() != "" {
			t.Errorf("%v: %v %s", path, err, errs)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) > 24 {
			t.Errorf("%v: %d lines", path, len(lines))
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > 80 {
				t.Errorf("%v: %d columns: %s", path, utf8.RuneCountInString(l), l)
			}
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				all(sub, append(path, sub.Name()))
			}
		}
	}
	all(Root(), nil)
}

func TestVersion(t *testing.T) {
	out, _, err := ctl(t.Context(), "--version")
	if err != nil || !strings.HasPrefix(out.String(), "sixfourctl ") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 20)
	for in, want := range map[string]string{
		"":                      "",
		"a\nb":                  "a b",
		"a\nb\n\nc\n":           "a b\n\nc",
		"a\n  as it is\nb":      "a\n  as it is\nb",
		long:                    strings.TrimSpace(strings.Repeat("word ", 16)) + "\n" + strings.TrimSpace(strings.Repeat("word ", 4)),
		strings.Repeat("x", 99): strings.Repeat("x", 99),
	} {
		if got := wrap(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Trees of commands are made at the same time, as by tests that run in parallel.
func TestRoots(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if len(Root().Commands()) == 0 {
				t.Error("no commands")
			}
		})
	}
	all.Wait()
}
