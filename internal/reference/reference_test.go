package reference

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the page instead of holding it against the program")

// The page is what the program has.
func TestPage(t *testing.T) {
	const page = "../../docs/reference.md"
	if *update {
		if err := os.WriteFile(page, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != Markdown() {
		t.Error("docs/reference.md is not what the program has: run make docs")
	}
}
