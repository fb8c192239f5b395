// Package vectors reads the test vectors of testdata/vectors, for tests.
package vectors

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var pattern = regexp.MustCompile(`\*\*([^*]+)\*\* \((\d+) bytes\):[^\n]*\n\n` + "```hex\n([0-9a-f\n]+)```")

// Read is all of them, by name.
func Read(t testing.TB) map[string][]byte {
	t.Helper()
	dir, err := os.Getwd() // that of the package under test
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no directory above has a go.mod")
		}
		dir = filepath.Dir(dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, "testdata/vectors/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(m[3], "\n", ""))
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		all[m[1]] = b
	}
	return all
}
