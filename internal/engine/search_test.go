package engine

import (
	"errors"
	"testing"
	"time"
)

// That others ask so much that there is no room for another question says nothing of
// the path.
func TestSearchAmongMany(t *testing.T) {
	_, _, p, to := lab(t)
	for range maxAsked {
		if _, err := p.asked.next(make(chan heardAt, 1)); err != nil {
			t.Fatal(err)
		}
	}
	a := &asking{p: p, path: to, heard: make(chan heardAt, 1)}
	if _, err := a.passes(t.Context(), probeUsual, time.Millisecond); !errors.Is(err, errBusy) {
		t.Error(err)
	}
}
