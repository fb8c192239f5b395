package drop_test

import (
	"os"
	"strings"
	"testing"

	"sixfour/encap/drop"
)

// Every reason has one word of its own, and the manual explains it.
func TestReasons(t *testing.T) {
	manual, err := os.ReadFile("../../docs/drops.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]drop.Reason)
	for r := range drop.Count {
		word := r.String()
		if other, ok := seen[word]; ok || word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("reason %d is %q, as is %d", r, word, other)
		}
		seen[word] = r
		if r != drop.None && !strings.Contains(string(manual), "| `"+word+"` |") {
			t.Errorf("the manual does not explain %s", word)
		}
	}
	if got := drop.Count.String(); got != "invalid" {
		t.Errorf("%q", got)
	}
}
