package drop_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sixfour/encap/drop"
)

// said matches a row of the manual's table: the word and the description.
var said = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([^|]+) \\|")

// plain returns a sentence of the manual without its markup.
func plain(s string) string {
	s = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(s, "$1")
	return strings.ReplaceAll(s, "`", "")
}

// TestReasons: every reason has a word of its own, and the manual has the same
// description; the manual has no other reasons.
func TestReasons(t *testing.T) {
	manual, err := os.ReadFile("../../docs/drops.md")
	if err != nil {
		t.Fatal(err)
	}
	manuals := make(map[string]string)
	for _, row := range said.FindAllStringSubmatch(string(manual), -1) {
		if _, twice := manuals[row[1]]; twice {
			t.Errorf("the manual has %s twice", row[1])
		}
		manuals[row[1]] = plain(row[2])
	}
	seen := make(map[string]drop.Reason)
	for r := range drop.Count {
		word := r.String()
		if other, ok := seen[word]; ok || word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("reason %d is %q, as is %d", r, word, other)
		}
		seen[word] = r
		if r != drop.None && manuals[word] != r.Means() {
			t.Errorf("the manual says of %s %q, the program %q", word, manuals[word], r.Means())
		}
		delete(manuals, word)
	}
	if len(manuals) > 0 {
		t.Errorf("the manual explains what there is not: %v", manuals)
	}
	if got := drop.Count.String(); got != "invalid" {
		t.Errorf("%q", got)
	}
}
