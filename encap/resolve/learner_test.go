package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// told returns an advertisement of a prefix.
func told(prefix string, valid time.Duration) *nd.Message {
	return &nd.Message{Type: nd.RouterAdvertisement, Lifetime: 30 * time.Minute, Prefixes: []nd.Prefix{
		{Prefix: netip.MustParsePrefix(prefix), Auto: true, OnLink: true, Valid: valid, Preferred: valid}}}
}

// TestForgedAdvertisements: a prefix that is forged once, in any number and for any
// time, keeps no other out; a prefix that was advertised repeatedly is not evicted by a
// flood.
func TestForgedAdvertisements(t *testing.T) {
	l := &nd.Learner{InterfaceID: 7}
	forge := func(now time.Time) {
		for i := range 2 * nd.MaxPrefixes {
			l.Advertised(told(fmt.Sprintf("2001:db8:bad:%x::/64", i), nd.Infinite), header.Word6{Hi: 0xfe80 << 48, Lo: uint64(i)}, now)
		}
	}
	genuine := header.Word6{Hi: 0xfe80 << 48, Lo: 0xcafe}
	knows := func(prefix string) bool {
		return slices.ContainsFunc(l.Prefixes, func(q nd.LearntPrefix) bool { return q.Prefix == netip.MustParsePrefix(prefix) }) &&
			slices.ContainsFunc(l.Routers, func(q nd.Router) bool { return q.Addr == genuine })
	}
	const real = "2001:db8:1::/64"
	now := start
	forge(now)
	if len(l.Prefixes) != nd.MaxPrefixes || len(l.Routers) != nd.MaxRouters {
		t.Fatalf("%d prefixes, %d routers", len(l.Prefixes), len(l.Routers))
	}
	now = now.Add(nd.ConfirmedAfter)
	l.Advertised(told(real, time.Hour), genuine, now)
	if !knows(real) {
		t.Error("forged advertisements keep a router out")
	}
	now = now.Add(200 * time.Second) // again, as routers do
	l.Advertised(told(real, time.Hour), genuine, now)
	for range 600 { // a flood for ten minutes
		now = now.Add(time.Second)
		forge(now)
	}
	if !knows(real) || len(l.Prefixes) != nd.MaxPrefixes || len(l.Routers) != nd.MaxRouters {
		t.Errorf("a flood pushes a router out: %v, %v", l.Prefixes, l.Routers)
	}
}

// TestNoRouterLiftsTheGuards: no router can announce that a destination that leads back
// to this host is on its link.
func TestNoRouterLiftsTheGuards(t *testing.T) {
	const here, router = "192.0.2.1", "198.51.100.2"
	site := at(here)
	site.Delegated, site.Elsewhere = prefixes("3fff:100::/56"), prefixes("2001:db8:aaaa::/64")
	for _, m := range []Mechanism{SixOverFour{}, ISATAP{Routers: []Host{host(router)}}} {
		r := resolver(t, m, site).(Agent)
		r.Next(start)
		hear := func(prefix string) {
			src := isatapLocal(v4(router))
			if _, ok := m.(SixOverFour); ok {
				src = header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(router))}
			}
			r.Receive(heard(router), nd.Append(nil, src.Addr(), nd.AllNodes.Addr(), told(prefix, nd.Infinite)), start)
		}
		for _, prefix := range []string{"2000::/1", "::/1", "2000::/3", "2002::/16", "2002:c000:201::/48", "2002:c000:201:5::/64", "3fff:100:0:7::/64", "2001::/32", "2001:db8:aaaa::/64"} {
			hear(prefix)
		}
		if got := r.Learnt().Addresses; len(got) > 0 {
			t.Errorf("%T: learnt %v", m, got)
		}
		for _, back := range []string{"2002:c000:201:5::9", "3fff:100:0:7::9", "2001:db8:9:9:0:5efe:192.0.2.1"} {
			if why := received(r, inner(router, here), header.IPv6(inner(back, "2001:db8:77::1"))); why != drop.Loop {
				t.Errorf("%T: from %s: %v", m, back, why)
			}
			if _, why := r.To(header.IPv6(inner("2001:db8:77::1", back))); why != drop.Loop {
				t.Errorf("%T: to %s: %v", m, back, why)
			}
		}
		hear("2002:c633:6402:5::/64") // the 6to4 site of another host, such as the router
		hear("2001:db8:5::/64")
		if got := r.Learnt().Addresses; len(got) != 2 {
			t.Errorf("%T: learnt %v", m, got)
		}
	}
}

// TestSixOverFourSolicitsSlowly: packets to addresses that nobody has do not flood the
// site with solicitations, and solicitations from :: do not flood it with answers.
func TestSixOverFourSolicitsSlowly(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::192.0.2.1/64")).(Agent)
	now, multicasts := start, 0
	next := func() {
		send, _, _ := r.Next(now)
		for _, m := range send {
			if m.To.IPv4()>>28 == 0xe {
				multicasts++
			}
		}
	}
	const seconds = 20
	own := netip.MustParseAddr("2001:db8::192.0.2.1")
	free := nd.Append(nil, netip.IPv6Unspecified(), nd.SolicitedNode(own), &nd.Message{Type: nd.NeighborSolicitation, Target: own})
	for i := range seconds * 1000 {
		r.Hold(inner("2001:db8::192.0.2.1", fmt.Sprintf("2001:db8::%x:%x", i>>16+1, i&0xffff)), now)
		r.Receive(heard(two), free, now)
		next()
		now = now.Add(time.Millisecond)
	}
	if most := multicastPerSecond*(seconds+1) + solicitations; multicasts > most || multicasts < most/2 {
		t.Errorf("%d messages to groups in %d s, want at most %d", multicasts, seconds, most)
	}
	// When it is over, one who is there is found.
	for range nd.MostTries + 1 { // until all are given up
		now = now.Add(nd.RetransTimer)
		next()
	}
	multicasts = 0
	r.Hold(inner("2001:db8::192.0.2.1", two6), now)
	next()
	if multicasts == 0 {
		t.Error("a neighbour is not asked for")
	}
}

// Forged checks whether our address is in use do not prevent that neighbours are found, and a
// solicitation that was not sent is no try.
func TestSixOverFourFindsDuringFlood(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::192.0.2.1/64")).(*sixOverFour)
	own := netip.MustParseAddr("2001:db8::192.0.2.1")
	free := nd.Append(nil, netip.IPv6Unspecified(), nd.SolicitedNode(own), &nd.Message{Type: nd.NeighborSolicitation, Target: own})
	asks := func(now time.Time) (n int) {
		send, _, _ := r.Next(now)
		for _, m := range send {
			if m.Bytes[40] == nd.NeighborSolicitation {
				n++
			}
		}
		return n
	}
	r.Next(start)
	for range 2 * multicastPerSecond {
		r.Receive(heard(two), free, start)
	}
	r.Hold(inner("2001:db8::192.0.2.1", two6), start)
	if asks(start) != 1 {
		t.Error("forged questions take the share of our own")
	}
	// All solicitations of this moment are used up: the next neighbour is asked later.
	for r.solicits.Take(start, solicitsPerSecond) {
	}
	late := header.Word6{Hi: 0x20010db8 << 32, Lo: 77}
	r.Hold(inner("2001:db8::192.0.2.1", late.Addr().String()), start)
	if n := asks(start); n != 0 || r.cache.Find(late).Tries != 0 {
		t.Errorf("%d solicitations beyond the limit, %d tries", n, r.cache.Find(late).Tries)
	}
	now := start
	for range nd.SolicitTries - 1 { // the flood goes on
		for now = now.Add(nd.RetransTimer); r.solicits.Take(now, solicitsPerSecond); {
		}
		asks(now)
	}
	now = now.Add(nd.RetransTimer)
	if asks(now); r.cache.Find(late) == nil || r.cache.Find(late).Tries != 1 {
		t.Error("given up before it was asked")
	}
}

// In a full set of the cache, an idle neighbour that was reachable stays rather than one that
// only said its address.
func TestNeighboursReachableBeforeStay(t *testing.T) {
	c := nd.NewCache()
	c.Factor = [2]uint64{} // all addresses in one set
	friend, _ := c.Add(header.Word6{Hi: 1, Lo: 0}, start)
	friend.Enter(nd.Reachable, v4(two), start.Add(nd.ReachableTime))
	friend.Enter(nd.Stale, v4(two), time.Time{})
	for i := range uint64(3 * nd.Ways) {
		n, _ := c.Add(header.Word6{Hi: 2, Lo: i}, start.Add(time.Duration(i+1)*time.Second))
		n.Enter(nd.Stale, v4(two), time.Time{})
	}
	if c.Find(header.Word6{Hi: 1, Lo: 0}) != friend {
		t.Error("the neighbour that was reachable before had to go")
	}
}
