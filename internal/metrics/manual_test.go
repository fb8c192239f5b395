package metrics

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md")

// TestManual: the manual's table has each metric as it is exposed. To update the table:
// go test ./internal/metrics -update
func TestManual(t *testing.T) {
	const path, begin, end = "../../docs/metrics.md", "<!-- families -->\n", "<!-- end of families -->\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	var want strings.Builder
	want.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, f := range families {
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", f.name, f.typeName(), strings.Join(f.labels, ", "), f.help)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if table != want.String() {
		t.Errorf("the table of %s is another, write it with go test ./internal/metrics -update:\n%s", path, want.String())
	}
}

// typeName returns the name of the metric type in the manual.
func (f *family) typeName() string {
	if f.kind == prometheus.CounterValue {
		return "counter"
	}
	return "gauge"
}
