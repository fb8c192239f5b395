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

// segment is an IPv4 network with 6over4 nodes, in simulated time.
type segment struct {
	t     *testing.T
	now   time.Time
	nodes map[string]Agent
	deaf  map[string]bool
	lost  map[string]int
	log   []string // neighbour discovery messages, by time and type
	heard []string // packets that a node received for its interface
}

func newSegment(t *testing.T, nodes ...string) *segment {
	s := &segment{t: t, now: start, nodes: make(map[string]Agent), deaf: make(map[string]bool), lost: make(map[string]int)}
	for _, n := range nodes {
		s.nodes[n] = resolver(t, SixOverFour{}, at(n, "2001:db8::"+n+"/64")).(Agent)
	}
	return s
}

// names of the messages, in the log.
var names = map[byte]string{nd.RouterSolicitation: "RS", nd.RouterAdvertisement: "RA", nd.NeighborSolicitation: "NS", nd.NeighborAdvertisement: "NA"}

// run lets time pass. Messages arrive at once.
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
	ip := header.IPv6(m.Bytes)
	if nd.Is(ip) {
		if name := names[ip[40]]; name != "RS" {
			s.log = append(s.log, fmt.Sprintf("%v %s %s>%v", s.now.Sub(start), name, from, m.To.Addr()))
		}
	} else {
		s.heard = append(s.heard, fmt.Sprintf("%s>%v", from, m.To.Addr()))
	}
	for to, n := range s.nodes {
		group := slices.Contains(n.(Joiner).Groups(), m.To.Addr())
		if to == from || s.deaf[to] || m.To.IPv4() != v4(to) && !group {
			continue
		}
		if why := received(n, inner(from, m.To.Addr().String()), ip); why != drop.None {
			s.t.Errorf("%v > %v by %s at %s: %v", ip.Src(), ip.Dst(), from, to, why)
			continue
		}
		n.Receive(heard(from), ip, s.now)
	}
}

// send sends a packet as the engine does, and reports whether it was sent at once.
func (s *segment) send(from, dst string) bool {
	pkt := inner("2001:db8::"+from, dst)
	pkt[6] = header.NoNextHeader
	n := s.nodes[from]
	to, why := n.To(header.IPv6(pkt))
	switch why {
	case drop.None:
		s.deliver(from, Message{To: to, Bytes: pkt})
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
	s.run(10 * time.Second) // until the search for routers, of which there are none, has ended
	s.now = start
	if s.send(one, two6) {
		t.Error("sent to an unknown neighbour")
	}
	s.run(0)
	s.want("resolution", "0s NS 192.0.2.1>"+groupTwo6, "0s NA 198.51.100.2>192.0.2.1")
	if got := strings.Join(s.heard, ","); got != "192.0.2.1>198.51.100.2" {
		t.Errorf("delivered %s", got)
	}
	// Reachable for 30 s: packets are sent at once, without solicitations.
	s.run(29 * time.Second)
	if !s.send(one, two6) {
		t.Error("a reachable neighbour is not sent to")
	}
	// Then stale: the speaker sends the packet, and a probe after 5 s.
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
	// For the other node our solicitation makes us stale, not unknown.
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
	// It is solicited again.
	s.deaf[two] = false
	s.send(one, two6)
	s.run(0)
	if len(s.heard) != 1 {
		t.Errorf("delivered %v", s.heard)
	}
	// It disappears: packets are still sent to it for a while, then it is removed.
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
	// With nothing to do there is no next time.
	s.run(time.Minute)
	if _, _, again := s.nodes[one].Next(s.now); !again.IsZero() {
		t.Errorf("at rest, again at %v", again.Sub(start))
	}
}

// TestNeighbourAdvertised checks how an advertisement changes an entry (RFC 4861 section
// 7.2.5).
func TestNeighbourAdvertised(t *testing.T) {
	two6 := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(two))}
	other := linkOption(v4("198.51.100.77"))
	for _, c := range []struct {
		name                string
		before              nd.State
		solicited, override bool
		link                []byte
		after               nd.State
		to                  string
	}{
		{"incomplete, no address", nd.Incomplete, true, true, nil, nd.Incomplete, ""},
		{"incomplete, another's nonsense", nd.Incomplete, true, true, linkOption(v4("224.0.0.1")), nd.Incomplete, ""},
		{"incomplete, ours", nd.Incomplete, true, true, linkOption(v4(one)), nd.Incomplete, ""},
		{"incomplete, 14 bytes", nd.Incomplete, true, true, make([]byte, 14), nd.Incomplete, ""},
		{"incomplete, solicited", nd.Incomplete, true, false, other, nd.Reachable, "198.51.100.77"},
		{"incomplete, unsolicited", nd.Incomplete, false, false, other, nd.Delay, "198.51.100.77"}, // a packet waits
		{"reachable, another address", nd.Reachable, true, false, other, nd.Stale, two},
		{"reachable, override", nd.Reachable, true, true, other, nd.Reachable, "198.51.100.77"},
		{"reachable, unsolicited override", nd.Reachable, false, true, other, nd.Stale, "198.51.100.77"},
		{"stale, another address", nd.Stale, true, false, other, nd.Stale, two},
		{"stale, no address", nd.Stale, true, false, nil, nd.Reachable, two},
		{"stale, unsolicited", nd.Stale, false, false, nil, nd.Stale, two},
		{"probe, solicited", nd.Probe, true, false, linkOption(v4(two)), nd.Reachable, two},
		{"probe, another address", nd.Probe, true, false, other, nd.Probe, two},
	} {
		r := resolver(t, SixOverFour{}, at(one)).(*sixOverFour)
		n := r.entry(two6, start)
		if c.before == nd.Incomplete {
			n.Enter(nd.Incomplete, 0, start.Add(time.Second))
			r.Hold(inner("fe80::192.0.2.1", two6.Addr().String()), start)
		} else {
			n.Enter(c.before, v4(two), start.Add(time.Second))
		}
		to := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(one))}.Addr()
		r.Receive(heard(two), nd.Append(nil, two6.Addr(), to, &nd.Message{Type: nd.NeighborAdvertisement, Target: two6.Addr(),
			Solicited: c.solicited, Override: c.override, Link: c.link}), start)
		if n.State != c.after || n.Link != v4(c.to) {
			t.Errorf("%s: state %d at %v, want %d at %s", c.name, n.State, addr4(n.Link), c.after, c.to)
		}
	}
	r := resolver(t, SixOverFour{}, at(one)).(*sixOverFour)
	r.Receive(heard(two), nd.Append(nil, two6.Addr(), nd.AllNodes.Addr(), &nd.Message{Type: nd.NeighborAdvertisement, Target: two6.Addr(), Link: other}), start)
	if r.cache.Find(two6) != nil {
		t.Error("an advertisement that nobody asked for makes an entry")
	}
}

func TestNeighbourChecksWhetherFree(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one)).(Agent)
	r.Next(start)
	own := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(v4(one))}.Addr()
	r.Receive(heard(two), nd.Append(nil, netip.IPv6Unspecified(), nd.SolicitedNode(own), &nd.Message{Type: nd.NeighborSolicitation, Target: own}), start)
	send, _, _ := r.Next(start)
	if len(send) != 1 || send[0].To.IPv4() != v4("239.192.0.1") {
		t.Fatalf("%v", send)
	}
	m, ok := nd.Parse(send[0].Bytes)
	if !ok || m.Solicited || !m.Override || m.Target != own {
		t.Errorf("%+v", m)
	}
}

// TestNeighboursAreBounded: a flood takes only its share of the cache, and does not
// evict neighbours in use.
func TestNeighboursAreBounded(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::1/64")).(*sixOverFour)
	friend := header.Word6{Hi: 0x20010db8 << 32, Lo: 77}
	r.entry(friend, start).Enter(nd.Reachable, v4(two), start.Add(nd.ReachableTime))
	pkt := make([]byte, 1400)
	lost, held := 0, 0
	for i := range 20000 {
		copy(pkt, inner("2001:db8::1", header.Word6{Hi: 0x20010db8 << 32, Lo: uint64(i) + 1<<32}.Addr().String()))
		if r.Hold(pkt, start.Add(time.Duration(i))) {
			held++
		} else {
			lost++
		}
		from := header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: uint64(i) + 1<<33}.Addr()
		r.Receive(heard(two), nd.Append(nil, from, nd.SolicitedNode(from), &nd.Message{Type: nd.NeighborSolicitation, Target: from, Link: linkOption(v4(two))}), start.Add(time.Duration(i)))
	}
	entries := 0
	r.cache.All(func(*nd.Neighbour) { entries++ })
	if entries > 4096 || entries < 4000 || r.held > maxHeld {
		t.Errorf("%d entries, %d bytes", entries, r.held)
	}
	if r.cache.Find(friend) == nil {
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

// TestNeighboursConcurrently looks up neighbours while the speaker changes them.
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
				if dst, why := s.nodes[one].To(out); why == drop.None && dst.IPv4() != v4(two) || why != drop.None && why != drop.Unresolved {
					t.Errorf("%v, %v", dst.Addr(), why)
				}
				if why := received(s.nodes[one], outer, in); why != drop.None {
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

// TestNeighbourKnownMeanwhile: when an address becomes known by another message, waiting
// packets are sent, and a packet that is too late for Hold is sent at once.
func TestNeighbourKnownMeanwhile(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::192.0.2.1/64")).(Agent)
	r.Next(start)
	pkt := inner("2001:db8::192.0.2.1", two6)
	r.Hold(pkt, start)
	r.Next(start)
	target := netip.MustParseAddr(two6)
	own := netip.MustParseAddr("2001:db8::192.0.2.1")
	r.Receive(heard(two), nd.Append(nil, target, nd.SolicitedNode(own), &nd.Message{Type: nd.NeighborSolicitation, Target: own, Link: linkOption(v4(two))}), start)
	r.Hold(pkt, start)
	send, lost, _ := r.Next(start)
	var types []string
	for _, m := range send {
		if m.To.IPv4() != v4(two) {
			t.Errorf("sent to %v", m.To.Addr())
		}
		types = append(types, fmt.Sprint(len(m.Bytes)))
	}
	if got := strings.Join(types, " "); got != "40 72 40" || lost != 0 { // what waited, the answer, the late packet
		t.Errorf("%s, %d lost", got, lost)
	}
	if r.Receive(heard(two), pkt, start) {
		t.Error("data are kept from the interface")
	}
	bad := nd.Append(nil, target, own, &nd.Message{Type: nd.NeighborSolicitation, Target: own})
	bad[7] = 1
	if !r.Receive(heard(two), bad, start) {
		t.Error("bad neighbour discovery is for the interface")
	}
	if r.Hold(pkt[:39], start) || r.Hold(inner("2001:db8::192.0.2.1", "3fff::1"), start) {
		t.Error("what goes nowhere is held")
	}
	advertise(r, two, nil, time.Hour, start)
	learnt := r.Learnt().Addresses[0].Prefix.Addr()
	r.Receive(heard(two), nd.Append(nil, target, learnt, &nd.Message{Type: nd.NeighborSolicitation, Target: learnt}), start)
	if send, _, _ := r.Next(start); len(send) != 1 || send[0].To.IPv4() != v4(two) {
		t.Errorf("a learnt address is not defended: %v", send)
	}
}

// TestNeighbourKeepsOrder: a packet that comes when a neighbour has just become known
// does not overtake those that wait: it passes only when they were sent.
func TestNeighbourKeepsOrder(t *testing.T) {
	r := resolver(t, SixOverFour{}, at(one, "2001:db8::192.0.2.1/64")).(Agent)
	pkt := inner("2001:db8::192.0.2.1", two6)
	way := func(want drop.Reason, what string) {
		t.Helper()
		if _, why := r.To(bytes.Clone(pkt)); why != want {
			t.Errorf("%s: %v, want %v", what, why, want)
		}
	}
	data := func(now time.Time) (n int) {
		send, _, again := r.Next(now)
		for _, m := range send {
			if m.To.IPv4() == v4(two) && !nd.Is(m.Bytes) {
				n++
			}
		}
		if n > 0 && again.After(now) {
			t.Error("nobody hears when it was sent")
		}
		return n
	}
	target, own := netip.MustParseAddr(two6), netip.MustParseAddr("2001:db8::192.0.2.1")
	r.Next(start)
	way(drop.Unresolved, "a new neighbour")
	r.Hold(pkt, start)
	data(start)
	r.Receive(heard(two), nd.Append(nil, target, own, &nd.Message{Type: nd.NeighborAdvertisement, Target: target, Solicited: true, Override: true, Link: linkOption(v4(two))}), start)
	way(drop.Unresolved, "while another waits")
	r.Hold(pkt, start)
	if n := data(start); n != 2 {
		t.Errorf("%d packets are sent, want 2", n)
	}
	way(drop.Unresolved, "while others are being sent")
	r.Hold(pkt, start)
	if n := data(start); n != 1 {
		t.Errorf("%d packets are sent, want 1", n)
	}
	if n := data(start); n != 0 {
		t.Errorf("%d packets are sent, want none", n)
	}
	way(drop.None, "when all are sent")

	old := start.Add(2 * nd.ReachableTime)
	data(old)
	way(drop.Unresolved, "a stale neighbour")
	r.Hold(pkt, old)
	way(drop.Unresolved, "behind the first to a stale one")
	if n := data(old); n != 1 {
		t.Errorf("%d packets are sent, want 1", n)
	}
	data(old)
	way(drop.None, "when that was sent")
}
