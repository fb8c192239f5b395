package report

import (
	"fmt"
	"strings"
	"testing"
)

// An error lists a few of many names.
func TestAnyOf(t *testing.T) {
	var names []string
	for i := range candidates + 3 {
		names = append(names, fmt.Sprint("p", i))
	}
	if got := AnyOf(names[:2]); got != "p0, p1" {
		t.Errorf("of two: %q", got)
	}
	if got := AnyOf(names); !strings.HasSuffix(got, "p9 or one of 3 others") {
		t.Errorf("of many: %q", got)
	}
}
