package leases

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"sixfour/internal/store/etcd/etcdtest"
)

// What connected clients must know of changes of their accounts, and what is known of a client
// after it has left, and after the server was started anew.
func TestHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := bolt(t, path)
	h, c := &heard{}, config(s)
	c.Notify = h.add
	b := base(t, c)
	for _, name := range []string{"a", "b", "c", "d"} {
		add(t, b, Account{Name: name, Secret: "1"})
		assigned(t, b, name, 0)
		b.Hold(name, "heartbeat", outer)
	}
	if _, err := b.Change(t.Context(), "a", func(a *Account) { a.Secret = "2" }); err != nil {
		t.Error(err)
	}
	h.await(t, Changed, "a")
	if _, err := b.Free(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	h.await(t, Changed, "b")
	if err := b.Remove(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	h.await(t, Changed, "c")
	b.Release("c")
	b.Release("c")
	b.Release("nobody")
	if _, ok := b.Lease("c"); ok || b.view.accounts["c"] != nil {
		t.Error("c is still known")
	}

	moved := netip.MustParseAddrPort("192.0.2.8:1")
	b.Move("d", moved)
	b.Move("nobody", moved)
	if l, ok := b.Lease("d"); !ok || l.Last.Outer != moved || l.Last.Server != "a" || l.Last.Protocol != "heartbeat" || !l.Until.IsZero() {
		t.Errorf("%+v", l)
	}
	b.Release("d")
	if l, _ := b.Lease("d"); time.Since(l.Until) > time.Minute {
		t.Errorf("%+v", l)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	s.Close()

	b = base(t, config(bolt(t, path)))
	if l, ok := b.Lease("d"); !ok || l.Last.Outer != moved || l.Last.Server != "a" || time.Since(l.Last.Since) > time.Minute || time.Since(l.Until) > time.Minute {
		t.Errorf("%+v", l)
	}
	// a was connected when the server ended without a word.
	if l, ok := b.Lease("a"); !ok || l.Last.Outer != outer || time.Since(l.Until) > time.Minute {
		t.Errorf("%+v", l)
	}
}

// An address is written soon after it has changed, although the server does not end.
func TestMoveIsWritten(t *testing.T) {
	s := bolt(t, filepath.Join(t.TempDir(), "broker.db"))
	b := base(t, config(s))
	add(t, b, Account{Name: "a"})
	assigned(t, b, "a", 0)
	b.Hold("a", "json", outer)
	moved := netip.MustParseAddrPort("[2001:db8::1]:7")
	b.Move("a", moved)
	etcdtest.Until(t, "the address in the store", func() bool {
		b.mu.RLock()
		defer b.mu.RUnlock()
		last := b.view.accounts["a"].last
		return last != nil && last.Outer == moved
	})
}
