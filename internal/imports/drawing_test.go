package imports

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// drawing matches the drawing of the packages in a page of the manual.
var drawing = regexp.MustCompile("(?s)```text\n(cmd/sixfourd .*?)```")

// secondColumn is where the second package of a line begins, in runes.
const secondColumn = 62

// In the drawing of the packages, each package stands on a higher line than those that it
// imports.
func TestDrawing(t *testing.T) {
	const page = "../../docs/adding-a-mechanism.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	m := drawing.FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s has no drawing of the packages", page)
	}
	lines := make(map[string]int)
	for i, line := range strings.Split(string(m[1]), "\n") {
		for _, pkg := range drawn(line) {
			if !strings.HasPrefix(pkg, "sixfour/cmd/") {
				lines[pkg] = i + 1
			}
		}
	}
	if len(lines) < 30 {
		t.Errorf("the drawing shows only %d packages", len(lines))
	}
	for pkg, at := range lines {
		allowed, ok := rules[pkg]
		if !ok {
			t.Errorf("the drawing shows %s, which has no rule", pkg)
		}
		for _, i := range allowed {
			if lines[i] != 0 && lines[i] <= at {
				t.Errorf("%s imports %s, which the drawing shows beside or above it", pkg, i)
			}
		}
	}
}

// drawn returns the import paths of the packages on a line of the drawing: in each column
// the names before two spaces.
func drawn(line string) (paths []string) {
	r := []rune(line)
	split := min(len(r), secondColumn)
	for _, column := range []string{string(r[:split]), string(r[split:])} {
		names, _, _ := strings.Cut(strings.TrimSpace(column), "  ")
		for name := range strings.SplitSeq(names, ", ") {
			switch top, _, _ := strings.Cut(name, "/"); top {
			case "", "│":
			case "encap", "transport", "tun", "cmd", "internal":
				paths = append(paths, "sixfour/"+name)
			default:
				paths = append(paths, "sixfour/internal/"+name)
			}
		}
	}
	return paths
}
