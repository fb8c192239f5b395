package discovery

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/pathmtu"
)

// Waiting answers of many paths are handled together.
func TestAnswersAreTakenAtOnce(t *testing.T) {
	p := New(zap.NewNop())
	var subjects []*Subject
	for range cap(p.answers) {
		one := NewSubject(new(datapath.Path), nil)
		p.searches[one] = &search{Path: pathmtu.New(1500)}
		subjects = append(subjects, one)
		p.Answered(one, 0)
	}
	p.handleAnswer(<-p.answers)
	for i, one := range subjects {
		if p.searches[one].again.IsZero() {
			t.Fatalf("answer %d waits", i)
		}
	}
	if len(p.answers) > 0 {
		t.Errorf("%d are left", len(p.answers))
	}
}

// The goroutine survives a panic, and discards the state that the panic may have left.
func TestPanic(t *testing.T) {
	f := New(zap.NewNop())
	f.seen[new(Subject)] = 7
	f.guard(func() { f.handleReport(t.Context(), tooBig{}) })
	if len(f.seen) != 0 {
		t.Error("what a panic left is still used")
	}
}

// Answers to the far end's probes are no traffic: otherwise two ends would keep each other
// probing forever.
func TestAnswersAreNoTraffic(t *testing.T) {
	var pr search
	for i, c := range []struct {
		large   int
		asked   uint64
		traffic int
	}{
		{5, 0, 5},
		{1, 1, 0},
		{0, 2, 0}, // the answer comes later
		{3, 2, 2},
		{2, 3, 1},
		{0, 1000, 0}, // and these never do
		{owedMost + 1, 1000, 1},
		{7, 1000, 7},
	} {
		if got := pr.traffic(c.large, c.asked); got != c.traffic {
			t.Errorf("%d: %d of %d, want %d", i, got, c.large, c.traffic)
		}
	}
}

// Unproven reports, over all peers, cause no more bytes to be sent than their own.
func TestAllowance(t *testing.T) {
	now := time.Now()
	a := newAllowance(now)
	in, out := 0, 0
	for range 1000 {
		a.earn(102)
		in += 102
		if a.any(now) {
			a.spend(1500 + 128)
			out += 1500 + 128
		}
	}
	if out > 3*in || out < in/2 {
		t.Errorf("%d bytes for %d", out, in)
	}
	a.spend(9000)
	if now = now.Add(time.Minute); a.any(now) {
		t.Error("a packet of 9000 bytes is forgotten in a minute")
	}
	if now = now.Add(time.Hour); !a.any(now) {
		t.Error("nothing after an hour")
	}
	a.spend(allowanceMost)
	if a.any(now) {
		t.Error("an hour gives more than there may be")
	}
}
