package leases

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sixfour/internal/store/etcd"
	"sixfour/internal/store/etcd/etcdtest"
)

var outer = netip.MustParseAddrPort("192.0.2.7:1234")

// heard are the events of a base.
type heard struct {
	mu  sync.Mutex
	all []Event
}

func (h *heard) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
}

// await waits for an event, and forgets those before it.
func (h *heard) await(t *testing.T, kind Kind, account string) (e Event) {
	t.Helper()
	etcdtest.Until(t, fmt.Sprintf("event %d of %q", kind, account), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for len(h.all) > 0 {
			e, h.all = h.all[0], h.all[1:]
			if e.Kind == kind && e.Account == account {
				return true
			}
		}
		return false
	})
	return e
}

func (h *heard) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = nil
}

// server opens a base that shares the store of a cluster.
func server(t *testing.T, c *etcdtest.Cluster, host int) (*Base, *heard) {
	t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: c.Endpoints(), CA: c.CA, Cert: c.Cert, Key: c.Key, TTL: 2 * time.Second, Dial: c.Dial(host)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := &heard{}
	config := config(s)
	config.Server, config.Open, config.Silence, config.Notify = fmt.Sprint("server ", host), true, time.Second, h.add
	return base(t, config), h
}

// held reports what a base knows of who has a client.
func held(b *Base, name string) string {
	l, _ := b.Lease(name)
	if !l.Until.IsZero() || l.Last == (Holding{}) {
		return ""
	}
	return l.Last.Server
}

func TestServers(t *testing.T) {
	c := etcdtest.New(t)
	a, heardA := server(t, c, 0)
	b, heardB := server(t, c, 1)

	// The same account has the same prefix at both, and two accounts have never the same.
	add(t, a, Account{Name: "x", Secret: "1"})
	etcdtest.Until(t, "the account at the other server", func() bool { got, _ := b.Account("x"); return got.Secret == "1" })
	var mu sync.Mutex
	var clients sync.WaitGroup
	prefixes := map[string]string{}
	for i := range 120 {
		for _, at := range []*Base{a, b} {
			clients.Go(func() {
				name := fmt.Sprint("n", i)
				if i == 0 {
					name = "x"
				}
				got := assigned(t, at, name, 0)
				mu.Lock()
				defer mu.Unlock()
				if had, ok := prefixes[got]; ok && had != name {
					t.Errorf("%s and %s have %s", had, name, got)
				}
				prefixes[got] = name
			})
		}
	}
	clients.Wait()
	if len(prefixes) != 120 {
		t.Errorf("%d prefixes", len(prefixes))
	}

	// A client that moves.
	a.Hold("x", "ayiya", outer)
	etcdtest.Until(t, "b to know that a has x", func() bool { return held(b, "x") == "server 0" })
	began := time.Now()
	b.Hold("x", "tsp", outer)
	if e := heardA.await(t, Moved, "x"); e.Server != "server 1" {
		t.Errorf("%+v", e)
	}
	t.Logf("the former server knew after %v", time.Since(began))
	etcdtest.Until(t, "a to know that b has x", func() bool { return held(a, "x") == "server 1" })
	if l, _ := a.Lease("x"); l.Last.Protocol != "tsp" || l.Last.Outer != outer {
		t.Errorf("%+v", l)
	}
	b.Release("x")
	etcdtest.Until(t, "a to know that x has left", func() bool { return held(a, "x") == "" })

	// An account that is changed at one is changed at the other.
	b.Hold("n1", "json", outer)
	if _, err := a.Change(t.Context(), "n1", func(a *Account) { a.Enabled = false }); err != nil {
		t.Error(err)
	}
	heardB.await(t, Changed, "n1")
	if got := assigned(t, b, "n1", 0); got != "disabled" {
		t.Error(got)
	}

	// A server that is cut off serves known leases, gives no new ones, and ends clients that may be
	// elsewhere.
	for _, name := range []string{"n2", "n3"} {
		a.Hold(name, "json", outer)
		etcdtest.Until(t, "b to know who has "+name, func() bool { return held(b, name) == "server 0" })
	}
	known := assigned(t, a, "n2", 0)
	c.CutHost(t, 0, true)
	heardA.await(t, Away, "")
	if got := assigned(t, a, "n2", 0); got != known {
		t.Errorf("a known lease: %s, want %s", got, known)
	}
	if got := assigned(t, a, "new", 0); got != "unavailable" {
		t.Errorf("a new lease: %s", got)
	}
	if _, err := a.Add(t.Context(), Account{Name: "newer"}); err == nil {
		t.Error("a new account")
	}
	heardA.await(t, Doubt, "")
	lease := assigned(t, b, "new", 0)
	before := time.Now().Add(-time.Second)
	if e := heardA.await(t, Silent, ""); e.Before.Before(before.Add(-2 * time.Second)) {
		t.Errorf("%v, want about %v", e.Before, before)
	}
	etcdtest.Until(t, "b to know that the session of a has ended", func() bool { return held(b, "n2") == "" && held(b, "n3") == "" })
	b.Hold("n2", "json", outer)
	etcdtest.Until(t, "b to have n2", func() bool { return held(b, "n2") == "server 1" })

	// It recovers: what another server has is gone, and the rest is its own.
	c.CutHost(t, 0, false)
	heardA.await(t, Moved, "n2")
	etcdtest.Until(t, "b to know that a has n3 still", func() bool { return held(b, "n3") == "server 0" })
	etcdtest.Until(t, "the new lease at a", func() bool { return assigned(t, a, "new", 0) == lease })

	// etcd goes away as a whole, and comes back.
	heardA.forget()
	c.Stop(t, true)
	heardA.await(t, Away, "")
	if got := assigned(t, a, "n3", 0); got == "unavailable" {
		t.Errorf("a known lease: %s", got)
	}
	if got := assigned(t, b, "newest", 0); got != "unavailable" {
		t.Errorf("a new lease: %s", got)
	}
	c.Stop(t, false)
	heardA.await(t, Back, "")
	etcdtest.Until(t, "a new lease", func() bool { return assigned(t, b, "newest", 0) != "unavailable" })
	etcdtest.Until(t, "a to have n3", func() bool { return held(b, "n3") == "server 0" })
	if got := assigned(t, a, "newest", 0); got != assigned(t, b, "newest", 0) {
		t.Errorf("%s", got)
	}
}

// One of three members is killed, then another is cut off and comes back, while both servers
// assign prefixes: no two clients get the same, and none loses what it was promised.
func TestMembers(t *testing.T) {
	c := etcdtest.New(t)
	a, _ := server(t, c, 0)
	b, _ := server(t, c, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	promised := map[string]string{} // by name
	var clients sync.WaitGroup
	for i, at := range []*Base{a, b, a, b} {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("%d.%d", i%2, n) // two clients of the same name at each server
				l, err := at.Assign(t.Context(), name, 0)
				if err != nil {
					continue
				}
				mu.Lock()
				if was, ok := promised[name]; ok && was != l.Prefix.String() {
					t.Errorf("%s: %s, and %v", name, was, l.Prefix)
				}
				promised[name] = l.Prefix.String()
				mu.Unlock()
			}
		})
	}
	some := func(why string) {
		t.Helper()
		mu.Lock()
		from := len(promised)
		mu.Unlock()
		etcdtest.Until(t, "leases "+why, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(promised) > from+50
		})
	}
	some("at first")
	c.Kill(0)
	some("with two members")
	c.CutMember(t, 1, true)
	time.Sleep(time.Second)
	c.CutMember(t, 1, false)
	some("after one was cut off")
	cancel()
	clients.Wait()
	of := map[string]string{}
	for name, p := range promised {
		if other, ok := of[p]; ok {
			t.Errorf("%s and %s have %s", name, other, p)
		}
		of[p] = name
		for _, at := range []*Base{a, b} {
			etcdtest.Until(t, "the lease of "+name, func() bool { return assigned(t, at, name, 0) == p })
		}
	}
	t.Logf("%d leases", len(of))
}
