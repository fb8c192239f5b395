package fair

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTake: places of the client with the most are given to others, never those of a
// client with as few.
func TestTake(t *testing.T) {
	for _, c := range []struct {
		name  string
		asks  string // clients, in order
		loses string // for each request: whose place is taken; "-" nobody's, "!" there is none
	}{
		{"room", "a a b", "- - -"},
		{"one client fills it", "a a a a a", "- - - - !"},
		{"another one comes", "a a a a b b", "- - - - a a"},
		{"it gets its share, not more", "a a a a b b b", "- - - - a a !"},
		{"the first still cannot grow", "a a a a b a", "- - - - a !"},
		{"as many clients as places", "a b c d e", "- - - - !"},
	} {
		var got []string
		l := NewLimit(4, 0)
		lost := ""
		for client := range strings.FieldsSeq(c.asks) {
			lost = "-"
			if _, ok := l.Take(client, func() { lost = client }); !ok {
				lost = "!"
			}
			got = append(got, lost)
		}
		if !slices.Equal(got, strings.Fields(c.loses)) {
			t.Errorf("%s: %v, want %s", c.name, got, c.loses)
		}
	}
}

// TestOrder: idle places are taken before those in use, and kept places never.
func TestOrder(t *testing.T) {
	l := NewLimit(3, 0)
	var lost []int
	var holds []*Hold
	for i := range 3 {
		h, _ := l.Take("a", func() { lost = append(lost, i) })
		holds = append(holds, h)
	}
	end := holds[0].Begin(false)
	holds[1].Begin(true)
	if _, ok := l.Take("b", nil); !ok || !slices.Equal(lost, []int{2}) {
		t.Errorf("lost %v, %v", lost, ok)
	}
	end()
	holds[2].Release() // it has no place any more
	if _, ok := l.Take("c", nil); !ok || !slices.Equal(lost, []int{2, 0}) {
		t.Errorf("lost %v, %v", lost, ok)
	}
}

// TestWait: a waiting request gets a place that is released, or one that was held for
// too long.
func TestWait(t *testing.T) {
	l := NewLimit(1, 0)
	first, _ := l.Take("a", nil)
	got := make(chan error)
	go func() {
		_, err := l.Wait(t.Context(), "a", nil)
		got <- err
	}()
	for own := 0; own == 0; own, _ = l.waiting("a") {
		time.Sleep(time.Millisecond)
	}
	first.Release()
	if err := <-got; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Wait(ctx, "a", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	l = NewLimit(1, time.Millisecond)
	cut := make(chan bool, 1)
	_, _ = l.Take("a", func() { cut <- true })
	if _, err := l.Wait(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	<-cut
	if own, all := l.waiting("a"); own != 0 || all != 0 || len(l.queues) != 0 {
		t.Errorf("%d, %d still wait", own, all)
	}
}

// TestProgress: a client that takes its answer keeps its place beyond grace, but not for
// ever.
func TestProgress(t *testing.T) {
	l := NewLimit(1, time.Hour)
	first, _ := l.Take("a", func() {})
	for _, c := range []struct {
		since, until time.Duration // from now
		progress     bool
		kept         bool
	}{
		{-2 * time.Hour, time.Hour, false, false},
		{-2 * time.Hour, time.Hour, true, true},
		{-2 * time.Hour, -time.Hour, true, false}, // it had time enough
	} {
		first.since, first.until = time.Now().Add(c.since), time.Now().Add(c.until)
		if c.progress {
			first.Progress()
		}
		if displaced, _ := l.choose("a", time.Now()); (displaced == nil) != c.kept {
			t.Errorf("%+v: lost %v", c, displaced != nil)
		}
	}
}
