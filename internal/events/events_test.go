package events

import (
	"context"
	"fmt"
	"testing"

	"sixfour/internal/api"
)

// A reader gets the last hundred events and those that follow. A reader that is too slow
// learns how many it has missed, and blocks no one.
func TestEvents(t *testing.T) {
	e := new(Log)
	for i := range 300 {
		e.Add(api.Event{Kind: api.EventState, Text: fmt.Sprint(i)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	read := e.Follow(ctx)
	for i := 200; i < 300; i++ {
		if ev := <-read; ev.Text != fmt.Sprint(i) {
			t.Fatalf("%q, want %d", ev.Text, i)
		}
	}
	e.Add(api.Event{Text: "then"})
	if ev := <-read; ev.Text != "then" {
		t.Fatalf("%q", ev.Text)
	}
	for i := range 5000 { // one of them may already be on its way
		e.Add(api.Event{Text: fmt.Sprint(i)})
	}
	n, missed := 0, 0
	for n+missed < 5000 {
		ev := <-read
		if ev.Kind == api.EventLost {
			var k int
			if _, err := fmt.Sscan(ev.Text, &k); err != nil {
				t.Fatal(err)
			}
			missed += k
			continue
		}
		if ev.Text != fmt.Sprint(n+missed) {
			t.Fatalf("%q after %d and %d missed", ev.Text, n, missed)
		}
		n++
	}
	if missed == 0 || n < backlog {
		t.Errorf("%d read, %d missed", n, missed)
	}
	cancel()
	for range read { // until the channel is closed
	}
}
