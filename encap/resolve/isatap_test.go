package resolve

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

var (
	isatapClient = ISATAP{Routers: []Host{host("198.51.100.2"), host("198.51.100.3")}}
	isatapServer = ISATAP{Router: true, Prefixes: prefixes("2001:db8:5efe:1::/64")}
	start        = time.Unix(1e9, 0)
)

// carry delivers messages from one speaker to another, as the network and the engine do,
// and returns those for other nodes.
func carry(t *testing.T, list []Message, from string, to Agent, address string, now time.Time) (rest []Message) {
	t.Helper()
	for _, m := range list {
		if m.To.IPv4() != v4(address) && m.To.Addr().IsMulticast() == false {
			rest = append(rest, m)
			continue
		}
		ip, r := header.ParseIPv6(m.Bytes)
		if r != drop.None {
			t.Fatalf("%v: %x", r, m.Bytes)
		}
		if why := received(to, inner(from, m.To.Addr().String()), ip); why != drop.None {
			t.Errorf("%v > %v by %s: %v", ip.Src(), ip.Dst(), from, why)
			continue
		}
		to.Receive(heard(from), ip, now)
	}
	return rest
}

func TestISATAPVectors(t *testing.T) {
	client := resolver(t, ISATAP{Routers: []Host{host("198.51.100.2")}}, at("192.0.2.1")).(Agent)
	router := resolver(t, isatapServer, at("198.51.100.2")).(Agent)

	outer, rs := vector(t, "ISATAP-1")
	send, lost, again := client.Next(start)
	if len(send) != 1 || send[0].To.Addr() != outer.Dst() || !bytes.Equal(send[0].Bytes, rs) || lost != 0 || again != start.Add(4*time.Second) {
		t.Errorf("%v, %d, %v; want %x", send, lost, again, []byte(rs))
	}
	if why := received(router, outer, rs); why != drop.None || !router.Receive(header.OuterOf(outer), rs, start) {
		t.Errorf("the router: %v", why)
	}

	outer, ra := vector(t, "ISATAP-2")
	send, _, again = router.Next(start)
	if len(send) != 1 || send[0].To.Addr() != outer.Dst() || !bytes.Equal(send[0].Bytes, ra) || !again.IsZero() {
		t.Errorf("%v, %v; want %x", send, again, []byte(ra))
	}
	if why := received(client, outer, ra); why != drop.None || !client.Receive(header.OuterOf(outer), ra, start) {
		t.Errorf("the host: %v", why)
	}
	l := client.Learnt()
	if l.MTU != 1280 || l.Default != start.Add(1800*time.Second) || len(l.Addresses) != 1 ||
		l.Addresses[0] != (Lease{netip.MustParsePrefix("2001:db8:5efe:1:200:5efe:c000:201/64"), start.Add(time.Hour), start.Add(2 * time.Hour)}) {
		t.Errorf("learnt %+v", l)
	}

	outer, in := vector(t, "ISATAP-3")
	one := resolver(t, ISATAP{}, at("10.1.1.1", "2001:db8:5efe:1:0:5efe:10.1.1.1/64"))
	two := resolver(t, ISATAP{}, at("10.1.1.2", "2001:db8:5efe:1:0:5efe:10.1.1.2/64"))
	if dst, why := one.To(in); dst.Addr() != outer.Dst() || why != drop.None {
		t.Errorf("%v, %v", dst.Addr(), why)
	}
	if why := received(two, outer, in); why != drop.None {
		t.Error(why)
	}
	outer, in = vector(t, "ISATAP-D1")
	if why := received(two, outer, in); why != drop.Spoof {
		t.Error(why)
	}
}

func TestISATAPHost(t *testing.T) {
	s := at("10.1.1.1", "2001:db8:1::5efe:10.1.1.1/64", "2001:db8:2::1/64")
	s.Links = prefixes("10.1.1.1/24")
	r := resolver(t, isatapClient, s)
	const own, router = "2001:db8:1::5efe:10.1.1.1", "198.51.100.2"
	for _, f := range []flow{
		{src: own, dst: "2001:db8:1::5efe:10.2.2.2", out: "10.2.2.2"},
		{src: own, dst: "2001:db8:1::200:5efe:198.51.100.9", out: "198.51.100.9"},
		{src: own, dst: "2001:db8:1::300:5efe:198.51.100.9", out: router}, // another identifier
		{src: own, dst: "2001:db8:9::5efe:10.2.2.2", out: router},         // not on-link
		{src: own, dst: "2001:db8:1::77", out: router},                    // no ISATAP address
		{src: own, dst: "3fff::1", out: router},
		{src: own, dst: "2001:db8:1::5efe:10.1.1.1", why: drop.Loop},
		{src: own, dst: "2001:db8:9::5efe:10.1.1.1", why: drop.Loop}, // RFC 6324
		{src: own, dst: "2002:0a01:0101::1", why: drop.Loop},
		{src: "2001:db8:9::5efe:10.1.1.1", dst: "3fff::1", why: drop.Loop},
		{src: own, dst: "2001:db8:1::5efe:127.0.0.1", why: drop.Martian},
		{src: own, dst: "2001:db8:1::5efe:224.0.0.1", why: drop.Martian},
		{src: own, dst: "2001:db8:1::5efe:169.254.0.1", why: drop.Martian},
		{src: own, dst: "2001:db8:1::5efe:10.1.1.255", why: drop.Martian}, // our subnet's broadcast
		{src: own, dst: "ff02::1", why: drop.NoPeer},
		{src: own, dst: "ff0e::1", why: drop.NoPeer},
		{src: "fe80::5efe:10.1.1.1", dst: "fe80::5efe:10.2.2.2", out: "10.2.2.2"},
		{src: own, dst: "fe80::5efe:10.2.2.2", why: drop.Martian}, // there could be no answer
		{in: "10.2.2.2", to: "10.1.1.1", src: "2001:db8:1::5efe:10.2.2.2", dst: own},
		{in: "10.2.2.3", to: "10.1.1.1", src: "2001:db8:1::5efe:10.2.2.2", dst: own, why: drop.Spoof},
		{in: router, to: "10.1.1.1", src: "3fff::1", dst: own},
		{in: "198.51.100.3", to: "10.1.1.1", src: "3fff::1", dst: own},
		{in: "198.51.100.4", to: "10.1.1.1", src: "3fff::1", dst: own, why: drop.ForeignSource},
		{in: router, to: "10.1.1.1", src: own, dst: own, why: drop.OwnSource},
		{in: router, to: "10.1.1.1", src: "2001:db8:2::1", dst: own, why: drop.OwnSource},
		{in: router, to: "10.1.1.1", src: "2001:db8:1::200:5efe:10.1.1.1", dst: own, why: drop.OwnSource},
		{in: "10.1.1.1", to: "10.1.1.1", src: "2001:db8:9::1", dst: own, why: drop.Spoof},
		{in: router, to: "10.1.1.1", src: "2001:db8:9::5efe:10.1.1.1", dst: own, why: drop.Loop},
		{in: router, to: "10.1.1.1", src: "3fff::1", dst: "2002:0a01:0101::1", why: drop.Loop},
		{in: router, to: "10.1.1.1", src: "fe80::200:5efe:198.51.100.2", dst: "fe80::5efe:10.1.1.1"},
		{in: router, to: "10.1.1.1", src: "fe80::5efe:10.2.2.2", dst: "fe80::5efe:10.1.1.1", why: drop.Spoof},
		{in: router, to: "10.1.1.1", src: "fe80::200:5efe:198.51.100.2", dst: own, why: drop.Martian},
		{in: router, to: "10.1.1.1", src: "ff02::1", dst: own, why: drop.Martian},
		{in: router, to: "10.1.1.1", src: "3fff::1", dst: "ff0e::1", why: drop.Martian},
		{in: "127.0.0.1", to: "10.1.1.1", src: "2001:db8:1::5efe:127.0.0.1", dst: own, why: drop.Martian},
	} {
		f.check(t, r)
	}
	alone := resolver(t, ISATAP{}, s)
	flow{src: own, dst: "3fff::1", why: drop.NoPeer}.check(t, alone)
	flow{src: own, dst: "2001:db8:1::5efe:10.2.2.2", out: "10.2.2.2"}.check(t, alone)
}

func TestISATAPRouter(t *testing.T) {
	r := resolver(t, isatapServer, at("10.0.0.1"))
	const p = "2001:db8:5efe:1::"
	for _, f := range []flow{
		{src: "3fff::1", dst: p + "5efe:10.2.2.2", out: "10.2.2.2"},
		{src: "3fff::1", dst: "2001:db8:5efe:2::5efe:10.2.2.2", why: drop.NoPeer},
		{src: "3fff::1", dst: p + "1", why: drop.NoPeer},
		{src: "3fff::1", dst: p + "5efe:10.0.0.1", why: drop.Loop},
		{src: "2002:0a00:0001::1", dst: p + "5efe:10.2.2.2", why: drop.Loop}, // RFC 6324: our 6to4's
		{in: "10.2.2.2", to: "10.0.0.1", src: p + "5efe:10.2.2.2", dst: "3fff::1"},
		{in: "10.2.2.3", to: "10.0.0.1", src: p + "5efe:10.2.2.2", dst: "3fff::1", why: drop.Spoof},
		{in: "10.2.2.2", to: "10.0.0.1", src: "2001:db8:5efe:2::5efe:10.2.2.2", dst: "3fff::1", why: drop.Spoof}, // not advertised
		{in: "10.2.2.2", to: "10.0.0.1", src: "3fff::2", dst: "3fff::1", why: drop.ForeignSource},
		{in: "10.2.2.2", to: "10.0.0.1", src: p + "5efe:10.2.2.2", dst: "2002:0a00:0001::1", why: drop.Loop},
		{in: "10.2.2.2", to: "10.0.0.1", src: p + "5efe:10.2.2.2", dst: "2001:db8:9::5efe:10.0.0.1", why: drop.Loop},
		{in: "10.0.0.1", to: "10.0.0.1", src: p + "5efe:10.0.0.1", dst: "3fff::1", why: drop.OwnSource},
	} {
		f.check(t, r)
	}
}

// asked returns the routers that a speaker solicits until a time, and when.
func asked(s Agent, from, to time.Time) (out []string) {
	for now := from; now.Before(to); {
		send, _, again := s.Next(now)
		for _, m := range send {
			if m.Bytes[40] == nd.RouterSolicitation {
				out = append(out, now.Sub(from).String()+" "+m.To.Addr().String())
			}
		}
		if again.IsZero() {
			break
		}
		now = again
	}
	return out
}

func TestISATAPAsksRouters(t *testing.T) {
	silent := resolver(t, ISATAP{Routers: []Host{host("10.0.0.9")}}, at("10.1.1.1")).(Agent)
	if got := strings.Join(asked(silent, start, start.Add(130*time.Second)), ","); got != "0s 10.0.0.9,4s 10.0.0.9,8s 10.0.0.9,2m8s 10.0.0.9" {
		t.Error(got)
	}
	client := resolver(t, ISATAP{Routers: []Host{host("10.0.0.9"), host("10.0.0.1")}}, at("10.1.1.1", "2001:db8:7::5efe:10.1.1.1/64")).(Agent)
	router := resolver(t, isatapServer, at("10.0.0.1")).(Agent)
	send, _, _ := client.Next(start)
	flow{src: "2001:db8:7::5efe:10.1.1.1", dst: "3fff::1", out: "10.0.0.9"}.check(t, client) // the first known
	carry(t, send, "10.1.1.1", router, "10.0.0.1", start)
	answer, _, _ := router.Next(start)
	if rest := carry(t, answer, "10.0.0.1", client, "10.1.1.1", start); len(rest) > 0 || len(answer) != 1 {
		t.Errorf("the router said %v", answer)
	}
	flow{src: "2001:db8:7::5efe:10.1.1.1", dst: "3fff::1", out: "10.0.0.1"}.check(t, client) // the first that answered
	flow{src: "2001:db8:5efe:1::5efe:10.1.1.1", dst: "3fff::1", out: "10.0.0.1"}.check(t, client)
	flow{src: "2001:db8:5efe:1::5efe:10.1.1.1", dst: "2001:db8:5efe:1::5efe:10.2.2.2", out: "10.0.0.1"}.check(t, client) // L=0
	// It is solicited again well before the end: at three quarters of 1800 s.
	var again []string
	for _, a := range asked(client, start, start.Add(1500*time.Second)) {
		if strings.HasSuffix(a, "10.0.0.1") {
			again = append(again, a)
		}
	}
	if got := strings.Join(again, ","); !strings.HasPrefix(got, "22m30s 10.0.0.1,22m34s") {
		t.Error(got)
	}
	// If it stays silent, what it advertised expires.
	client.Next(start.Add(1801 * time.Second))
	if l := client.Learnt(); !l.Default.IsZero() || len(l.Addresses) != 1 {
		t.Errorf("after the router's lifetime: %+v", l)
	}
	flow{src: "2001:db8:7::5efe:10.1.1.1", dst: "3fff::1", out: "10.0.0.9"}.check(t, client)
	client.Next(start.Add(2*time.Hour + time.Second))
	if l := client.Learnt(); len(l.Addresses) != 0 {
		t.Errorf("after the prefix's lifetime: %+v", l)
	}
}

func TestISATAPNeverAsksTooOften(t *testing.T) {
	for _, c := range []struct {
		m    nd.Message
		want time.Duration
	}{
		{nd.Message{}, time.Hour},
		{nd.Message{Lifetime: time.Second}, 2 * time.Minute},
		{nd.Message{Lifetime: 30 * time.Minute}, 1350 * time.Second},
		{nd.Message{Lifetime: 30 * time.Minute, Prefixes: []nd.Prefix{{Valid: time.Hour, Preferred: 400 * time.Second}}}, 300 * time.Second},
		{nd.Message{Lifetime: 65535 * time.Second, Prefixes: []nd.Prefix{{Valid: nd.Infinite, Preferred: nd.Infinite}}}, time.Hour},
	} {
		if got := refreshIn(&c.m); got != c.want {
			t.Errorf("%+v: %v, want %v", c.m, got, c.want)
		}
	}
}

// TestISATAPBelieves: only a router of the list is accepted, with its own link-local
// address.
func TestISATAPBelieves(t *testing.T) {
	own, router := isatapLocal(v4("10.1.1.1")).Addr(), isatapLocal(v4("10.0.0.1")).Addr()
	ra := nd.Message{Type: nd.RouterAdvertisement, Lifetime: time.Hour}
	far := nd.Append(nil, router, own, &ra)
	far[7] = 254
	for _, c := range []struct {
		name    string
		from    string
		packet  []byte
		believe bool
	}{
		{"the router", "10.0.0.1", nd.Append(nil, router, own, &ra), true},
		{"with the other u bit", "10.0.0.1", nd.Append(nil, netip.MustParseAddr("fe80::200:5efe:10.0.0.1"), own, &ra), true},
		{"hop limit 254", "10.0.0.1", far, false},
		{"not on the list", "10.0.0.2", nd.Append(nil, isatapLocal(v4("10.0.0.2")).Addr(), own, &ra), false},
		{"another's address", "10.0.0.1", nd.Append(nil, isatapLocal(v4("10.0.0.2")).Addr(), own, &ra), false},
		{"no ISATAP address", "10.0.0.1", nd.Append(nil, netip.MustParseAddr("fe80::1"), own, &ra), false},
	} {
		h := resolver(t, ISATAP{Routers: []Host{host("10.0.0.1")}}, at("10.1.1.1")).(Agent)
		if !h.Receive(heard(c.from), c.packet, start) {
			t.Errorf("%s: is for the interface", c.name)
		}
		if got := !h.Learnt().Default.IsZero(); got != c.believe {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestISATAPRouterAnswers(t *testing.T) {
	r := resolver(t, isatapServer, at("10.0.0.1")).(Agent)
	own, asker := isatapLocal(v4("10.0.0.1")).Addr(), isatapLocal(v4("10.1.1.1")).Addr()
	rs := nd.Message{Type: nd.RouterSolicitation}
	for _, c := range []struct {
		name    string
		packet  []byte
		answers int
	}{
		{"to us", nd.Append(nil, asker, own, &rs), 1},
		{"to us with the other u bit", nd.Append(nil, asker, netip.MustParseAddr("fe80::200:5efe:10.0.0.1"), &rs), 1},
		{"to all routers", nd.Append(nil, asker, nd.AllRouters.Addr(), &rs), 1},
		{"to another", nd.Append(nil, asker, isatapLocal(v4("10.0.0.2")).Addr(), &rs), 0},
		{"from nobody", nd.Append(nil, netip.IPv6Unspecified(), own, &rs), 0},
		{"an advertisement", nd.Append(nil, asker, own, &nd.Message{Type: nd.RouterAdvertisement, Lifetime: time.Hour}), 0},
		{"are you there", nd.Append(nil, asker, own, &nd.Message{Type: nd.NeighborSolicitation, Target: own}), 1},
		{"is another there", nd.Append(nil, asker, own, &nd.Message{Type: nd.NeighborSolicitation, Target: asker}), 0},
	} {
		if !r.Receive(heard("10.1.1.1"), c.packet, start) {
			t.Errorf("%s: is for the interface", c.name)
		}
		if send, _, _ := r.Next(start); len(send) != c.answers || len(send) == 1 && send[0].To.IPv4() != v4("10.1.1.1") {
			t.Errorf("%s: %v", c.name, send)
		}
	}
	if r.Receive(heard("10.1.1.1"), header.IPv6(inner("2001:db8::1", "2001:db8::2")), start) {
		t.Error("a packet that is no neighbour discovery is not for the interface")
	}
	for range 10000 {
		r.Receive(heard("10.1.1.1"), nd.Append(nil, asker, own, &rs), start)
	}
	if send, _, _ := r.Next(start); len(send) != maxOutbox {
		t.Errorf("%d answers", len(send))
	}
	if r.Hold(nil, start) || len(r.Learnt().Addresses) > 0 {
		t.Error("a router holds or learns")
	}
}

func TestISATAPWhereItCannotWork(t *testing.T) {
	for _, c := range []struct {
		m    ISATAP
		s    Site
		want string
	}{
		{isatapClient, at("::1"), "needs an IPv4 address"},
		{ISATAP{Router: true}, at(here), "set prefix to a /64"},
		{ISATAP{Router: true, Prefixes: prefixes("2001:db8::/56")}, at(here), "2001:db8::/56: hosts make addresses"},
		{ISATAP{Prefixes: prefixes("2001:db8::/64")}, at(here), "set router = true"},
		{ISATAP{Router: true, Prefixes: prefixes("2001:db8::/64"), Routers: []Host{host(there)}}, at(here), "leave out routers"},
	} {
		if _, err := c.m.Resolver(c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.m, err, c.want)
		}
	}
}

// RFC 4862 section 5.5.3 e: lifetimes.
func TestLearner(t *testing.T) {
	p := netip.MustParsePrefix("2001:db8:1::/64")
	tell := func(l *nd.Learner, prefix string, valid, preferred time.Duration, now time.Time) {
		l.Advertised(&nd.Message{Prefixes: []nd.Prefix{{Prefix: netip.MustParsePrefix(prefix), Auto: true, OnLink: true, Valid: valid, Preferred: preferred}}}, nd.AllNodes, now)
	}
	for _, c := range []struct {
		left, said, want time.Duration
	}{
		{time.Hour, 3 * time.Hour, 3 * time.Hour},
		{time.Hour, 90 * time.Minute, 90 * time.Minute},
		{time.Hour, time.Minute, time.Hour},
		{10 * time.Hour, time.Minute, 2 * time.Hour},
		{10 * time.Hour, 0, 2 * time.Hour},
	} {
		l := &nd.Learner{InterfaceID: 7}
		tell(l, p.String(), c.left, 0, start)
		tell(l, p.String(), c.said, 0, start)
		if got := learnt(l).Addresses; len(got) != 1 || got[0].Valid != start.Add(c.want) || got[0].Prefix.String() != "2001:db8:1::7/64" {
			t.Errorf("%v left, %v said: %v", c.left, c.said, got)
		}
	}
	l := &nd.Learner{InterfaceID: 7}
	for _, prefix := range []string{"fe80::/64", "ff02::/64", "::/0", "2000::/3", "8000::/1", "2001:db8::/48", "2001:db8::/65", "::/64", "2001:0:1:2::/64"} {
		tell(l, prefix, time.Hour, time.Hour, start)
	}
	tell(l, p.String(), time.Hour, 2*time.Hour, start) // preferred longer than valid
	tell(l, p.String(), 0, 0, start)
	if len(l.Prefixes) > 0 {
		t.Errorf("%v", l.Prefixes)
	}
	for i := range 100 {
		l.Advertised(&nd.Message{Lifetime: time.Hour, MTU: 100}, header.Word6{Hi: 1, Lo: uint64(i)}, start)
		tell(l, netip.PrefixFrom(header.Word6{Hi: uint64(0x20010db8<<32 + i), Lo: 0}.Addr(), 64).String(), time.Hour, time.Hour, start)
	}
	if len(l.Routers) != nd.MaxRouters || len(l.Prefixes) != nd.MaxPrefixes || learnt(l).MTU != 0 {
		t.Errorf("%d routers, %d prefixes, MTU %d", len(l.Routers), len(l.Prefixes), l.MTU)
	}
	changed, next := l.Expire(start.Add(time.Minute))
	if changed || next != start.Add(time.Hour) {
		t.Errorf("%v, %v", changed, next)
	}
	if changed, next = l.Expire(start.Add(time.Hour)); !changed || !next.IsZero() || len(l.Routers)+len(l.Prefixes) > 0 {
		t.Errorf("%v, %v, %v", changed, next, l)
	}
	l.Advertised(&nd.Message{Lifetime: time.Hour, MTU: 1400}, nd.AllNodes, start)
	l.Advertised(&nd.Message{MTU: 9000000}, nd.AllNodes, start)
	if got := learnt(l); !got.Default.IsZero() || got.MTU != 1400 {
		t.Errorf("a router that is none any more: %+v", got)
	}
}

// TestEntriesOfISATAP: a host's routers are silent until they advertise themselves.
func TestEntriesOfISATAP(t *testing.T) {
	h := resolver(t, ISATAP{Routers: []Host{host("192.0.2.1"), host("192.0.2.2")}}, at("192.0.2.9")).(Agent)
	router := resolver(t, ISATAP{Router: true, Prefixes: prefixes("2001:db8::/64")}, at("192.0.2.1")).(Agent)
	silent := func(last string) Entry {
		return Entry{Node: netip.MustParseAddr("fe80::200:5efe:c000:20" + last), Link: netip.MustParseAddrPort("192.0.2." + last + ":0"), State: "silent"}
	}
	want := []Entry{silent("1"), silent("2")}
	if got := h.Entries(start); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	send, _, _ := h.Next(start)
	for _, m := range send {
		if m.To.Addr() == netip.MustParseAddr("192.0.2.1") {
			router.Receive(heard("192.0.2.9"), m.Bytes, start)
		}
	}
	send, _, _ = router.Next(start)
	for _, m := range send {
		h.Receive(heard("192.0.2.1"), m.Bytes, start)
	}
	want[0].State, want[0].Age = "router", 3*time.Second
	if got := h.Entries(start.Add(3 * time.Second)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := router.Entries(start); len(got) != 0 {
		t.Errorf("a router's entries: %v", got)
	}
}
