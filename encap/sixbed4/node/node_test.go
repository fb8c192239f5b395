package node

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/sixbed4"
	"sixfour/internal/vectors"
)

const (
	routerAt = "198.51.100.2"
	prefix   = "fc64:bed:c633:6402::/64"
)

// newNet returns a world with a router, whose interface sends packets on as the kernel does.
func newNet(t *testing.T) (w *agenttest.World, r *agenttest.Host) {
	w = agenttest.NewWorld(t, isData)
	r = w.Add("router", NewRouter(sixbed4.Port, netip.MustParsePrefix(prefix)), sixbed4.Port, agenttest.None, routerAt, routerAt)
	r.Inner = forward
	return w, r
}

func forward(h *agenttest.Host, ip header.IPv6) {
	if ip[7]--; ip[7] > 0 {
		h.Say(ip)
	}
}

func newPeer(w *agenttest.World, name string, kind agenttest.NAT, outside, inside string, direct bool) *agenttest.Host {
	if kind == agenttest.None {
		inside = outside
	}
	return w.Add(name, NewPeer(40000, agenttest.HostAt(routerAt), direct), 40000, kind, outside, inside)
}

func addr(h *agenttest.Host) header.Word6 {
	h.World.T.Helper()
	me := h.Agent.(*peer).self.Load()
	if me == nil {
		h.World.T.Fatalf("%s has no address: %v", h.Name, h.Drops)
	}
	return *me
}

// state returns the word for a remote.
func state(h *agenttest.Host, other *agenttest.Host) string {
	for _, e := range h.Agent.Entries(h.World.Now)[1:] {
		if e.Link == sixbed4.MappingOf(addr(other)).AddrPort() {
			return e.State
		}
	}
	return ""
}

// Two peers that exchange packets reach each other directly where their NATs let them, and
// through the router otherwise. No packet is lost on the way from one to the other.
func TestPeers(t *testing.T) {
	for _, k := range []struct {
		name   string
		a, b   agenttest.NAT
		direct bool
	}{
		{"no NAT", agenttest.None, agenttest.None, true},
		{"restricted", agenttest.Restricted, agenttest.Restricted, true},
		{"port-restricted", agenttest.PortRestricted, agenttest.PortRestricted, true},
		{"one NAT", agenttest.PortRestricted, agenttest.None, true},
		{"symmetric", agenttest.Symmetric, agenttest.PortRestricted, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			w, r := newNet(t)
			a, b := newPeer(w, "a", k.a, "203.0.113.7", "10.0.0.7", true), newPeer(w, "b", k.b, "192.0.2.45", "10.0.1.45", true)
			w.Run(time.Second)
			for i := range 40 {
				a.Say(agenttest.UDP(addr(a), addr(b), "there"))
				w.Run(50 * time.Millisecond)
				b.Say(agenttest.UDP(addr(b), addr(a), "back"))
				w.Run(time.Second)
				if len(a.Got) != i+1 || len(b.Got) != i+1 {
					t.Fatalf("after %d packets each: %d and %d; drops %v, %v, %v", i+1, len(a.Got), len(b.Got), a.Drops, b.Drops, r.Drops)
				}
			}
			if got := state(a, b) == "direct" && state(b, a) == "direct"; got != k.direct {
				t.Errorf("states %s and %s", state(a, b), state(b, a))
			}
			passed := len(r.Got)
			for range 200 { // longer than any phase
				a.Say(agenttest.UDP(addr(a), addr(b), "there"))
				b.Say(agenttest.UDP(addr(b), addr(a), "back"))
				w.Run(time.Second)
			}
			if now := len(r.Got) - passed; k.direct && now > 0 || !k.direct && now < 400 {
				t.Errorf("%d packets went through the router", now)
			}
			if len(a.Got) != 240 || len(b.Got) != 240 {
				t.Errorf("%d and %d packets", len(a.Got), len(b.Got))
			}
			for _, ip := range a.Got {
				if ip.TrafficClass() != 0 {
					t.Fatalf("a flag is left in the traffic class: %x", ip.TrafficClass())
				}
			}
			w.Run(2 * time.Minute)
			if len(a.Agent.Entries(w.Now)) != 1 {
				t.Error("an idle remote is kept")
			}
		})
	}
}

// The direct way fails: packets go through the router again.
func TestDirectFails(t *testing.T) {
	w, _ := newNet(t)
	a, b := newPeer(w, "a", agenttest.PortRestricted, "203.0.113.7", "10.0.0.7", true), newPeer(w, "b", agenttest.None, "192.0.2.45", "", true)
	w.Run(time.Second)
	talk := func(n int) {
		for range n {
			a.Say(agenttest.UDP(addr(a), addr(b), "there"))
			b.Say(agenttest.UDP(addr(b), addr(a), "back"))
			w.Run(time.Second)
		}
	}
	talk(10)
	if state(a, b) != "direct" {
		t.Fatalf("state %s", state(a, b))
	}
	router := header.MappingOf(netip.MustParseAddrPort(routerAt + ":25790"))
	w.Lose = func(from, to header.Mapping, _ []byte) bool { return from != router && to != router }
	talk(30)
	if state(a, b) != "through_router" {
		t.Fatalf("state %s", state(a, b))
	}
	before := len(b.Got)
	talk(10)
	if len(b.Got) != before+10 {
		t.Errorf("%d of 10 packets", len(b.Got)-before)
	}
	w.Lose = nil
	talk(60)
	if state(a, b) != "direct" {
		t.Errorf("later: state %s", state(a, b))
	}
}

// Without direct peering, and with the policy that forbids it, everything goes through the
// router; a persistent packet never does.
func TestPolicies(t *testing.T) {
	w, r := newNet(t)
	a, b := newPeer(w, "a", agenttest.None, "203.0.113.7", "", false), newPeer(w, "b", agenttest.None, "192.0.2.45", "", true)
	w.Run(time.Second)
	for range 10 {
		a.Say(agenttest.UDP(addr(a), addr(b), "x"))
		w.Run(time.Second)
	}
	if len(r.Got) != 10 || len(a.Agent.Entries(w.Now)) != 1 {
		t.Errorf("%d packets at the router", len(r.Got))
	}
	class := func(p sixbed4.Policy) header.IPv6 {
		ip := agenttest.UDP(addr(b), addr(a), "y")
		ip[0] |= byte(p) << 2
		return ip
	}
	b.Say(class(sixbed4.Prohibited))
	if len(r.Got) != 11 {
		t.Error("prohibited, and yet direct")
	}
	before := len(r.Got)
	if b.Say(class(sixbed4.Presumptuous)); len(r.Got) != before {
		t.Error("presumptuous, and yet through the router")
	}
	w.Run(10 * time.Second) // there are no answers
	if why := b.Say(class(sixbed4.Persistent)); why != drop.NoRoute {
		t.Errorf("persistent: %v", why)
	}
	if b.Say(class(sixbed4.Presumptuous)); len(r.Got) != before+1 {
		t.Error("presumptuous, and not through the router after it has failed")
	}
}

// Two routers: packets between their peers travel from router to router.
func TestTrapezium(t *testing.T) {
	w, r := newNet(t)
	const second = "192.0.2.200"
	s := w.Add("second", NewRouter(sixbed4.Port, netip.MustParsePrefix("fc64:bed:c000:2c8::/64")), sixbed4.Port, agenttest.None, second, second)
	s.Inner = forward
	a := newPeer(w, "a", agenttest.PortRestricted, "203.0.113.7", "10.0.0.7", false)
	b := w.Add("b", NewPeer(40001, agenttest.HostAt(second), false), 40001, agenttest.PortRestricted, "192.0.2.45", "10.0.1.45")
	w.Run(time.Second)
	a.Say(agenttest.UDP(addr(a), addr(b), "there"))
	b.Say(agenttest.UDP(addr(b), addr(a), "back"))
	if !b.Heard("there") || !a.Heard("back") || len(r.Got) != 2 || len(s.Got) != 2 {
		t.Errorf("drops %v, %v, %v, %v", a.Drops, r.Drops, s.Drops, b.Drops)
	}
	// Only the router of the source's network may send on its packets.
	forged := agenttest.UDP(addr(b), addr(a), "forged")
	r.Receive(header.MappingOf(netip.MustParseAddrPort("192.0.2.201:25790")), r.At[0], forged)
	if a.Heard("forged") || r.Drops[drop.Spoof] != 1 {
		t.Errorf("drops %v", r.Drops)
	}
}

// A NAT gives a peer another port: the router says so, and the peer gets another address. An
// advertisement that nobody asked for only makes it ask.
func TestMappingLost(t *testing.T) {
	w, r := newNet(t)
	a := newPeer(w, "a", agenttest.PortRestricted, "203.0.113.7", "10.0.0.7", true)
	w.Run(2 * time.Second)
	before := addr(a)
	forged := sixbed4.AppendAdvertisement(nil, 0xfc640bedc6336402, header.Mapping{Addr: 0x01020304, Port: 5}, netip.MustParseAddr("ff02::1"))
	a.Receive(r.At[0], a.At[0], forged)
	w.Run(3 * time.Second)
	if addr(a) != before {
		t.Error("a forged advertisement has changed the address")
	}
	clear(a.Maps)
	clear(a.Open)
	a.Maps[header.Mapping{Addr: 1}] = 1 // so that the port is another one
	a.Say(agenttest.UDP(before, agenttest.IP6("fc64:bed:c633:6402:c000:22d:c549:5"), "lost"))
	w.Run(3 * time.Second)
	if addr(a) == before || r.Drops[drop.Spoof] == 0 {
		t.Errorf("the address is the same; drops of the router: %v", r.Drops)
	}
}

// Keepalives pass the NAT and need not reach the router. After a mapping was lost they have the
// ordinary TTL.
func TestKeepalives(t *testing.T) {
	w, _ := newNet(t)
	p := newPeer(w, "a", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5", true)
	keepalive := func() resolve.Message {
		w.Now = w.Now.Add(keepPause)
		send, _, _ := p.Agent.Next(w.Now)
		if len(send) != 1 || !send[0].Raw || len(send[0].Bytes) != 0 {
			t.Fatalf("%+v", send)
		}
		return send[0]
	}
	w.Run(time.Second)
	before := addr(p)
	if m := keepalive(); m.TTL != keepTTL {
		t.Errorf("TTL %d", m.TTL)
	}
	clear(p.Maps)
	clear(p.Open)
	p.Maps[header.Mapping{Addr: 1}] = 1
	w.Run((keepsPerAsk + 1) * keepPause)
	if addr(p) == before {
		t.Fatal("the lost mapping is not found")
	}
	if m := keepalive(); m.TTL != 0 {
		t.Errorf("TTL %d after a mapping was lost", m.TTL)
	}
}

// The vectors through the router.
func TestVectors(t *testing.T) {
	v := vectors.Read(t)
	w, r := newNet(t)
	for i, name := range []string{"6BED4-1", "6BED4-6"} {
		r.Arrive(v[name])
		if w.Sent != i+1 {
			t.Errorf("%s: %d answers", name, w.Sent)
		}
	}
	r.Arrive(v["6BED4-3"])
	if w.Sent != 3 || len(r.Got) != 1 {
		t.Errorf("%d packets sent on: %v", len(r.Got), r.Drops)
	}
	r.Arrive(v["6BED4-5"])
	if len(r.Drops) > 1 { // 0 packets are lost
		t.Errorf("a keepalive is dropped: %v", r.Drops)
	}
	sent := w.Sent
	for range 100 {
		r.Arrive(v["6BED4-D1"])
	}
	w.Run(900 * time.Millisecond)
	if r.Drops[drop.Spoof] != 100 || w.Sent != sent+1 {
		t.Errorf("%d packets dropped, %d corrections", r.Drops[drop.Spoof], w.Sent-sent)
	}
	// Direct packets reach the peer that has the address.
	p := w.Add("b", NewPeer(50505, agenttest.HostAt(routerAt), true), 50505, agenttest.None, "192.0.2.45", "192.0.2.45")
	w.Run(time.Second)
	p.Arrive(v["6BED4-4"])
	if len(p.Got) != 1 {
		t.Errorf("6BED4-4: %v", p.Drops)
	}
}

// A neighbour solicitation of an old peer is answered; it is not one for others.
func TestNeighbours(t *testing.T) {
	w, r := newNet(t)
	a := newPeer(w, "a", agenttest.None, "203.0.113.7", "", true)
	w.Run(time.Second)
	from := header.Mapping{Addr: agenttest.IP4("192.0.2.45"), Port: 40000}
	src := sixbed4.Address(0xfc640bedc6336402, from, 1).Addr()
	for _, c := range []struct {
		h      *agenttest.Host
		target netip.Addr
		answer bool
	}{
		{r, netip.MustParseAddr("fe80::"), true},
		{a, addr(a).Addr(), true},
		{a, netip.MustParseAddr("fe80::5"), false},
		{r, addr(a).Addr(), false},
	} {
		sent := w.Sent
		ns := nd.Append(nil, src, nd.SolicitedNode(c.target), &nd.Message{Type: nd.NeighborSolicitation, Target: c.target})
		c.h.Receive(from, c.h.At[0], ns)
		if got := w.Sent > sent; got != c.answer {
			t.Errorf("%s, %v: %v; drops %v", c.h.Name, c.target, got, c.h.Drops)
		}
	}
}

// Packets with addresses that do not fit.
func TestRefused(t *testing.T) {
	w, r := newNet(t)
	a := newPeer(w, "a", agenttest.None, "203.0.113.7", "", true)
	w.Run(time.Second)
	me := addr(a)
	other := sixbed4.Address(me.Hi, header.Mapping{Addr: agenttest.IP4("192.0.2.45"), Port: 40000}, 1)
	for _, c := range []struct {
		name string
		h    *agenttest.Host
		ip   header.IPv6
		want drop.Reason
	}{
		{"another source", a, agenttest.UDP(other, other, ""), drop.Spoof},
		{"to itself", a, agenttest.UDP(me, me, ""), drop.Loop},
		{"multicast", a, agenttest.UDP(me, agenttest.IP6("ff02::5"), ""), drop.Martian},
		{"not global", a, agenttest.UDP(me, agenttest.IP6("fd00::1"), ""), drop.Martian},
		{"loopback inside", r, agenttest.UDP(agenttest.IP6("2001:db8::1"), sixbed4.Address(me.Hi, header.Mapping{Addr: 127<<24 | 1, Port: 1}, 1), ""), drop.Martian},
		{"no port", r, agenttest.UDP(agenttest.IP6("2001:db8::1"), sixbed4.Address(me.Hi, header.Mapping{Addr: 8<<24 | 1}, 1), ""), drop.Martian},
		{"the router itself", r, agenttest.UDP(agenttest.IP6("2001:db8::1"), sixbed4.Address(me.Hi, r.At[0], 0), ""), drop.Loop},
		{"elsewhere", r, agenttest.UDP(agenttest.IP6("2001:db8::1"), agenttest.IP6("2001:db8::2"), ""), drop.NoPeer},
	} {
		if why := c.h.Say(c.ip); why != c.want {
			t.Errorf("%s: %v, want %v", c.name, why, c.want)
		}
	}
	at := header.Mapping{Addr: agenttest.IP4("192.0.2.66"), Port: 7}
	for _, c := range []struct {
		name string
		from header.Mapping
		ip   header.IPv6
		want drop.Reason
	}{
		{"a stranger's source", at, agenttest.UDP(other, me, ""), drop.Spoof},
		{"for another", sixbed4.MappingOf(other), agenttest.UDP(other, other, ""), drop.Spoof},
		{"our own source", r.At[0], agenttest.UDP(me, me, ""), drop.OwnSource},
		{"not 6bed4, and not from the router", at, agenttest.UDP(agenttest.IP6("2001:db8::1"), me, ""), drop.Spoof},
	} {
		before := a.Drops[c.want]
		if a.Receive(c.from, a.At[0], c.ip); a.Drops[c.want] != before+1 {
			t.Errorf("%s: %v, want %v", c.name, a.Drops, c.want)
		}
	}
	for name, m := range map[string]resolve.Mechanism{
		"a /48": NewRouter(sixbed4.Port, netip.MustParsePrefix("2001:db8::/48")), "another router's": NewRouter(sixbed4.Port, netip.MustParsePrefix(prefix)),
		"no router": NewPeer(1, resolve.Host{}, true), "IPv6": NewPeer(1, agenttest.HostAt("2001:db8::1"), true), "ourselves": NewPeer(1, agenttest.HostAt("192.0.2.7"), true),
	} {
		if _, err := m.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.7")}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A flood of packets with any addresses, and of messages, keeps no state and is not answered
// with more datagrams than the limits allow.
func TestFlood(t *testing.T) {
	w, r := newNet(t)
	a := newPeer(w, "a", agenttest.None, "203.0.113.7", "", true)
	w.Run(time.Second)
	random := rand.New(rand.NewPCG(1, 2))
	sent := w.Sent
	for range 100000 {
		from := header.Mapping{Addr: random.Uint32(), Port: uint16(random.Uint32())}
		b := make([]byte, random.IntN(100))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if len(b) >= header.IPv6Len && random.IntN(4) > 0 {
			b[0], b[4], b[5] = 0x60, 0, byte(len(b)-header.IPv6Len)
			copy(b[24:], addr(a).Addr().AsSlice())
		}
		for _, h := range []*agenttest.Host{a, r} {
			if isData(b) {
				h.Agent.From(agent.Endpoint(from), agent.Endpoint(h.At[0]), append([]byte(nil), b...))
			} else if h.Agent.Wants(b) {
				h.Agent.Receive(header.Outer{From: from.AddrPort(), At: h.At[0].AddrPort()}, b, w.Now)
			}
		}
	}
	w.Run(500 * time.Millisecond)
	if n := w.Sent - sent; n > agent.MaxCorrections+2 {
		t.Errorf("%d datagrams", n)
	}
	if n := len(a.Agent.Entries(w.Now)); n != 1 {
		t.Errorf("%d remotes", n-1)
	}
	me := addr(a)
	for i := range 10000 { // of our own
		a.Say(agenttest.UDP(me, sixbed4.Address(me.Hi, header.Mapping{Addr: 8<<24 + uint32(i), Port: 1}, 1), ""))
	}
	if n := len(a.Agent.Entries(w.Now)); n > maxRemotes+1 {
		t.Errorf("%d remotes", n-1)
	}
}

func TestNoAllocs(t *testing.T) {
	w, r := newNet(t)
	a, b := newPeer(w, "a", agenttest.None, "203.0.113.7", "", true), newPeer(w, "b", agenttest.None, "192.0.2.45", "", true)
	w.Run(time.Second)
	pkt := agenttest.UDP(addr(a), addr(b), "x")
	a.Say(pkt)
	back := agenttest.UDP(addr(b), addr(a), "x")
	at := agent.Endpoint(b.At[0])
	out, from := agent.Endpoint(a.At[0]), agent.Endpoint(r.At[0])
	for name, f := range map[string]func(){
		"to":            func() { a.Agent.To(pkt) },
		"from":          func() { a.Agent.From(at, out, back) },
		"router's to":   func() { r.Agent.To(pkt) },
		"router's from": func() { r.Agent.From(out, from, pkt) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
