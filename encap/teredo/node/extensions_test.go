package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// While two clients send, or one of them only, their mappings are confirmed without the server
// (RFC 6081 section 5.6).
func TestServerLoadReduction(t *testing.T) {
	for _, k := range []struct{ a, b agenttest.NAT }{{agenttest.PortRestricted, agenttest.PortRestricted}, {agenttest.Symmetric, agenttest.Restricted}, {agenttest.Restricted, agenttest.Symmetric}} {
		w, server, _ := newInternet(t)
		a := newClient(w, "a", k.a, "203.0.113.7", "10.0.0.5")
		b := newClient(w, "b", k.b, "203.0.113.8", "10.0.1.5")
		w.Run(2 * time.Second)
		a.Say(agenttest.UDP(addr(a), addr(b), "hello"))
		w.Run(5 * time.Second)
		bubbles := 0
		w.Lose = func(_, to header.Mapping, payload []byte) bool {
			if m, err := teredo.Parse(payload); err == nil && to == server.At[0] && teredo.IsBubble(m.Packet) {
				bubbles++
			}
			return false
		}
		got := len(b.Got)
		for range 120 { // b sends nothing
			if why := a.Say(agenttest.UDP(addr(a), addr(b), "more")); why != drop.None {
				t.Fatal(why)
			}
			w.Run(time.Second)
		}
		if n := len(b.Got) - got; n != 120 || bubbles > 0 {
			t.Errorf("NATs %v and %v: %d of 120 packets arrive, %d bubbles through the server; drops %v and %v", k.a, k.b, n, bubbles, a.Drops, b.Drops)
		}
	}
}

// A relay confirms the mappings of its clients without the server, too.
func TestRelayConfirms(t *testing.T) {
	w, server, relay := newInternet(t)
	c := newClient(w, "c", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
	native := agenttest.IP6("2001:db8:ff::80")
	w.Run(2 * time.Second)
	c.Say(agenttest.UDP(addr(c), native, "out"))
	w.Run(3 * time.Second)
	bubbles := 0
	w.Lose = func(from, to header.Mapping, payload []byte) bool {
		if m, err := teredo.Parse(payload); err == nil && from == relay.At[0] && to == server.At[0] && teredo.IsBubble(m.Packet) {
			bubbles++
		}
		return false
	}
	for range 100 {
		relay.Say(agenttest.UDP(native, addr(c), "in"))
		w.Run(time.Second)
	}
	if n := len(c.Got); n < 99 || bubbles > 0 {
		t.Errorf("%d packets arrive, %d bubbles through the server; drops %v", n, bubbles, c.Drops)
	}
}

// A bubble that asks for another one is answered once, with no more bytes than it has; one that
// pretends to come from elsewhere is not.
func TestSolicitedBubble(t *testing.T) {
	w, _, _ := newInternet(t)
	c := newClient(w, "c", agenttest.None, "203.0.113.7", "203.0.113.7")
	w.Run(2 * time.Second)
	at := header.Mapping{Addr: agenttest.IP4("203.0.113.9"), Port: 40000}
	peer := teredo.Address(agenttest.IP4(server1), at, 0)
	ask := teredo.AppendDiscovery(teredo.AppendNonce(teredo.AppendBubble(nil, peer, addr(c)), 7), false)
	var got [][]byte
	w.Lose = func(_, to header.Mapping, payload []byte) bool {
		if to.Addr == at.Addr {
			got = append(got, payload)
		}
		return false
	}
	c.Receive(at, c.At[0], ask)
	if len(got) != 1 || len(got[0]) > len(ask) {
		t.Fatalf("%d answers: %x", len(got), got)
	}
	m, err := teredo.Parse(got[0])
	if n, ok := m.Nonce(); err != nil || !ok || n != 7 || m.Solicits() {
		t.Errorf("the answer: %x, %v", got[0], err)
	}
	for _, from := range []header.Mapping{{Addr: at.Addr, Port: 1}, {Addr: at.Addr + 1, Port: 40000}} {
		c.Receive(from, c.At[0], ask)
	}
	if len(got) != 1 || c.Drops[drop.Spoof] != 2 {
		t.Errorf("%d answers; drops %v", len(got), c.Drops)
	}
}

// A bubble through the server that names a random port is answered there (RFC 6081 section
// 5.4), but never to an address that is none.
func TestRandomPort(t *testing.T) {
	w, server, _ := newInternet(t)
	c := newClient(w, "c", agenttest.None, "203.0.113.7", "203.0.113.7")
	w.Run(2 * time.Second)
	at := header.Mapping{Addr: agenttest.IP4("203.0.113.9"), Port: 40000}
	var ports []uint16
	w.Lose = func(_, to header.Mapping, _ []byte) bool {
		if to.Addr == at.Addr {
			ports = append(ports, to.Port)
		}
		return false
	}
	bubble := teredo.AppendBubble(nil, teredo.Address(agenttest.IP4(server1), at, 0), addr(c))
	server.Receive(at, server.At[0], append(bubble, 5, 2, 0x9c, 0x41))
	if len(ports) != 1 || ports[0] != 40001 {
		t.Errorf("answers to ports %d; drops %v", ports, c.Drops)
	}
}

// Status has words for a client whose mapping is lost, and for a server that is silent.
func TestStates(t *testing.T) {
	w, _, _ := newInternet(t)
	c := newClient(w, "c", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
	var states []string
	watch := func(d time.Duration) {
		for range d / time.Second {
			if s := c.Agent.Entries(w.Now)[0].State; len(states) == 0 || states[len(states)-1] != s {
				states = append(states, s)
			}
			w.Run(time.Second)
		}
	}
	watch(5 * time.Second)
	w.Lose = func(_, _ header.Mapping, _ []byte) bool { return true }
	watch(100 * time.Second)
	w.Lose = nil
	watch(100 * time.Second)
	want := []string{"soliciting", "qualified", "lost", "offline", "qualified"}
	if len(states) != len(want) {
		t.Fatalf("%v, want %v", states, want)
	}
	for i := range want {
		if states[i] != want[i] {
			t.Fatalf("%v, want %v", states, want)
		}
	}
}

// A client does nothing beside native IPv6, if it is not told to.
func TestSunset(t *testing.T) {
	for _, k := range []struct {
		elsewhere string
		forced    bool
		runs      bool
	}{
		{"2001:db8:1::/64", false, false},
		{"2001:db8:1::/64", true, true},
		{"fd00:1::/64", false, true},
		{"2002:cb00:7107::/48", false, true},
		{"2001:0:cb00:7107::/64", false, true},
	} {
		m := NewClient(50001, agenttest.HostAt(server1), resolve.Host{})
		m.BesideNative = k.forced
		r, err := m.Resolver(resolve.Site{Local: netip.MustParseAddr("10.0.0.5"), Elsewhere: []netip.Prefix{netip.MustParsePrefix(k.elsewhere)}})
		if err != nil {
			t.Fatal(err)
		}
		c, now := r.(*client), time.Unix(1e9, 0)
		send, _, again := c.Next(now)
		state := c.Entries(now)[0].State
		if _, why := c.Mapped(); (len(send) > 0) != k.runs || again.IsZero() == k.runs || (state == "native") == k.runs || strings.Contains(why, `beside_native = "yes"`) == k.runs {
			t.Errorf("%+v: %d messages, %q, %q", k, len(send), state, why)
		}
	}
}
