package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Only those addresses of a name server count that can be an end of a tunnel.
func TestUsable(t *testing.T) {
	var addrs []netip.Addr
	for _, a := range []string{"198.51.100.2", "0.0.0.0", "::ffff:198.51.100.1", "255.255.255.255", "224.0.0.1", "240.0.0.1", "198.51.100.1", "::", "::1", "ff02::1", "fe80::1%eth0", "fe80::1", "2001:db8::1", "127.0.0.1"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if got := fmt.Sprint(usable(addrs)); got != "[198.51.100.2 198.51.100.1 2001:db8::1 127.0.0.1]" {
		t.Error(got)
	}
}

// Another order of the same addresses is no change.
func TestSameSet(t *testing.T) {
	list := addrsOf("192.0.2.1", "192.0.2.2", "192.0.2.3")
	for _, c := range []struct {
		other []netip.Addr
		want  bool
	}{
		{list, true},
		{addrsOf("192.0.2.3", "192.0.2.1", "192.0.2.2"), true},
		{addrsOf("192.0.2.3", "192.0.2.1"), false},
		{addrsOf("192.0.2.3", "192.0.2.1", "192.0.2.4"), false},
		{nil, false},
	} {
		if got := sameSet(list, c.other); got != c.want {
			t.Errorf("%v: %v", c.other, got)
		}
	}
	if list[0] != netip.MustParseAddr("192.0.2.1") {
		t.Error("the order was changed")
	}
}

func addrsOf(list ...string) (addrs []netip.Addr) {
	for _, a := range list {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

// The present address of a name stays in use as long as the name has it.
func TestLearn(t *testing.T) {
	var r Remote
	for _, c := range []struct {
		what    string
		addrs   []netip.Addr
		before  string // "": none
		changed bool
		now     string
		several bool
	}{
		{"the first look-up fails", nil, "", true, "", false},
		{"another look-up fails", nil, "", false, "", false},
		{"two addresses", addrsOf("192.0.2.1", "192.0.2.2"), "", true, "192.0.2.1", true},
		{"a smaller address", addrsOf("192.0.2.0", "192.0.2.1"), "", false, "192.0.2.1", true},
		{"it has moved", addrsOf("192.0.2.7"), "192.0.2.1", true, "192.0.2.7", false},
	} {
		before, changed := r.Learn(c.addrs)
		if text(before) != c.before || changed != c.changed || text(r.Addr()) != c.now || r.HasAlternatives() != c.several || !r.Looked() {
			t.Errorf("%s: before %v, changed %v, now %v, several %v", c.what, before, changed, r.Addr(), r.HasAlternatives())
		}
	}
	if r.Forget(); r.Looked() || r.Addr().IsValid() || r.HasAlternatives() {
		t.Errorf("a forgotten name has %v", r.Addr())
	}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// A remote that is down tries the addresses of its name in turn, and after each round it
// stays longer at each of them.
func TestLeaveDead(t *testing.T) {
	var r Remote
	r.Learn(addrsOf("192.0.2.1", "192.0.2.2", "192.0.2.3"))
	now := time.Now()
	usable := func(a netip.Addr) bool { return a != netip.MustParseAddr("192.0.2.2") && a == r.Addr() }
	for i, c := range []struct {
		addr string
		wait time.Duration
	}{{"192.0.2.3", 0}, {"192.0.2.1", 0}, {"192.0.2.3", movePause}, {"192.0.2.1", movePause}, {"192.0.2.3", movePause}, {"192.0.2.1", 2 * movePause}} {
		if !r.LeaveDead(now, usable) {
			t.Fatalf("%d: no other address", i)
		}
		wait := time.Duration(0)
		if !r.Due().IsZero() {
			wait = r.Due().Sub(now)
		}
		if text(r.Addr()) != c.addr || wait != c.wait {
			t.Errorf("%d: %v for %v, not %s for %v", i, r.Addr(), wait, c.addr, c.wait)
		}
	}
	if r.Reached(); !r.Due().IsZero() {
		t.Errorf("the next change after the path was up is not possible until %v", r.Due())
	}
	at := r.Addr()
	if r.LeaveDead(now, func(netip.Addr) bool { return false }) || r.Addr() != at {
		t.Errorf("moved from %v to %v, which cannot be used", at, r.Addr())
	}
}

// A name is looked up again at intervals, and soon if its address is in doubt. Only changes
// are reported, and nothing after Stop.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var queries []time.Duration
		begun := time.Now()
		lookups := NewResolver(&net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			if since := time.Since(begun); !slices.Contains(queries, since) {
				queries = append(queries, since)
			}
			return nil, fmt.Errorf("no network")
		}})
		var wg sync.WaitGroup
		var r Remote
		var found [][]netip.Addr
		r.Follow(t.Context(), &wg, lookups, "ip4", "name.example.", func(_ context.Context, addrs []netip.Addr) { found = append(found, addrs) })
		synctest.Wait()
		time.Sleep(retry / 2)
		r.Doubt()
		r.Doubt()
		synctest.Wait()
		time.Sleep(retry)
		r.Stop()
		wg.Wait()
		r.Doubt() // has no effect
		if !slices.Equal(queries, []time.Duration{0, retry}) {
			t.Errorf("looked up after %v", queries)
		}
		if len(found) != 1 || len(found[0]) != 0 {
			t.Errorf("reported %v, not one failure", found)
		}
	})
}
