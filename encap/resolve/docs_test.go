package resolve_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goFile matches a Go file in a page of the manual, with its path.
var goFile = regexp.MustCompile("(?ms)^`([^`\n]*)`[^\n]*:\n\n```go\n(.*?)^```")

// The example of how to add a mechanism works, and its test passes.
func TestExampleMechanism(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(top, "docs/adding-a-mechanism.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, m := range goFile.FindAllStringSubmatch(string(page), -1) {
		file := filepath.Join(dir, filepath.Base(m[1]))
		if err := os.WriteFile(file, []byte(m[2]), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(top, m[1])] = file
	}
	if len(overlay.Replace) != 2 {
		t.Fatalf("the page shows %v: want a mechanism and its test", overlay.Replace)
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-overlay", list, "-run", "TestEmbed96", "-v", ".")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestEmbed96") {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}
