package resolve

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// segment is an IPv4 network with nodes that speak 6over4, in simulated time.
type segment struct {
	t     *testing.T
	now   time.Time
	nodes map[string]Speaker
	deaf  map[string]bool
	lost  map[string]int
	log   []string // neighbour discovery, by its time and type
	heard []string // what came out for an interface
}

func newSegment(t *testing.T, nodes ...string) *segment {
	s := &segment{t: t, now: start, nodes: make(map[string]Speaker), deaf: make(map[string]bool), lost: make(map[string]int)}
	for _, n := range nodes {
		s.nodes[n] = resolver(t, SixOverFour{}, at(n, "2001:db8::"+n+"/64")).(Speaker)
	}
	return s
}

// names of the messages, in the log.
var names = map[byte]string{nd.RouterSolicitation: "RS", nd.RouterAdvertisement: "RA", nd.NeighborSolicitation: "NS", nd.NeighborAdvertisement: "NA"}

// run lets time pass, and messages arrive at once.
func (s *segment) run(d time.Duration) {
	for end := s.now.Add(d); ; {
		next := end
		for busy := true; busy; {
			busy = false
			for from, n := range s.nodes {
				send, lost, again := n.Next(s.now)
				s.lost[from] += lost
				if !again.IsZero() && again.Before(next) {
					next = again
				}
				for _, m := range send {
					busy = true
					s.deliver(from, m)
				}
			}
		}
		if !next.After(s.now) {
			next = s.now.Add(time.Millisecond)
		}
		if !next.Before(end) {
			s.now = end
			return
		}
		s.now = next
	}
}

func (s *segment) deliver(from string, m Message) {
	ip := header.IPv6(m.Packet)
	if nd.Is(ip) {
		if name := names[ip[40]]; name != "RS" {
			s.log = append(s.log, fmt.Sprintf("%v %s %s>%v", s.now.Sub(start), name, from, addr4(m.To)))
		}
	} else {
		s.heard = append(s.heard, fmt.Sprintf("%s>%v", from, addr4(m.To)))
	}
	for to, n := range s.nodes {
		group := slices.Contains(n.(Joiner).Groups(), addr4(m.To))
		if to == from || s.deaf[to] || m.To != v4(to) && !group {
			continue
		}
		if why := n.From(header.IPv4(inner(from, addr4(m.To).String())), ip); why != drop.None {
			s.t.Errorf("%v > %v by %s at %s: %v", ip.Src(), ip.Dst(), from, to, why)
			continue
		}
		n.Hear(v4(from), ip, s.now)
	}
}

// send is what the engine does with a packet; it reports whether it went at once.
func (s *segment) send(from, dst string) bool {
	pkt := inner("2001:db8::"+from, dst)
	pkt[6] = header.NoNextHeader
	n := s.nodes[from]
	to, why := n.To(header.IPv6(pkt))
	switch why {
	case drop.None:
		s.deliver(from, Message{to, pkt})
		return true
	case drop.Unresolved:
		if !n.Hold(pkt, s.now) {
			s.t.Errorf("no room for a packet to %s", dst)
		}
	default:
		s.t.Errorf("to %s: %v", dst, why)
	}
	return false
}

func (s *segment) want(what string, log ...string) {
	s.t.Helper()
	if got := strings.Join(s.log, ", "); got != strings.Join(log, ", ") {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, strings.Join(log, ", "))
	}
	s.log = nil
}

const (
	one, two  = "192.0.2.1", "198.51.100.2"
	two6      = "2001:db8::198.51.100.2"
	groupTwo6 = "239.192.100.2"
)

func TestNeighbourFoundAndKept(t *testing.T) {
	s := newSegment(t, one, two)
	s.run(10 * time.Second) // the routers that are not there
	s.now = start
	if s.send(one, two6) {
		t.Error("sent to an unknown neighbour")
	}
	s.run(0)
	s.want("resolution", "0s NS 192.0.2.1>"+groupTwo6, "0s NA 198.51.100.2>192.0.2.1")
	if got := strings.Join(s.heard, ","); got != "192.0.2.1>198.51.100.2" {
		t.Errorf("delivered %s", got)
	}
	// Reachable for 30 s: sent at once, and nobody asks.
	s.run(29 * time.Second)
	if !s.send(one, two6) {
		t.Error("a reachable neighbour is not sent to")
	}
	// Then stale: the packet goes, by way of the speaker, and after 5 s a probe.
	s.run(2 * time.Second)
	if s.send(one, two6) {
		t.Error("nobody notices that a neighbour is stale")
	}
	s.run(0)
	if len(s.heard) != 3 {
		t.Errorf("delivered %v", s.heard)
	}
	if !s.send(one, two6) {
		t.Error("no sending in state DELAY")
	}
	s.want("until now")
	s.run(6 * time.Second)
	s.want("the probe", "36s NS 192.0.2.1>198.51.100.2", "36s NA 198.51.100.2>192.0.2.1")
	if !s.send(one, two6) {
		t.Error("not reachable after a probe")
	}
	// What it heard from us makes us stale to it, not unknown.
	s.heard = nil
	s.send(two, "2001:db8::192.0.2.1")
	s.run(0)
	if len(s.log) != 2 || s.heard == nil { // an entry for our link-local address is another
		t.Errorf("%v, %v", s.log, s.heard)
	}
	if s.lost[one]+s.lost[two] != 0 {
		t.Errorf("lost %v", s.lost)
	}
}

func TestNeighbourThatIsNotThere(t *testing.T) {
	s := newSegment(t, one, two)
	s.run(10 * time.Second)
	s.now = start
	s.deaf[two] = true
	for range 5 {
		s.send(one, two6)
	}
	s.run(2500 * time.Millisecond)
	s.want("asked for", "0s NS 192.0.2.1>"+groupTwo6, "1s NS 192.0.2.1>"+groupTwo6, "2s NS 192.0.2.1>"+groupTwo6)
	if s.lost[one] != 2 { // of five, three wait
		t.Errorf("lost %d before it is given up", s.lost[one])
	}
	s.run(time.Second)
	if s.lost[one] != 5 || len(s.heard) > 0 {
		t.Errorf("lost %d, delivered %v", s.lost[one], s.heard)
	}
	// It is asked for anew.
	s.deaf[two] = false
	s.send(one, two6)
	s.run(0)
	if len(s.heard) != 1 {
		t.Errorf("delivered %v", s.heard)
	}
	// It goes away: sent to while there is hope, and forgotten then.
	s.run(31 * time.Second)
	s.deaf[two] = true
	s.log = nil
	s.now = start.Add(100 * time.Second)
	s.send(one, two6)
	s.run(7500 * time.Millisecond)
	if !s.send(one, two6) {
		t.Error("no sending in state PROBE")
	}
	s.want("probes", "1m45s NS 192.0.2.1>198.51.100.2", "1m46s NS 192.0.2.1>198.51.100.2", "1m47s NS 192.0.2.1>198.51.100.2")
	s.run(time.Second)
	if s.send(one, two6) {
		t.Error("a neighbour that is gone is sent to")
	}
	// At rest there is nothing to wake up for.
	s.run(time.Minute)
	if _, _, again := s.nodes[one].Next(s.now); !again.IsZero() {
		t.Errorf("at rest, again at %v", again.Sub(start))
	}
}

func TestSixOverFourVectors(t *testing.T) {
	a := resolver(t, SixOverFour{}, at(one, "2001:db8::c000:201/64")).(Speaker)
	b := resolver(t, SixOverFour{}, at(two)).(Speaker)
	outer, ns := vector(t, "6OVER4-1")
	if dst, why := a.To(ns); dst != dest4(outer) || why != drop.None {
		t.Errorf("the solicitation goes to %v, %v", addr4(dst), why)
	}
	a.Next(start) // asks for routers
	pkt := inner("2001:db8::c000:201", "2001:db8::1")
	copy(pkt[24:], ns[48:64]) // to the target; link-local, which To would not have let pass
	if !a.Hold(pkt, start) {
		t.Fatal("no room")
	}
	send, _, _ := a.Next(start)
	if len(send) != 1 || send[0].To != dest4(outer) || !bytes.Equal(send[0].Packet, ns) {
		t.Errorf("%x, want %x", send, []byte(ns))
	}
	b.Next(start)
	if why := b.From(outer, ns); why != drop.None || !b.Hear(source4(outer), ns, start) {
		t.Error(why)
	}
	outer, na := vector(t, "6OVER4-2")
	send, _, _ = b.Next(start)
	if len(send) != 1 || send[0].To != dest4(outer) || !bytes.Equal(send[0].Packet, na) {
		t.Errorf("%x, want %x", send, []byte(na))
	}
	if why := a.From(outer, na); why != drop.None || !a.Hear(source4(outer), na, start) {
		t.Error(why)
	}
	if send, _, _ = a.Next(start); len(send) != 1 || send[0].To != v4(two) || !bytes.Equal(send[0].Packet, pkt) {
		t.Errorf("%x, want %x", send, pkt)
	}
	if n := testing.AllocsPerRun(100, func() {
		a.From(outer, na)
		if dst, why := a.To(pkt[:header.IPv6Len]); why != drop.Martian { // link-local, but not as neighbour discovery
			t.Errorf("%v, %v", addr4(dst), why)
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
		if _, why := r.To(out); why != drop.None || r.From(outer, in) != drop.None {
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
		{src: own, dst: "3fff::1", why: drop.NoPeer},        // nobody told of a router
		{src: own, dst: own, why: drop.Loop},
		{src: own, dst: "ff0e::1:2:3", out: "239.192.0.3"},
		{src: own, dst: "ff05::1234:5678", out: "239.192.86.120"},
		{src: own, dst: "ff02::fb", why: drop.Martian}, // no neighbour discovery
		{src: own6, dst: "fe80::198.51.100.2", why: drop.Martian},
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
		{in: two, to: one, src: "fe80::198.51.100.2", dst: own6, why: drop.Martian},
		{in: two, to: one, src: two6, dst: "2002:c000:201::1", why: drop.Loop},
	} {
		f.check(t, r)
	}
	outer, ns := vector(t, "6OVER4-2")
	ns = bytes.Clone(ns)
	ns[7] = 64
	if why := r.From(outer, ns); why != drop.Spoof {
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

// advertise makes a router's advertisement heard.
func advertise(s Speaker, from string, link []byte, lifetime time.Duration, now time.Time) {
	addr := word6{linkLocal.value.hi, uint64(v4(from))}.addr()
	s.Hear(v4(from), nd.Append(nil, addr, allNodes.addr(), &nd.Message{Type: nd.RouterAdvertisement, Lifetime: lifetime, MTU: 1400, Link: link,
		Prefixes: []nd.Prefix{{Prefix: netip.MustParsePrefix("2001:db8:5::/64"), OnLink: true, Auto: true, Valid: time.Hour, Preferred: time.Hour}}}), now)
}

func TestSixOverFourRouters(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one)).(Speaker)
	if got := strings.Join(asked(r, start, start.Add(time.Minute)), ","); got != "0s 239.192.0.2,4s 239.192.0.2,8s 239.192.0.2" {
		t.Error(got)
	}
	now := start.Add(time.Minute)
	advertise(r, two, linkOption(v4(two)), 10*time.Minute, now)
	advertise(r, "198.51.100.3", nil, 20*time.Minute, now) // says no link-layer address: it is where it came from
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
			dst, why = r.To(out)
		}
		if why != drop.None {
			return why.String()
		}
		return addr4(dst).String()
	}
	if got := first(); got != two {
		t.Errorf("default router %s", got)
	}
	flow{src: own, dst: "2001:db8:5::9", why: drop.Unresolved}.check(t, r) // on-link
	// It does not answer probes: the other one takes over.
	for end := now.Add(20 * time.Second); now.Before(end); now = now.Add(time.Second) {
		r.Next(now)
	}
	if got := first(); got != "198.51.100.3" {
		t.Errorf("default router %s", got)
	}
	// One that says that it is a host is no router any more.
	addr := word6{linkLocal.value.hi, uint64(v4("198.51.100.3"))}.addr()
	r.Hear(v4("198.51.100.3"), nd.Append(nil, addr, word6{linkLocal.value.hi, uint64(v4(one))}.addr(),
		&nd.Message{Type: nd.NeighborAdvertisement, Target: addr, Solicited: true, Link: linkOption(v4("198.51.100.3"))}), now)
	if l := r.Learnt(); l.Default != start.Add(11*time.Minute) {
		t.Errorf("%+v", l)
	}
	// Without any, routers are asked for again.
	if got := strings.Join(asked(r, start.Add(11*time.Minute), start.Add(12*time.Minute)), ","); got != "0s 239.192.0.2,4s 239.192.0.2,8s 239.192.0.2" {
		t.Error(got)
	}
	flow{src: own, dst: "3fff::1", why: drop.NoPeer}.check(t, r)
	if r.Hear(v4(two), nd.Append(nil, word6{linkLocal.value.hi, uint64(v4(two))}.addr(), allRouters.addr(), &nd.Message{Type: nd.RouterSolicitation}), now) {
		t.Error("a router behind the interface does not hear who asks it")
	}
}

// What an advertisement does to an entry (RFC 4861 section 7.2.5).
func TestNeighbourAdvertised(t *testing.T) {
	two6 := word6{linkLocal.value.hi, uint64(v4(two))}
	other := linkOption(v4("198.51.100.77"))
	for _, c := range []struct {
		name                string
		before              state
		solicited, override bool
		link                []byte
		after               state
		to                  string
	}{
		{"incomplete, no address", incomplete, true, true, nil, incomplete, ""},
		{"incomplete, another's nonsense", incomplete, true, true, linkOption(v4("224.0.0.1")), incomplete, ""},
		{"incomplete, ours", incomplete, true, true, linkOption(v4(one)), incomplete, ""},
		{"incomplete, 14 bytes", incomplete, true, true, make([]byte, 14), incomplete, ""},
		{"incomplete, solicited", incomplete, true, false, other, reachable, "198.51.100.77"},
		{"incomplete, unsolicited", incomplete, false, false, other, delay, "198.51.100.77"}, // a packet waits
		{"reachable, another address", reachable, true, false, other, stale, two},
		{"reachable, override", reachable, true, true, other, reachable, "198.51.100.77"},
		{"reachable, unsolicited override", reachable, false, true, other, stale, "198.51.100.77"},
		{"stale, another address", stale, true, false, other, stale, two},
		{"stale, no address", stale, true, false, nil, reachable, two},
		{"stale, unsolicited", stale, false, false, nil, stale, two},
		{"probe, solicited", probe, true, false, linkOption(v4(two)), reachable, two},
		{"probe, another address", probe, true, false, other, probe, two},
	} {
		r := resolver(t, SixOverFour{}, at(one)).(*sixOverFour)
		n := r.entry(two6, start)
		if c.before == incomplete {
			n.enter(incomplete, 0, start.Add(time.Second))
			r.Hold(inner("fe80::192.0.2.1", two6.addr().String()), start)
		} else {
			n.enter(c.before, v4(two), start.Add(time.Second))
		}
		to := word6{linkLocal.value.hi, uint64(v4(one))}.addr()
		r.Hear(v4(two), nd.Append(nil, two6.addr(), to, &nd.Message{Type: nd.NeighborAdvertisement, Target: two6.addr(),
			Solicited: c.solicited, Override: c.override, Link: c.link}), start)
		if n.state != c.after || n.link != v4(c.to) {
			t.Errorf("%s: state %d at %v, want %d at %s", c.name, n.state, addr4(n.link), c.after, c.to)
		}
	}
	r := resolver(t, SixOverFour{}, at(one)).(*sixOverFour)
	r.Hear(v4(two), nd.Append(nil, two6.addr(), allNodes.addr(), &nd.Message{Type: nd.NeighborAdvertisement, Target: two6.addr(), Link: other}), start)
	if r.cache.find(two6) != nil {
		t.Error("an advertisement that nobody asked for makes an entry")
	}
}

func TestNeighbourChecksWhetherFree(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one)).(Speaker)
	r.Next(start)
	own := word6{linkLocal.value.hi, uint64(v4(one))}.addr()
	r.Hear(v4(two), nd.Append(nil, netip.IPv6Unspecified(), nd.SolicitedNode(own), &nd.Message{Type: nd.NeighborSolicitation, Target: own}), start)
	send, _, _ := r.Next(start)
	if len(send) != 1 || send[0].To != v4("239.192.0.1") {
		t.Fatalf("%v", send)
	}
	m, ok := nd.Parse(send[0].Packet)
	if !ok || m.Solicited || !m.Override || m.Target != own {
		t.Errorf("%+v", m)
	}
}

// No flood takes more than its share, nor pushes out who is being spoken to.
func TestNeighboursAreBounded(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::1/64")).(*sixOverFour)
	friend := word6{0x20010db8 << 32, 77}
	r.entry(friend, start).enter(reachable, v4(two), start.Add(reachableTime))
	pkt := make([]byte, 1400)
	lost, held := 0, 0
	for i := range 20000 {
		copy(pkt, inner("2001:db8::1", word6{0x20010db8 << 32, uint64(i) + 1<<32}.addr().String()))
		if r.Hold(pkt, start.Add(time.Duration(i))) {
			held++
		} else {
			lost++
		}
		from := word6{linkLocal.value.hi, uint64(i) + 1<<33}.addr()
		r.Hear(v4(two), nd.Append(nil, from, nd.SolicitedNode(from), &nd.Message{Type: nd.NeighborSolicitation, Target: from, Link: linkOption(v4(two))}), start.Add(time.Duration(i)))
	}
	entries := 0
	r.cache.all(func(*neighbour) { entries++ })
	if entries > 4096 || entries < 4000 || r.held > maxHeld {
		t.Errorf("%d entries, %d bytes", entries, r.held)
	}
	if r.cache.find(friend) == nil {
		t.Error("a neighbour in use had to go")
	}
	for now := start; now.Before(start.Add(5 * time.Second)); now = now.Add(time.Second) {
		send, n, _ := r.Next(now)
		lost += n
		if len(send) > maxOutbox {
			t.Errorf("%d messages at once", len(send))
		}
	}
	if held+lost < 20000 || r.held != 0 {
		t.Errorf("%d held, %d lost, %d bytes left", held, lost, r.held)
	}
}

// Packets look neighbours up while the speaker changes them.
func TestNeighboursConcurrently(t *testing.T) {
	s := newSegment(t, one, two)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	out, in, outer := header.IPv6(inner("2001:db8::192.0.2.1", two6)), header.IPv6(inner(two6, "2001:db8::192.0.2.1")), header.IPv4(inner(two, one))
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if dst, why := s.nodes[one].To(out); why == drop.None && dst != v4(two) || why != drop.None && why != drop.Unresolved {
					t.Errorf("%v, %v", addr4(dst), why)
				}
				if why := s.nodes[one].From(outer, in); why != drop.None {
					t.Error(why)
				}
			}
		})
	}
	for range 200 {
		s.send(one, two6)
		advertise(s.nodes[one], two, linkOption(v4(two)), time.Minute, s.now)
		s.run(20 * time.Second)
	}
	close(stop)
	wg.Wait()
}

// Whatever arrives: no panic.
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
		if len(ip) >= 44 { // let the fuzzer past the checksum
			ip[42], ip[43] = 0, 0
			sum := ^header.Sum(ip[40:], header.PseudoSum(ip[8:24], ip[24:40], len(ip)-40, header.ICMPv6))
			ip[42], ip[43] = byte(sum>>8), byte(sum)
		}
		now := start
		for _, m := range []Mechanism{SixOverFour{}, isatapServer, isatapClient} {
			s := resolver(t, m, at(one, "2001:db8::1/64")).(Speaker)
			s.Next(now)
			s.From(header.IPv4(inner(two, one)), ip)
			s.Hear(v4(two), ip, now)
			s.To(ip)
			s.Hold(ip, now)
			for range 5 {
				send, _, again := s.Next(now)
				for _, q := range send {
					if _, why := header.ParseIPv6(q.Packet); why != drop.None {
						t.Fatalf("%v: %x", why, q.Packet)
					}
				}
				if !again.IsZero() && !again.After(now) {
					t.Fatal("it is never enough")
				}
				now = now.Add(time.Duration(seconds) * time.Second)
			}
			s.Learnt()
		}
	})
}
