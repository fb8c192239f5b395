package leases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/store"
	"sixfour/transport/access"
)

func bolt(t testing.TB, path string) *store.Bolt {
	t.Helper()
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func config(s store.Store) Config {
	return Config{Store: s, Server: "a", Pool: []netip.Prefix{prefix("2001:db8:100::/56"), prefix("2001:db8:200::/48")}, PrefixLength: 64, MaxPrefixLength: 56, Endpoints: prefix("2001:db8:ff::/48")}
}

// fast are intervals for tests.
var fast = times{last: 20 * time.Millisecond, alive: time.Hour, timeout: 2 * time.Second, again: 20 * time.Millisecond}

func base(t testing.TB, c Config) *Base {
	t.Helper()
	b, err := open(t.Context(), c, fast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func add(t testing.TB, b *Base, a Account) Account {
	t.Helper()
	a.Enabled = true
	a, err := b.Add(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// assigned returns the prefix that a client gets, or the reason why it gets none.
func assigned(t testing.TB, b *Base, name string, bits int) string {
	t.Helper()
	l, err := b.Assign(context.Background(), name, bits)
	if err == nil {
		return l.Prefix.String()
	}
	var why *access.Refusal
	if !errors.As(err, &why) {
		t.Errorf("%s: %v is no refusal", name, err)
		return err.Error()
	}
	return string(why.Reason)
}

// Which prefix a client gets, first, and again after the daemon has started anew.
func TestAssign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := bolt(t, path)
	b := base(t, config(s))
	for _, a := range []Account{
		{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "a/lease/b"},
		{Name: "fixed", Fixed: prefix("2001:db8:100:1::/64")},
		{Name: "outside", Fixed: prefix("2001:db8:5000::/48")},
		{Name: "large", Limits: Limits{PrefixLength: 50}},
		{Name: "small", Limits: Limits{PrefixLength: 62}},
	} {
		add(t, b, a)
	}
	cases := []struct {
		name string
		bits int
		want string
	}{
		{"nobody", 0, "unknown_account"},
		{"", 0, "unknown_account"},
		{"b", 0, "2001:db8:100::/64"},
		{"a", 64, "2001:db8:100:2::/64"}, // 1 is that of fixed
		{"b", 0, "2001:db8:100::/64"},
		{"b", 56, "2001:db8:100::/64"}, // it has one
		{"c", 56, "2001:db8:200::/56"}, // none is left in the first pool
		{"fixed", 56, "2001:db8:100:1::/64"},
		{"outside", 0, "2001:db8:5000::/48"},
		{"large", 48, "2001:db8:200:4000::/50"},
		{"small", 48, "2001:db8:100:4::/62"},
		{"d", 128, "2001:db8:100:3::/64"},
		{"a/lease/b", 0, "2001:db8:100:8::/64"},
	}
	for range 2 {
		for _, c := range cases {
			if got := assigned(t, b, c.name, c.bits); got != c.want {
				t.Errorf("%s /%d: %s, want %s", c.name, c.bits, got, c.want)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		s = bolt(t, path)
		b = base(t, config(s))
	}
	if accounts, leases, free := b.Sizes(); accounts != 9 || leases != 9 || free != 256-4-4-1+65536-256-16384 {
		t.Errorf("%d accounts, %d leases, %d free", accounts, leases, free)
	}
}

// A pool that is used up, an account that is disabled, a lease outside the pool.
func TestNoLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := bolt(t, path)
	c := config(s)
	c.Pool = []netip.Prefix{prefix("2001:db8:100::/63")}
	b := base(t, c)
	for _, name := range []string{"a", "b", "c"} {
		add(t, b, Account{Name: name})
	}
	want := func(name, want string) {
		t.Helper()
		if got := assigned(t, b, name, 0); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	want("a", "2001:db8:100::/64")
	want("b", "2001:db8:100:1::/64")
	want("c", "no_prefix")
	if _, err := b.Change(t.Context(), "a", func(a *Account) { a.Enabled = false }); err != nil {
		t.Error(err)
	}
	want("a", "disabled")
	want("c", "no_prefix") // a gets it again when it is enabled
	if _, err := b.Change(t.Context(), "a", func(a *Account) { a.Enabled = true }); err != nil {
		t.Error(err)
	}
	want("a", "2001:db8:100::/64")
	if l, err := b.Free(t.Context(), "b"); err != nil || l.Prefix != prefix("2001:db8:100:1::/64") {
		t.Errorf("%v, %v", l, err)
	}
	want("c", "2001:db8:100:1::/64")
	want("b", "no_prefix")
	if err := b.Remove(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	want("a", "unknown_account")
	want("b", "2001:db8:100::/64")

	b.Close()
	c.Pool = []netip.Prefix{prefix("2001:db8:100:1::/64"), prefix("2001:db8:300::/48")}
	b = base(t, c)
	want("b", "no_prefix")
	want("c", "2001:db8:100:1::/64")
	if _, err := b.Free(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	want("b", "2001:db8:300::/64")
}

func TestAccounts(t *testing.T) {
	s := bolt(t, filepath.Join(t.TempDir(), "broker.db"))
	b := base(t, config(s))
	ctx := t.Context()
	a := add(t, b, Account{Name: "a\x1b[31m\n", Secret: "s"})
	add(t, b, Account{Name: "b", Fixed: prefix("2001:db8:100:10::/60")})
	assigned(t, b, "a\x1b[31m\n", 0)
	for _, c := range []struct {
		err  func() error
		want string
	}{
		{func() error { _, err := b.Add(ctx, Account{Name: "b"}); return err }, `there is an account "b" already`},
		{func() error { _, err := b.Add(ctx, Account{Name: ""}); return err }, "empty"},
		{func() error { _, err := b.Add(ctx, Account{Name: "\xff"}); return err }, "UTF-8"},
		{func() error { _, err := b.Add(ctx, Account{Name: "a\x00"}); return err }, "UTF-8"},
		{func() error { _, err := b.Add(ctx, Account{Name: strings.Repeat("x", 256)}); return err }, "at most 255"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Type: "gre"}); return err }, "ayiya, heartbeat, 6in4"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Limits: Limits{MTU: 1000}}); return err }, "MTU"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Limits: Limits{PrefixLength: 65}}); return err }, "16 to 64"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Fixed: prefix("2001:db8::1/64")}); return err }, "2001:db8::/64"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Fixed: prefix("192.0.2.0/24")}); return err }, "IPv6"},
		{func() error {
			_, err := b.Add(ctx, Account{Name: "c", Fixed: prefix("2001:db8:100:1f::/64")})
			return err
		}, "overlaps"},
		{func() error { _, err := b.Add(ctx, Account{Name: "c", Fixed: prefix("2001:db8:100::/64")}); return err }, "overlaps"},
		{func() error {
			_, err := b.Add(ctx, Account{Name: "c", Fixed: prefix("2001:db8:ff:1::/64")})
			return err
		}, "overlaps"},
		{func() error { _, err := b.Change(ctx, "c", func(*Account) {}); return err }, `there is no account "c"`},
		{func() error {
			_, err := b.Change(ctx, "b", func(a *Account) { a.Fixed = prefix("2001:db8:100::/60") })
			return err
		}, "overlaps"},
		{func() error { return b.Remove(ctx, "c") }, "no account"},
		{func() error { _, err := b.Free(ctx, "b"); return err }, "no lease"},
	} {
		if err := c.err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if got, ok := b.At(netip.MustParseAddr("2001:db8:ff:1::2")); !ok || got.Name != a.Name || got.Secret != "s" || a.Number != 1 {
		t.Errorf("%+v", got)
	}
	for _, no := range []string{"2001:db8:ff:1::1", "2001:db8:ff:1::3", "2001:db8:ff:3::2", "2001:db8:ff::2", "2001:db8:fe:1::2", "192.0.2.1"} {
		if got, ok := b.At(netip.MustParseAddr(no)); ok {
			t.Errorf("%s: %+v", no, got)
		}
	}
	// A number is not used again, and another fixed prefix replaces the lease.
	if err := b.Remove(ctx, a.Name); err != nil {
		t.Error(err)
	}
	if again := add(t, b, Account{Name: a.Name}); again.Number != 3 {
		t.Errorf("number %d", again.Number)
	}
	assigned(t, b, a.Name, 0)
	if _, err := b.Change(ctx, a.Name, func(a *Account) { a.Fixed, a.Number = prefix("2001:db8:100::/60"), 9 }); err != nil {
		t.Error(err)
	}
	if got := assigned(t, b, a.Name, 0); got != "2001:db8:100::/60" {
		t.Errorf("%s", got)
	}
	if _, err := b.Change(ctx, a.Name, func(a *Account) { a.Fixed = netip.Prefix{} }); err != nil {
		t.Error(err)
	}
	if got := assigned(t, b, a.Name, 0); got != "2001:db8:100::/60" {
		t.Errorf("it had one that is in the pool, and got %s", got)
	}
	var names []string
	b.Accounts(func(a Account) bool { names = append(names, fmt.Sprintf("%q %d", a.Name, a.Number)); return true })
	if got := strings.Join(names, ", "); got != `"a\x1b[31m\n" 3, "b" 2` {
		t.Errorf("%s", got)
	}
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		endpoints string
		number    uint64
		client    string
	}{
		{"2001:db8:ff::/48", 1, "2001:db8:ff:1::2"},
		{"2001:db8:ff::/48", 0xffff, "2001:db8:ff:ffff::2"},
		{"2001:db8:ff::/48", 0x10000, "invalid IP"},
		{"2001:db8:ff::/48", 0, "invalid IP"},
		{"2001:db8:f0::/44", 0x12345, "2001:db8:f1:2345::2"},
		{"2001:db8:ff:1::/64", 1, "invalid IP"},
	} {
		b := &Base{config: Config{Endpoints: prefix(c.endpoints)}}
		e := b.Endpoint(c.number)
		if e.Client.String() != c.client {
			t.Errorf("%s, %d: %v, want %s", c.endpoints, c.number, e, c.client)
		}
		if e.Client.IsValid() && (b.number(e.Client) != c.number || b.number(e.Broker) != 0 || e.Broker != e.Client.Prev()) {
			t.Errorf("%s, %d: %v is of %d", c.endpoints, c.number, e, b.number(e.Client))
		}
	}
}

// An open broker makes accounts, up to a limit. Many that come at the same time get different
// prefixes, and one that comes many times gets one.
func TestOpenBroker(t *testing.T) {
	s := bolt(t, filepath.Join(t.TempDir(), "broker.db"))
	c := config(s)
	c.Open, c.MaxAccounts = true, 100
	b := base(t, c)
	if a, ok := b.Account("n0"); !ok || a.Secret != "" || a.Number != 0 || !a.Enabled {
		t.Errorf("%+v", a)
	}
	if got := assigned(t, b, "\xff", 0); got != "bad_message" {
		t.Errorf("a name that is not UTF-8: %s", got)
	}
	var mu sync.Mutex
	var clients sync.WaitGroup
	got := map[string]string{}
	for i := range 300 {
		clients.Go(func() {
			name := fmt.Sprintf("n%d", i%100)
			p := assigned(t, b, name, 0)
			mu.Lock()
			defer mu.Unlock()
			if before, ok := got[name]; ok && before != p {
				t.Errorf("%s: %s and %s", name, before, p)
			}
			got[name] = p
		})
	}
	clients.Wait()
	of := map[string]string{}
	for name, p := range got {
		if _, ok := of[p]; ok || !strings.HasPrefix(p, "2001:db8:100:") {
			t.Errorf("%s and %s have %s", name, of[p], p)
		}
		of[p] = name
	}
	if len(of) != 100 || assigned(t, b, "another", 0) != "no_prefix" {
		t.Errorf("%d prefixes", len(of))
	}
}

// On a full disk clients that have a lease get it, others are told to come later, and the
// operator once why.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s, h := bolt(t, filepath.Join(dir, "broker.db")), &heard{}
	c := config(s)
	c.Open, c.Notify = true, h.add
	b := base(t, c)
	first := assigned(t, b, "0", 0)
	given, refused := 1, 0
	for n := 1; refused < 20; n++ {
		switch _, err := b.Assign(t.Context(), fmt.Sprint(n), 0); {
		case err == nil:
			given++
		case strings.Contains(err.Error(), dir):
			t.Errorf("a stranger is told %v", err)
			fallthrough
		default:
			refused++
		}
		if n > 10_000 {
			t.Fatal("the disk does not get full")
		}
	}
	if e := h.await(t, Failed, ""); !errors.Is(e.Err, store.ErrFull) {
		t.Errorf("%+v", e)
	}
	if got := assigned(t, b, "0", 0); got != first {
		t.Errorf("%s, want %s", got, first)
	}
	if _, leases, _ := b.Sizes(); leases != given {
		t.Errorf("%d leases, and %d were given", leases, given)
	}
}
