package resolve

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

func TestSixOverFourVectors(t *testing.T) {
	a := resolver(t, SixOverFour{}, at(one, "2001:db8::c000:201/64")).(Agent)
	b := resolver(t, SixOverFour{}, at(two)).(Agent)
	outer, ns := vector(t, "6OVER4-1")
	if dst, why := a.To(ns); dst.Addr() != outer.Dst() || why != drop.None {
		t.Errorf("the solicitation goes to %v, %v", dst.Addr(), why)
	}
	a.Next(start) // solicits routers
	pkt := inner("2001:db8::c000:201", "2001:db8::1")
	copy(pkt[24:], ns[48:64]) // to the target; link-local, which To would not have let pass
	if !a.Hold(pkt, start) {
		t.Fatal("no room")
	}
	send, _, _ := a.Next(start)
	if len(send) != 1 || send[0].To.Addr() != outer.Dst() || !bytes.Equal(send[0].Bytes, ns) {
		t.Errorf("%v, want %x", send, []byte(ns))
	}
	b.Next(start)
	if why := received(b, outer, ns); why != drop.None || !b.Receive(header.OuterOf(outer), ns, start) {
		t.Error(why)
	}
	outer, na := vector(t, "6OVER4-2")
	send, _, _ = b.Next(start)
	if len(send) != 1 || send[0].To.Addr() != outer.Dst() || !bytes.Equal(send[0].Bytes, na) {
		t.Errorf("%v, want %x", send, []byte(na))
	}
	if why := received(a, outer, na); why != drop.None || !a.Receive(header.OuterOf(outer), na, start) {
		t.Error(why)
	}
	if send, _, _ = a.Next(start); len(send) != 1 || send[0].To.IPv4() != v4(two) || !bytes.Equal(send[0].Bytes, pkt) {
		t.Errorf("%v, want %x", send, pkt)
	}
	a.Next(start) // it was sent
	if n := testing.AllocsPerRun(100, func() {
		received(a, outer, na)
		if dst, why := a.To(pkt[:header.IPv6Len]); why != drop.None {
			t.Errorf("%v, %v", dst.Addr(), why)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSixOverFourNoAllocs(t *testing.T) {
	s := newSegment(t, one, two)
	s.send(one, two6)
	s.run(0)
	r := s.nodes[one]
	out, in, outer := header.IPv6(inner("2001:db8::192.0.2.1", two6)), header.IPv6(inner(two6, "2001:db8::192.0.2.1")), header.IPv4(inner(two, one))
	if n := testing.AllocsPerRun(100, func() {
		if _, why := r.To(out); why != drop.None || received(r, outer, in) != drop.None {
			t.Error(why)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSixOverFourRules(t *testing.T) {
	s := at(one, "2001:db8::192.0.2.1/64", "2001:db8:1::1/56")
	s.Links = prefixes("192.0.2.1/24")
	r := resolver(t, SixOverFour{}, s)
	const own, own6 = "2001:db8::192.0.2.1", "fe80::192.0.2.1"
	for _, f := range []flow{
		{src: own, dst: "2001:db8::77", why: drop.Unresolved},
		{src: own, dst: "2001:db8:1::77", why: drop.NoPeer}, // a /56 is not this link
		{src: own, dst: "3fff::1", why: drop.NoPeer},        // no router has advertised anything
		{src: own, dst: own, why: drop.Loop},
		{src: own, dst: "ff0e::1:2:3", out: "239.192.0.3"},
		{src: own, dst: "ff05::1234:5678", out: "239.192.86.120"},
		{src: own, dst: "ff02::fb", out: "239.192.0.251"},
		{src: own6, dst: "fe80::198.51.100.2", why: drop.Unresolved},
		{src: "fe80::7", dst: "fe80::198.51.100.2", why: drop.Spoof}, // neighbours could not resolve it
		{src: own, dst: "2002:c000:201::1", why: drop.Loop},
		{src: "ff02::1", dst: two6, why: drop.Martian},
		{in: two, to: one, src: two6, dst: own},
		{in: two, to: "239.192.86.120", src: two6, dst: "ff05::1234:5678"},
		{in: two, to: "239.192.86.121", src: two6, dst: "ff05::1234:5678", why: drop.Spoof},
		{in: two, to: "239.193.86.120", src: two6, dst: "ff05::1234:5678", why: drop.Spoof},
		{in: two, to: "239.192.0.1", src: two6, dst: own, why: drop.Spoof},
		{in: two, to: one, src: two6, dst: "ff05::1234:5678", why: drop.Spoof},
		{in: one, to: "239.192.86.120", src: own, dst: "ff05::1234:5678", why: drop.OwnSource},
		{in: two, to: one, src: own, dst: own, why: drop.OwnSource},
		{in: two, to: one, src: own6, dst: own6, why: drop.OwnSource},
		{in: "239.192.0.1", to: one, src: two6, dst: own, why: drop.Martian},
		{in: "192.0.2.255", to: one, src: two6, dst: own, why: drop.Martian},
		{in: "0.0.0.0", to: one, src: two6, dst: own, why: drop.Martian},
		{in: two, to: one, src: "ff02::1", dst: own, why: drop.Martian},
		{in: two, to: one, src: "::", dst: own, why: drop.Martian},
		{in: two, to: one, src: "fe80::198.51.100.2", dst: own6},
		{in: two, to: one, src: two6, dst: "2002:c000:201::1", why: drop.Loop},
	} {
		f.check(t, r)
	}
	outer, ns := vector(t, "6OVER4-2")
	ns = bytes.Clone(ns)
	ns[7] = 64
	if why := received(r, outer, ns); why != drop.Spoof {
		t.Errorf("neighbour discovery through a router: %v", why)
	}
	_, ns = vector(t, "6OVER4-1")
	if _, why := resolver(t, SixOverFour{}, at("192.0.2.9")).To(ns); why != drop.Spoof {
		t.Errorf("from another's link-local address: %v", why)
	}
	if got := fmt.Sprint(r.(Joiner).Groups()); got != "[239.192.0.1 239.192.2.1]" { // fe80::192.0.2.1 and 2001:db8:1::1 end as all nodes' and ours do
		t.Error(got)
	}
	scoped := resolver(t, SixOverFour{Scope: 193}, at(one))
	flow{src: own, dst: "ff05::1234:5678", out: "239.193.86.120"}.check(t, scoped)
	for _, scope := range []byte{1, 191, 196, 255} {
		if _, err := (SixOverFour{Scope: scope}).Resolver(at(one)); err == nil || !strings.Contains(err.Error(), "use 192 to 195") {
			t.Errorf("scope %d: %v", scope, err)
		}
	}
	if _, err := (SixOverFour{}).Resolver(at("::1")); err == nil {
		t.Error("an IPv6 local address")
	}
}

// advertise delivers a router's advertisement.
func advertise(s Agent, from string, link []byte, lifetime time.Duration, now time.Time) {
	addr := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(from))}.Addr()
	s.Receive(heard(from), nd.Append(nil, addr, nd.AllNodes.Addr(), &nd.Message{Type: nd.RouterAdvertisement, Lifetime: lifetime, MTU: 1400, Link: link,
		Prefixes: []nd.Prefix{{Prefix: netip.MustParsePrefix("2001:db8:5::/64"), OnLink: true, Auto: true, Valid: time.Hour, Preferred: time.Hour}}}), now)
}

func TestSixOverFourRouters(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one)).(Agent)
	if got := strings.Join(asked(r, start, start.Add(time.Minute)), ","); got != "0s 239.192.0.2,4s 239.192.0.2,8s 239.192.0.2" {
		t.Error(got)
	}
	now := start.Add(time.Minute)
	advertise(r, two, linkOption(v4(two)), 10*time.Minute, now)
	advertise(r, "198.51.100.3", nil, 20*time.Minute, now) // without link-layer address: the source of the packet is used
	l := r.Learnt()
	if l.MTU != 1400 || l.Default != now.Add(20*time.Minute) || len(l.Addresses) != 1 || l.Addresses[0].Prefix.String() != "2001:db8:5::c000:201/64" {
		t.Errorf("%+v", l)
	}
	const own = "2001:db8:5::c000:201"
	out := inner(own, "3fff::1")
	first := func() string {
		t.Helper()
		dst, why := r.To(out)
		if why == drop.Unresolved {
			r.Hold(out, now)
			r.Next(now)
			r.Next(now) // it was sent
			dst, why = r.To(out)
		}
		if why != drop.None {
			return why.String()
		}
		return dst.Addr().String()
	}
	if got := first(); got != two {
		t.Errorf("default router %s", got)
	}
	flow{src: own, dst: "2001:db8:5::9", why: drop.Unresolved}.check(t, r) // on-link
	// It does not answer probes: the other router takes over.
	for end := now.Add(20 * time.Second); now.Before(end); now = now.Add(time.Second) {
		r.Next(now)
	}
	if got := first(); got != "198.51.100.3" {
		t.Errorf("default router %s", got)
	}
	// A node that says that it is a host is no longer a router.
	addr := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4("198.51.100.3"))}.Addr()
	r.Receive(heard("198.51.100.3"), nd.Append(nil, addr, header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(one))}.Addr(), &nd.Message{Type: nd.NeighborAdvertisement, Target: addr, Solicited: true, Link: linkOption(v4("198.51.100.3"))}), now)
	if l := r.Learnt(); l.Default != start.Add(11*time.Minute) {
		t.Errorf("%+v", l)
	}
	// Without any router, they are solicited again.
	if got := strings.Join(asked(r, start.Add(11*time.Minute), start.Add(12*time.Minute)), ","); got != "0s 239.192.0.2,4s 239.192.0.2,8s 239.192.0.2" {
		t.Error(got)
	}
	flow{src: own, dst: "3fff::1", why: drop.NoPeer}.check(t, r)
	if r.Receive(heard(two), nd.Append(nil, header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(two))}.Addr(), nd.AllRouters.Addr(), &nd.Message{Type: nd.RouterSolicitation}), now) {
		t.Error("a router behind the interface does not hear who asks it")
	}
}

// FuzzHear: no packet causes a panic.
func FuzzHear(f *testing.F) {
	for _, name := range []string{"ISATAP-1", "ISATAP-2", "6OVER4-1", "6OVER4-2"} {
		_, ip := vector(f, name)
		f.Add([]byte(ip), uint16(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seconds uint16) {
		ip, why := header.ParseIPv6(b)
		if why != drop.None {
			return
		}
		if len(ip) >= 44 { // let the fuzzer pass the checksum
			ip[42], ip[43] = 0, 0
			sum := ^header.Sum(ip[40:], header.PseudoSum(ip[8:24], ip[24:40], len(ip)-40, header.ICMPv6))
			ip[42], ip[43] = byte(sum>>8), byte(sum)
		}
		now := start
		for _, m := range []Mechanism{SixOverFour{}, isatapServer, isatapClient} {
			s := resolver(t, m, at(one, "2001:db8::1/64")).(Agent)
			s.Next(now)
			received(s, inner(two, one), ip)
			s.Receive(heard(two), ip, now)
			s.To(ip)
			s.Hold(ip, now)
			for range 5 {
				send, _, again := s.Next(now)
				for _, q := range send {
					if _, why := header.ParseIPv6(q.Bytes); why != drop.None {
						t.Fatalf("%v: %x", why, q.Bytes)
					}
				}
				if !again.IsZero() && !again.After(now) { // to learn that what waited was sent
					_, _, again = s.Next(now)
				}
				if !again.IsZero() && !again.After(now) {
					t.Fatalf("%T: it is never enough: %v at %v", m, again, now)
				}
				now = now.Add(time.Duration(seconds) * time.Second)
			}
			s.Learnt()
		}
	})
}

// TestEntriesOf6over4: the neighbour cache is shown, also while an address is being resolved.
func TestEntriesOf6over4(t *testing.T) {
	const one, two = "192.0.2.1", "192.0.2.2"
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::1/64")).(Agent)
	if got := r.Entries(start); len(got) != 0 {
		t.Errorf("%v", got)
	}
	r.Next(start)
	to := netip.MustParseAddr("2001:db8::2")
	if pkt := inner("2001:db8::1", to.String()); !r.Hold(pkt, start) {
		t.Fatal("not held")
	}
	want := []Entry{{Node: to, State: "incomplete", Age: time.Second}}
	if got := r.Entries(start.Add(time.Second)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	own := netip.MustParseAddr("2001:db8::1")
	r.Receive(heard(two), nd.Append(nil, to, own, &nd.Message{Type: nd.NeighborAdvertisement, Target: to, Solicited: true, Override: true, Link: linkOption(v4(two))}), start.Add(time.Second))
	want = []Entry{{Node: to, Link: netip.MustParseAddrPort(two + ":0"), State: "reachable", Age: time.Minute}}
	if got := r.Entries(start.Add(time.Second + time.Minute)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
