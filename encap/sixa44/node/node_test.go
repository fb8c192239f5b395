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
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	"sixfour/encap/teredo"
	"sixfour/internal/vectors"
)

const relayAt = "192.88.99.2"

var native = agenttest.IP6("2001:db8:ff::80")

func newNet(t *testing.T) (w *agenttest.World, r *agenttest.Host) {
	w = agenttest.NewWorld(t, teredo.IsData)
	return w, w.Add("relay", Relay{Prefix: netip.MustParsePrefix("2001:db8:44::/48")}, sixa44.Port, agenttest.None, relayAt, relayAt)
}

func newClient(w *agenttest.World, name, outside, inside string) *agenttest.Host {
	return w.Add(name, Client{agenttest.HostAt(relayAt)}, sixa44.Port, agenttest.PortRestricted, outside, inside)
}

func addr(h *agenttest.Host) header.Word6 {
	h.World.T.Helper()
	me := h.Agent.(*client).self.Load()
	if me == nil {
		h.World.T.Fatalf("%s has no address: %v", h.Name, h.Drops)
	}
	return *me
}

// Clients of two sites reach each other and the IPv6 side through the relay.
func TestClients(t *testing.T) {
	w, r := newNet(t)
	a, b := newClient(w, "a", "203.0.113.7", "10.0.0.5"), newClient(w, "b", "198.51.100.9", "10.0.0.5")
	w.Run(time.Second)
	if p, inside := sixa44.Of(addr(a)); p.At.AddrPort().Addr() != netip.MustParseAddr("203.0.113.7") || inside != agenttest.IP4("10.0.0.5") {
		t.Errorf("%+v, %x", p, inside)
	}
	a.Say(agenttest.UDP(addr(a), addr(b), "across"))
	a.Say(agenttest.UDP(addr(a), native, "out"))
	r.Say(agenttest.UDP(native, addr(b), "in"))
	w.Run(time.Second)
	if !b.Heard("across") || !r.Heard("out") || !b.Heard("in") || r.Heard("across") {
		t.Errorf("drops %v, %v, %v", a.Drops, r.Drops, b.Drops)
	}
	if b.Got[0].HopLimit() != 64 {
		t.Error("the relay has changed the packet")
	}
	sent := w.Sent
	w.Run(5 * time.Minute)
	if n := w.Sent - sent; n > 2*2*5*60/24+4 {
		t.Errorf("%d datagrams in five minutes", n)
	}
}

// Two clients of a site exchange packets of protocol 41.
func TestSameSite(t *testing.T) {
	w, _ := newNet(t)
	a, b := newClient(w, "a", "203.0.113.7", "10.0.0.5"), newClient(w, "b", "203.0.113.7", "10.0.0.6")
	a.Maps[header.Mapping{Addr: 1}] = 1 // so that the NAT gives it another port
	w.Run(time.Second)
	pkt := agenttest.UDP(addr(a), addr(b), "direct")
	to, why := a.Agent.To(pkt)
	if why != drop.None || to.Form != direct || to.Addr() != netip.MustParseAddr("10.0.0.6") {
		t.Fatalf("to %v, form %d, %v", to.AddrPort(), to.Form, why)
	}
	from := resolve.EndpointOf(netip.MustParseAddrPort("10.0.0.5:0"))
	from.Form = direct
	at := resolve.EndpointOf(netip.MustParseAddrPort("10.0.0.6:0"))
	if why := b.Agent.From(from, at, pkt); why != drop.None {
		t.Errorf("refused: %v", why)
	}
	for name, f := range map[string]func() (resolve.Endpoint, header.IPv6){
		"another outer source": func() (resolve.Endpoint, header.IPv6) {
			e := resolve.EndpointOf(netip.MustParseAddrPort("10.0.0.7:0"))
			e.Form = direct
			return e, pkt
		},
		"another site": func() (resolve.Endpoint, header.IPv6) { return from, agenttest.UDP(native, addr(b), "") },
		"not protocol 41": func() (resolve.Endpoint, header.IPv6) {
			return resolve.EndpointOf(netip.MustParseAddrPort("10.0.0.5:1027")), pkt
		},
		"for another host": func() (resolve.Endpoint, header.IPv6) { return from, agenttest.UDP(addr(a), native, "") },
	} {
		if e, b6 := f(); b.Agent.From(e, at, b6) != drop.Spoof {
			t.Errorf("%s is accepted", name)
		}
	}
	p, _ := sixa44.Of(addr(a))
	for inside, want := range map[string]drop.Reason{"127.0.0.1": drop.Martian, "224.0.0.1": drop.Martian, "0.0.0.1": drop.Martian} {
		if _, why := a.Agent.To(agenttest.UDP(addr(a), p.Address(agenttest.IP4(inside)), "")); why != want {
			t.Errorf("to %s: %v", inside, why)
		}
	}
}

// A relay tells a client with a wrong source, at most once in a second, and the client asks
// again. Nobody else can change a client's address.
func TestMappingLost(t *testing.T) {
	w, r := newNet(t)
	a := newClient(w, "a", "203.0.113.7", "10.0.0.5")
	w.Run(2 * time.Second)
	before := addr(a)
	for _, m := range []sixa44.Bubble{{ID: 7, Prefix: sixa44.Prefix{Provider: 0x20010db80044, At: header.Mapping{Addr: 1, Port: 1}}}, {Prefix: sixa44.Prefix{Provider: 0x20010db80044, At: header.Mapping{Addr: 1, Port: 1}}}} {
		a.Receive(r.At[0], a.At[0], sixa44.AppendBubble(nil, m))
		a.Receive(header.Mapping{Addr: 9, Port: 9}, a.At[0], sixa44.AppendBubble(nil, m))
		w.Run(3 * time.Second)
		if addr(a) != before {
			t.Fatal("a forged bubble has changed the address")
		}
	}
	clear(a.Maps)
	clear(a.Open)
	a.Maps[header.Mapping{Addr: 1}] = 1
	sent := w.Sent
	for range 20 {
		a.Say(agenttest.UDP(before, native, "lost"))
	}
	if w.Run(900 * time.Millisecond); r.Drops[drop.Spoof] != 20 {
		t.Errorf("drops of the relay %v", r.Drops)
	}
	if n := w.Sent - sent; n > 20+1+2 { // one correction, one bubble and its answer
		t.Errorf("%d datagrams", n)
	}
	if w.Run(time.Second); addr(a) == before {
		t.Error("the address is the same")
	}
	w.Lose = func(_, _ header.Mapping, _ []byte) bool { return true }
	w.Run(time.Minute)
	if at, why := a.Agent.(resolve.Qualifier).Mapped(); at.IsValid() || why == "" {
		t.Errorf("silent relay: %v, %q", at, why)
	}
}

// The vectors through the relay.
func TestVectors(t *testing.T) {
	v := vectors.Read(t)
	w, r := newNet(t)
	r.Arrive(v["6A44-3"])
	if len(r.Got) != 1 {
		t.Errorf("6A44-3: %v", r.Drops)
	}
	var sent []byte
	w.Lose = func(from, to header.Mapping, payload []byte) bool {
		if want := (header.Mapping{Addr: agenttest.IP4("203.0.113.9"), Port: 40200}); to != want || from != r.At[0] {
			t.Errorf("from %v to %v", from, to)
		}
		sent = payload
		return true
	}
	r.Arrive(v["6A44-6a"])
	if string(sent) != string(v["6A44-6b"][28:]) {
		t.Errorf("6A44-6a is sent on as %x; drops %v", sent, r.Drops)
	}
}

// Packets with addresses that do not fit, and sites where there can be no node.
func TestRefused(t *testing.T) {
	w, r := newNet(t)
	a := newClient(w, "a", "203.0.113.7", "10.0.0.5")
	w.Run(time.Second)
	me := addr(a)
	client := func(at string) header.Word6 {
		return sixa44.Prefix{Provider: 0x20010db80044, At: header.MappingOf(netip.MustParseAddrPort(at))}.Address(1)
	}
	for _, c := range []struct {
		name string
		h    *agenttest.Host
		ip   header.IPv6
		want drop.Reason
	}{
		{"another source", a, agenttest.UDP(native, native, ""), drop.Spoof},
		{"to itself", a, agenttest.UDP(me, me, ""), drop.Loop},
		{"not global", a, agenttest.UDP(me, agenttest.IP6("fd00::1"), ""), drop.Martian},
		{"no client", r, agenttest.UDP(native, native, ""), drop.NoPeer},
		{"a client's source from the IPv6 side", r, agenttest.UDP(me, me, ""), drop.Spoof},
		{"loopback", r, agenttest.UDP(native, client("127.0.0.1:5"), ""), drop.Martian},
		{"the relay itself", r, agenttest.UDP(native, client(relayAt+":5"), ""), drop.Loop},
	} {
		if why := c.h.Say(c.ip); why != c.want {
			t.Errorf("%s: %v, want %v", c.name, why, c.want)
		}
	}
	for name, f := range map[string]func() (resolve.Resolver, error){
		"a /32": func() (resolve.Resolver, error) {
			return Relay{Prefix: netip.MustParsePrefix("2001:db8::/32")}.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.7")})
		},
		"ourselves": func() (resolve.Resolver, error) {
			return Client{agenttest.HostAt("192.0.2.7")}.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.7")})
		},
		"native IPv6": func() (resolve.Resolver, error) {
			return Client{agenttest.HostAt(relayAt)}.Resolver(resolve.Site{Local: netip.MustParseAddr("192.0.2.7"), Elsewhere: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}})
		},
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A relay with customers serves them, whose addresses may be private, and nobody else.
func TestCustomers(t *testing.T) {
	w := agenttest.NewWorld(t, teredo.IsData)
	m := Relay{Prefix: netip.MustParsePrefix("2001:db8:44::/48"), Customers: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.88.99.0/24")}}
	r := w.Add("relay", m, sixa44.Port, agenttest.None, "100.64.0.1", "100.64.0.1")
	join := func(name, outside, inside string) *agenttest.Host {
		return w.Add(name, Client{agenttest.HostAt("100.64.0.1")}, sixa44.Port, agenttest.PortRestricted, outside, inside)
	}
	a, b, other := join("a", "100.64.7.7", "10.0.0.5"), join("b", "100.64.9.9", "192.168.0.2"), join("other", "203.0.113.7", "10.0.0.5")
	w.Run(time.Second)
	a.Say(agenttest.UDP(addr(a), addr(b), "across"))
	r.Say(agenttest.UDP(native, addr(a), "in"))
	a.Say(agenttest.UDP(addr(a), native, "out"))
	w.Run(time.Second)
	if !b.Heard("across") || !a.Heard("in") || !r.Heard("out") {
		t.Errorf("drops %v, %v, %v", a.Drops, r.Drops, b.Drops)
	}
	if other.Agent.(*client).self.Load() != nil || r.Drops[drop.Martian] == 0 {
		t.Errorf("a client that is no customer: %v", r.Drops)
	}
	in := agenttest.UDP(native, addr(a), "in")
	if n := testing.AllocsPerRun(100, func() { r.Agent.To(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, at := range []string{"203.0.113.7:5", "100.64.0.1:5", "192.88.99.2:5", "100.64.7.7:0"} {
		to := sixa44.Prefix{Provider: 0x20010db80044, At: header.MappingOf(netip.MustParseAddrPort(at))}.Address(1)
		if _, why := r.Agent.To(agenttest.UDP(native, to, "")); why == drop.None {
			t.Errorf("a packet goes to %s", at)
		}
	}
}

// A flood keeps no state, and is not answered more than it must be.
func TestFlood(t *testing.T) {
	w, r := newNet(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		from := header.Mapping{Addr: random.Uint32(), Port: uint16(random.Uint32())}
		b := make([]byte, random.IntN(100))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if len(b) >= header.IPv6Len {
			b[0], b[4], b[5] = 0x60, 0, byte(len(b)-header.IPv6Len)
		}
		if teredo.IsData(b) {
			r.Agent.From(agent.Endpoint(from), agent.Endpoint(r.At[0]), b)
		} else if len(b) >= header.IPv6Len && r.Agent.Wants(b) {
			r.Agent.Receive(header.Outer{From: from.AddrPort(), At: r.At[0].AddrPort()}, b, w.Now)
		}
	}
	if w.Run(500 * time.Millisecond); w.Sent > agent.MaxCorrections {
		t.Errorf("%d datagrams", w.Sent)
	}
}

func TestNoAllocs(t *testing.T) {
	w, r := newNet(t)
	a := newClient(w, "a", "203.0.113.7", "10.0.0.5")
	w.Run(time.Second)
	out, in := agenttest.UDP(addr(a), native, "x"), agenttest.UDP(native, addr(a), "x")
	p, _ := sixa44.Of(addr(a))
	relay, from := agent.Endpoint(r.At[0]), agent.Endpoint(p.At)
	for name, f := range map[string]func(){
		"to": func() { a.Agent.To(out) }, "from": func() { a.Agent.From(relay, relay, in) },
		"relay's to": func() { r.Agent.To(in) }, "relay's from": func() { r.Agent.From(from, relay, out) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
