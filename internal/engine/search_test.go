package engine

import (
	"errors"
	"testing"
	"time"
)

// A lack of room for a question, because of too many others, says nothing about the path.
func TestSearchAmongMany(t *testing.T) {
	_, p, to := wired(t)
	for range maxAsked {
		if _, err := p.asked.next(make(chan heardAt, 1)); err != nil {
			t.Fatal(err)
		}
	}
	a := &asking{p: p, wire: to, heard: make(chan heardAt, 1)}
	if _, err := a.passes(t.Context(), probeUsual, time.Millisecond); !errors.Is(err, errBusy) {
		t.Error(err)
	}
}
