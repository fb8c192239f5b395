package capture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// taken returns what a reader gets now, one word for each packet.
func taken(t *Tap) (words []string, left bool) {
	b, left, _, _ := t.take(batch{})
	for i := range b.records {
		inner, _ := b.packets(&b.records[i])
		words = append(words, string(inner))
	}
	return words, left
}

// A packet that is shown after its answer comes before it: readers wait for packets that are
// being sent, but not forever.
func TestAnswersComeAfter(t *testing.T) {
	var clock Clock
	tap, err := New(Request{})
	if err != nil {
		t.Fatal(err)
	}
	tap.UseClock(&clock)
	show := func(at time.Time, word string) { tap.Show(&Packet{At: at, Inner: Bytes{Head: []byte(word)}}) }
	want := func(left bool, words ...string) {
		t.Helper()
		if got, l := taken(tap); strings.Join(got, " ") != strings.Join(words, " ") || l != left {
			t.Errorf("%v, left %v; want %v, %v", got, l, words, left)
		}
	}
	show(time.Time{}, "first")
	request := clock.Hold()
	show(time.Time{}, "answer")
	want(true, "first")
	other := clock.Hold()
	show(request, "request")
	clock.Release(request)
	show(time.Time{}, "later")
	want(true, "request", "answer")
	show(other, "other")
	clock.Release(other)
	want(false, "other", "later")

	stuck := clock.Hold()
	show(time.Time{}, "beside")
	want(true)
	clock.held[0] = stuck.Add(-2 * maxHold) // as if it had been held long ago
	want(false, "beside")
	show(stuck.Add(-time.Hour), "late")
	want(false, "late")
	if b, _, _, _ := tap.take(batch{}); len(b.records) != 0 || tap.lastTaken < 0 {
		t.Error("time goes back")
	}
	clock.Hold()
	show(time.Time{}, "at the end")
	tap.End(nil)
	want(false, "at the end")
}

// With any number of sending goroutines, a reader gets packets in the order of their times.
func TestOrderAmongMany(t *testing.T) {
	var clock Clock
	tap, err := New(Request{})
	if err != nil {
		t.Fatal(err)
	}
	tap.UseClock(&clock)
	const senders, packets = 4, 500
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range packets {
				at := clock.Hold()
				for range r.IntN(2000) { // simulates sending
				}
				tap.Show(&Packet{At: at, Inner: Bytes{Head: fmt.Append(nil, at.Sub(tap.start).Nanoseconds())}})
				clock.Release(at)
			}
		})
	}
	var last time.Duration
	for n, b := 0, (batch{}); n < senders*packets; {
		b, _, _, _ = tap.take(b)
		for i := range b.records {
			inner, _ := b.packets(&b.records[i])
			if at := b.records[i].at; string(inner) != fmt.Sprint(at.Nanoseconds()) || at < last {
				t.Fatalf("%d ns after %v, shown as of %s", at, last, inner)
			} else {
				last = at
			}
			n++
		}
	}
	all.Wait()
}
