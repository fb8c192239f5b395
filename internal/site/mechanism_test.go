package site

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap/lisp/node"
	"sixfour/encap/resolve"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

var (
	first  = netip.MustParseAddr("192.0.2.1")
	second = netip.MustParseAddr("192.0.2.2")
	ours6  = netip.MustParseAddr("2001:db8::9")
	ours   = netip.MustParseAddr("198.51.100.9")
)

// isatap returns a mechanism with one router of a name and one of an address.
func isatap() *Mechanism {
	return New(0, resolve.ISATAP{Routers: []resolve.Host{{Name: "routers.example"}, {Addr: second}}})
}

// Packets go to the first host that is not down and not this host itself; if all are down,
// to the first.
func TestToward(t *testing.T) {
	m := isatap()
	want := func(a netip.Addr) {
		t.Helper()
		if got := m.Toward(); got != a {
			t.Errorf("%v, want %v", got, a)
		}
	}
	want(second)
	m.Learn(0, []netip.Addr{ours, first})
	m.SetOwn([]netip.Addr{ours, ours6})
	want(first)
	m.SetDown([]netip.Addr{first})
	want(second)
	m.SetDown([]netip.Addr{first, second})
	want(first)
	m.SetConfig(resolve.ISATAP{Routers: []resolve.Host{{Name: "other.example"}}})
	want(netip.Addr{})
}

// Nor do packets go to this host's IPv6 addresses.
func TestTowardOwn6(t *testing.T) {
	other := netip.MustParseAddr("2001:db8::53")
	m := New(0, node.Router{Resolvers: []resolve.Host{{Addr: ours6}, {Addr: other}}})
	if got := m.Toward(); got != ours6 {
		t.Errorf("before the addresses are known: %v", got)
	}
	m.SetOwn([]netip.Addr{ours, ours6})
	if got := m.Toward(); got != other {
		t.Errorf("%v, want %v", got, other)
	}
}

// What the mechanism waits for depends on whether its name was looked up.
func TestWaits(t *testing.T) {
	m := New(0, resolve.ISATAP{Routers: []resolve.Host{{Name: "routers.example"}}})
	if w := m.Waits(); w != "the first look-up of the name routers.example" {
		t.Error(w)
	}
	m.Learn(0, nil)
	if w := m.Waits(); w != "an address of routers.example: the name does not resolve" {
		t.Error(w)
	}
}

// A mechanism whose only routers are this host itself has none; one other router is enough.
func TestOnlyOurs(t *testing.T) {
	m := New(0, resolve.ISATAP{Routers: []resolve.Host{{Name: "routers.example"}}})
	if host, only := m.OnlyOurs(); only {
		t.Errorf("without an address: %s", host)
	}
	m.SetOwn([]netip.Addr{ours, ours6})
	m.Learn(0, []netip.Addr{ours, netip.MustParseAddr("127.0.0.1")})
	if host, only := m.OnlyOurs(); !only || host != "198.51.100.9 (routers.example)" {
		t.Errorf("%q %v", host, only)
	}
	m.Learn(0, []netip.Addr{ours, first})
	if host, only := m.OnlyOurs(); only {
		t.Errorf("with another host: %s", host)
	}
	br := New(0, resolve.SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), Role: resolve.RoleBR, Relays: []resolve.Host{{Addr: ours}}})
	br.SetOwn([]netip.Addr{ours, ours6})
	if host, only := br.OnlyOurs(); only {
		t.Errorf("a border relay needs no other: %s", host)
	}
}

// The resolver stays the same until the site has changed or it has failed.
func TestAt(t *testing.T) {
	m := isatap()
	at := func() resolve.Resolver {
		t.Helper()
		r, err := m.At(m.Site(ours, nil, false))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one := at()
	if m.Local() != ours || at() != one {
		t.Error("another resolver for the same site")
	}
	m.Learn(0, []netip.Addr{first})
	two := at()
	if two == one {
		t.Error("the same resolver for another site")
	}
	m.Fail()
	if three := at(); three == two || at() != three {
		t.Error("a resolver that failed must be replaced once")
	}
	if !m.HasConfig(isatap().cfg) || m.HasConfig(resolve.ISATAP{}) {
		t.Error("the configuration is mistaken")
	}
}

// The relays that are watched are those of other hosts; the present one is the first that is
// not down.
func TestRelays(t *testing.T) {
	m := isatap()
	if a := m.Relay(); a.IsValid() {
		t.Errorf("%v before any is watched", a)
	}
	m.Learn(0, []netip.Addr{ours, first, first})
	if !m.WatchRelays(ours, true) || m.WatchRelays(ours, true) {
		t.Error("a change must be reported once")
	}
	if r := m.Relays(); !slices.Equal(r.Addrs, []netip.Addr{first, second}) || r.Self.IsValid() {
		t.Errorf("%v", r)
	}
	if fresh, changed := m.SetDown([]netip.Addr{first}); !changed || !slices.Equal(fresh, []netip.Addr{first}) || m.Relay() != second {
		t.Errorf("%v %v, to %v", fresh, changed, m.Relay())
	}
	if fresh, changed := m.SetDown([]netip.Addr{first}); changed || fresh != nil {
		t.Errorf("the same again: %v", fresh)
	}
	if fresh, _ := m.SetDown([]netip.Addr{first, second}); !slices.Equal(fresh, []netip.Addr{second}) || m.Relay() != first {
		t.Errorf("%v, to %v", fresh, m.Relay())
	}
	if !m.WatchRelays(ours, false) || len(m.Relays().Addrs) > 0 {
		t.Errorf("an inner layer watches %v", m.Relays())
	}
}

// Of the mechanisms only those that derive a prefix from an address have one.
func TestDelegated(t *testing.T) {
	if p, ok := isatap().Delegated(ours); ok {
		t.Errorf("%v", p)
	}
	m := New(0, resolve.SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), Role: resolve.RoleCE})
	if p, ok := m.Delegated(ours); !ok || p.String() != "2001:db8:c633:6409::/64" {
		t.Errorf("%v %v", p, ok)
	}
	core, seen := observer.New(zap.DebugLevel)
	if isatap().Warn(zap.New(core)); seen.Len() > 0 {
		t.Error(seen.All())
	}
}
