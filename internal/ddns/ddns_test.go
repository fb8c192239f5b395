package ddns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
)

// broker is a server in a bubble of synctest.
type broker struct {
	t      *testing.T
	set    *Set
	ctx    context.Context
	wg     sync.WaitGroup
	begun  time.Time
	says   func(n int) answer // the answer to a request
	asked  []string           // when, after the start, and from which address
	mu     sync.Mutex
	events []string
}

func inBubble(t *testing.T, says func(int) answer, test func(*broker)) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{t: t, begun: time.Now(), says: says}
		b.set = NewSet(zap.NewNop(), nil, func(e api.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e.Tunnel+" "+e.Kind+" "+e.Text)
		})
		b.set.ask = func(t Target) answer {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.asked = append(b.asked, fmt.Sprintf("%v %v", time.Since(b.begun), t.Local))
			return b.says(len(b.asked))
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.ctx = ctx
		test(b)
		cancel()
		b.wg.Wait()
	})
}

func (b *broker) follow(locals ...string) {
	var targets []Target
	for i, l := range locals {
		t := Target{Tunnel: fmt.Sprint("six", i), Account: config.AddressUpdate{URL: "https://broker.example:8443/nic/update", User: "anna", Host: fmt.Sprint(i)}}
		if l != "" {
			t.Local = netip.MustParseAddr(l)
		}
		targets = append(targets, t)
	}
	b.set.Follow(b.ctx, &b.wg, targets)
	synctest.Wait()
}

func (b *broker) expect(asked ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.asked, asked) {
		b.t.Errorf("requests %q, want %q", b.asked, asked)
	}
}

func (b *broker) expectEvents(events ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.events, events) {
		b.t.Errorf("events %q, want %q", b.events, events)
	}
}

func always(a answer) func(int) answer { return func(int) answer { return a } }

var good = answer{verdict: accepted, text: "good 203.0.113.10"}

// One request at the start and one for each change, not more often than every ten seconds.
func TestChanges(t *testing.T) {
	inBubble(t, always(good), func(b *broker) {
		b.follow("")
		time.Sleep(time.Minute)
		b.expect()
		if s := b.set.Status("six0"); s.State != api.UpdateWaiting || s.Server != "broker.example" || s.Host != "0" {
			t.Errorf("%+v", s)
		}
		b.follow("192.0.2.1")
		b.expect("1m0s 192.0.2.1")
		if s := b.set.Status("six0"); s.State != api.UpdateDone || s.Local != "192.0.2.1" || s.Answer != "good 203.0.113.10" || s.Error != "" || !s.Next.IsZero() || s.At.IsZero() {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Second)
		for i := range 9 {
			b.follow(fmt.Sprintf("192.0.2.%d", i+2))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		b.expect("1m0s 192.0.2.1", "1m10s 192.0.2.10")
		b.follow("192.0.2.10")
		b.follow("") // the uplink is down, and comes back with the same address
		b.follow("192.0.2.10")
		time.Sleep(time.Hour)
		b.expect("1m0s 192.0.2.1", "1m10s 192.0.2.10")
		b.expectEvents("six0 address broker.example answers good 203.0.113.10", "six0 address broker.example answers good 203.0.113.10")
	})
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		verdict verdict
		times   string // of the requests
		change  string // of the next one, if the address changes 12 s after the last one
	}{
		{failed, "0s 30s 1m30s 3m30s 7m30s 15m30s 31m30s 1h3m30s 2h3m30s 3h3m30s", "3h3m42s"},
		{trouble, "0s 30m0s 1h30m0s 3h30m0s 7h30m0s 13h30m0s", "19h30m0s"},
		{abuse, "0s 6h0m0s 18h0m0s 42h0m0s 66h0m0s", "90h0m0s"},
		{refused, "0s", ""},
	} {
		inBubble(t, always(answer{c.verdict, "no", "it is so"}), func(b *broker) {
			times := strings.Fields(c.times)
			b.follow("192.0.2.1")
			last, _ := time.ParseDuration(times[len(times)-1])
			time.Sleep(last)
			synctest.Wait()
			want := make([]string, len(times))
			for i, at := range times {
				want[i] = at + " 192.0.2.1"
			}
			b.expect(want...)
			s := b.set.Status("six0")
			if state := map[bool]string{true: api.UpdateStopped, false: api.UpdateRetrying}[c.verdict == refused]; s.State != state || s.Answer != "no" || s.Error != "it is so" || (state == api.UpdateRetrying) == s.Next.IsZero() {
				t.Errorf("%+v", s)
			}
			time.Sleep(12 * time.Second)
			b.follow("192.0.2.2")
			time.Sleep(48 * time.Hour)
			if c.change != "" {
				want = append(want, c.change+" 192.0.2.2")
			}
			b.mu.Lock()
			b.asked = b.asked[:min(len(b.asked), len(want))]
			b.mu.Unlock()
			b.expect(want...)
			text := "six0 error broker.example: it is so"
			if c.verdict == refused {
				text += ": then reload"
			}
			b.expectEvents(text) // one, however often it fails
		})
	}
}

// What was refused for good is tried again after a reload, and with another account.
func TestResume(t *testing.T) {
	says := func(n int) answer {
		if n < 3 {
			return answer{refused, "badauth", "correct it"}
		}
		return good
	}
	inBubble(t, says, func(b *broker) {
		b.follow("192.0.2.1")
		time.Sleep(time.Hour)
		b.set.Resume()
		time.Sleep(time.Hour)
		b.expect("0s 192.0.2.1", "1h0m0s 192.0.2.1")
		other := Target{Tunnel: "six0", Account: account, Local: netip.MustParseAddr("192.0.2.1")}
		b.set.Follow(b.ctx, &b.wg, []Target{other})
		time.Sleep(time.Hour)
		b.expect("0s 192.0.2.1", "1h0m0s 192.0.2.1", "2h0m0s 192.0.2.1")
		if s := b.set.Status("six0"); s.State != api.UpdateDone || s.Host != account.Host {
			t.Errorf("%+v", s)
		}
		b.set.Resume() // nothing was refused
		time.Sleep(time.Hour)
		b.expect("0s 192.0.2.1", "1h0m0s 192.0.2.1", "2h0m0s 192.0.2.1")
	})
}

// Several tunnels do not wait for each other, and those that are removed report no more.
func TestSeveral(t *testing.T) {
	inBubble(t, always(good), func(b *broker) {
		b.follow("192.0.2.1", "192.0.2.1")
		b.follow("192.0.2.1")
		if b.set.Status("six1") != nil || b.set.Status("six0") == nil {
			t.Error("six0 has a status, six1 has none")
		}
		time.Sleep(time.Minute)
		b.follow("192.0.2.2", "192.0.2.2")
		b.follow()
		if len(b.asked) != 4 || b.set.Status("six0") != nil {
			t.Errorf("%q", b.asked)
		}
	})
}
