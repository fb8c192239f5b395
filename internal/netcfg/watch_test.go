package netcfg

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// TestWatch: each kind of change is reported, and a change of a link with its index.
func TestWatch(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	index, err := ns.Handle().LinkByName("eth0")
	rigtest.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var others, links atomic.Int64
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, ns.Path(), false, func(c Change) {
			if c.Link == 0 {
				others.Add(1)
			} else if c.Link == index.Attrs().Index {
				links.Add(1)
			}
		})
	}()
	told := func(what string, count *atomic.Int64, change func(i int)) {
		t.Helper()
		before := count.Load()
		for i, deadline := 0, time.Now().Add(10*time.Second); count.Load() == before; i++ {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not told", what)
			}
			change(i) // again, because the watch may not have started
			time.Sleep(time.Millisecond)
		}
	}
	told("MTU", &links, func(i int) { rigtest.Must(t, ns.SetMTU("eth0", 1400+i%2)) })
	// From here on the watch has started.
	settle := func() {
		for before := int64(-1); before != others.Load(); time.Sleep(20 * time.Millisecond) {
			before = others.Load()
		}
	}
	once := func(f func() error) func(int) {
		return func(i int) {
			if i == 0 {
				rigtest.Must(t, f())
			}
		}
	}
	for _, c := range []struct{ address, route, via string }{
		{"192.0.2.9/32", "203.0.113.0/24", "192.0.2.2"},
		{"2001:db8::9/128", "2001:db8:2::/64", "2001:db8::2"},
	} {
		settle()
		told("address "+c.address, &others, once(func() error { return ns.AddAddr("eth0", netip.MustParsePrefix(c.address)) }))
		settle()
		told("route "+c.route, &others, once(func() error { return ns.AddRoute(netip.MustParsePrefix(c.route), addr(c.via), "eth0") }))
	}
	// If a link loses something, its index is reported.
	for _, c := range []struct{ address, route, via string }{
		{"192.0.2.9/32", "203.0.113.0/24", "192.0.2.2"},
		{"2001:db8::9/128", "2001:db8:2::/64", "2001:db8::2"},
	} {
		told("no route "+c.route, &links, once(func() error { return ns.DelRoute(netip.MustParsePrefix(c.route), addr(c.via), "eth0") }))
		told("no address "+c.address, &links, once(func() error { return ns.DelAddr("eth0", netip.MustParsePrefix(c.address)) }))
	}
	cancel()
	rigtest.Must(t, <-done)

	missing, err := rig.New("missing")
	rigtest.Must(t, err)
	path := missing.Path()
	missing.Close()
	if err := Watch(t.Context(), path, false, func(Change) {}); err == nil {
		t.Error("watches a namespace that does not exist")
	}
}
