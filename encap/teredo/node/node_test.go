package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
	"sixfour/internal/vectors"
)

// addr returns the Teredo address of a client.
func addr(h *agenttest.Host) header.Word6 {
	h.World.T.Helper()
	me := h.Agent.(*client).self.Load()
	if me == nil {
		h.World.T.Fatalf("%s is not qualified: %v", h.Name, h.Drops)
	}
	return me.addr
}

const (
	server1 = "198.51.100.120"
	server2 = "198.51.100.121"
)

// newInternet returns a world with a server, and a relay at whose side a native host answers
// echo requests.
func newInternet(t *testing.T) (w *agenttest.World, server, relay *agenttest.Host) {
	return newInternetWith(t, "198.51.100.9")
}

// newInternetWith is newInternet with another address of the relay.
func newInternetWith(t *testing.T, relayAt string) (w *agenttest.World, server, relay *agenttest.Host) {
	w = agenttest.NewWorld(t, teredo.IsData)
	server = w.Add("server", NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, agenttest.None, server1, server1, server2)
	relay = w.Add("relay", NewRelay(50000, []netip.Prefix{netip.MustParsePrefix("2001:db8:ff::/48")}), 50000, agenttest.None, relayAt, relayAt)
	answer := func(_ *agenttest.Host, ip header.IPv6) {
		dst := header.ReadWord6(ip.Dest())
		if !header.NewPrefix6(netip.MustParsePrefix("2001:db8:ff::/48")).Contains(dst) || ip.NextHeader() != header.ICMPv6 || ip.Payload()[0] != 128 {
			return
		}
		b := append(header.IPv6(nil), ip...)
		copy(b[8:24], ip[24:40])
		copy(b[24:40], ip[8:24])
		b[40], b[42], b[43] = 129, 0, 0
		sum := ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6))
		b[42], b[43] = byte(sum>>8), byte(sum)
		relay.Say(b)
	}
	server.Inner, relay.Inner = answer, answer
	return w, server, relay
}

func newClient(w *agenttest.World, name string, kind agenttest.NAT, outside, inside string) *agenttest.Host {
	return w.Add(name, NewClient(50001, agenttest.HostAt(server1), resolve.Host{}), 50001, kind, outside, inside)
}

// Two clients reach each other behind every pair of NATs with which RFC 6081 says that they can.
func TestClients(t *testing.T) {
	for _, k := range []struct {
		name string
		a, b agenttest.NAT
		can  bool
	}{
		{"no NAT", agenttest.None, agenttest.None, true},
		{"restricted", agenttest.Restricted, agenttest.Restricted, true},
		{"port-restricted", agenttest.PortRestricted, agenttest.PortRestricted, true},
		{"restricted and port-restricted", agenttest.Restricted, agenttest.PortRestricted, true},
		{"symmetric to none", agenttest.Symmetric, agenttest.None, true},
		{"none to symmetric", agenttest.None, agenttest.Symmetric, true},
		{"symmetric to restricted", agenttest.Symmetric, agenttest.Restricted, true},
		{"restricted to symmetric", agenttest.Restricted, agenttest.Symmetric, true},
		{"symmetric to port-restricted", agenttest.Symmetric, agenttest.PortRestricted, false},
		{"symmetric to symmetric", agenttest.Symmetric, agenttest.Symmetric, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			w, _, _ := newInternet(t)
			at := func(kind agenttest.NAT, outside, inside string) string {
				if kind == agenttest.None {
					return outside
				}
				return inside
			}
			a := newClient(w, "a", k.a, "203.0.113.7", at(k.a, "203.0.113.7", "10.0.0.5"))
			b := newClient(w, "b", k.b, "203.0.113.8", at(k.b, "203.0.113.8", "10.0.1.5"))
			w.Run(2 * time.Second)
			if why := a.Say(agenttest.UDP(addr(a), addr(b), "hello")); why != drop.None {
				t.Fatal(why)
			}
			w.Run(7 * time.Second)
			if b.Heard("hello") != k.can {
				t.Errorf("heard: %v; drops of a %v, of b %v", b.Heard("hello"), a.Drops, b.Drops)
			}
			if k.can {
				b.Say(agenttest.UDP(addr(b), addr(a), "welcome"))
				w.Run(7 * time.Second)
				if !a.Heard("welcome") {
					t.Errorf("no answer; drops of a %v, of b %v", a.Drops, b.Drops)
				}
			}
			sent := w.Sent
			w.Run(200 * time.Second)
			if n := w.Sent - sent; n > 120 {
				t.Errorf("%d datagrams in 200 s of silence", n)
			}
		})
	}
}

// A native host and a client reach each other through a relay, whoever begins.
func TestNative(t *testing.T) {
	native := agenttest.IP6("2001:db8:ff::80")
	for kind := agenttest.None; kind <= agenttest.Symmetric; kind++ {
		w, _, relay := newInternet(t)
		inside := "10.0.0.5"
		if kind == agenttest.None {
			inside = "203.0.113.7"
		}
		c := newClient(w, "c", kind, "203.0.113.7", inside)
		w.Run(2 * time.Second)
		if why := c.Say(agenttest.UDP(addr(c), native, "out")); why != drop.None {
			t.Fatal(why)
		}
		w.Run(3 * time.Second)
		if !relay.Heard("out") {
			t.Errorf("NAT %d: out: drops of the client %v, of the relay %v", kind, c.Drops, relay.Drops)
		}
		relay.Say(agenttest.UDP(native, addr(c), "back"))
		w.Run(time.Second)
		if !c.Heard("back") {
			t.Errorf("NAT %d: back: drops of the client %v, of the relay %v", kind, c.Drops, relay.Drops)
		}
		other := agenttest.IP6("2001:db8:ff::81")
		for range 3 { // the first one may be forged, and is dropped
			relay.Say(agenttest.UDP(other, addr(c), "in"))
			w.Run(3 * time.Second)
		}
		if !c.Heard("in") {
			t.Errorf("NAT %d: in: drops of the client %v, of the relay %v", kind, c.Drops, relay.Drops)
		}
	}
}

// A relay at an address of a server reaches the clients of the server.
func TestRelayBesideServer(t *testing.T) {
	for _, at := range []string{server1, server2} {
		w, server, relay := newInternetWith(t, at)
		c := newClient(w, "c", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
		w.Run(2 * time.Second)
		for range 2 { // the client tests the source of the first one
			relay.Say(agenttest.UDP(agenttest.IP6("2001:db8:ff::80"), addr(c), "in"))
			w.Run(3 * time.Second)
		}
		if !c.Heard("in") {
			t.Errorf("drops of the relay %v, of the server %v, of the client %v", relay.Drops, server.Drops, c.Drops)
		}
		// What pretends to come from the server itself is not passed on.
		sent := w.Sent
		server.Receive(server.At[0], server.At[0], teredo.AppendBubble(nil, teredo.NonceAddress(1), addr(c)))
		if w.Sent != sent || server.Drops[drop.Martian] != 1 {
			t.Errorf("%d sent; drops %v", w.Sent-sent, server.Drops)
		}
	}
}

// A client says that it has lost its mapping, and that the server is silent.
func TestMapped(t *testing.T) {
	w, _, _ := newInternet(t)
	c := newClient(w, "c", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
	q := c.Agent.(resolve.Qualifier)
	if at, why := q.Mapped(); at.IsValid() || why != "" {
		t.Errorf("at first: %v, %q", at, why)
	}
	w.Run(2 * time.Second)
	if at, why := q.Mapped(); at.Addr() != netip.MustParseAddr("203.0.113.7") || why != "" {
		t.Errorf("qualified: %v, %q", at, why)
	}
	w.Lose = func(_, _ header.Mapping, _ []byte) bool { return true }
	said := ""
	for range 60 {
		w.Run(time.Second)
		if at, why := q.Mapped(); why != "" && why != said {
			if said += why; at.IsValid() {
				t.Errorf("%v and %q", at, why)
			}
		}
	}
	if said != whySilent {
		t.Errorf("said %q", said)
	}
	for range 300 { // the reason stays while the server is asked again
		w.Run(time.Second)
		if at, why := q.Mapped(); at.IsValid() || why != whySilent {
			t.Fatalf("still silent: %v, %q", at, why)
		}
	}
	w.Lose = nil
	w.Run(2 * time.Minute)
	if at, why := q.Mapped(); !at.IsValid() || why != "" {
		t.Errorf("qualified again: %v, %q", at, why)
	}
	clear(c.Maps) // the NAT has restarted
	c.Maps[header.Mapping{}] = 1234
	said = ""
	w.Lose = func(_, _ header.Mapping, _ []byte) bool {
		if _, why := q.Mapped(); why != "" {
			said = why
		}
		return false
	}
	w.Run(40 * time.Second)
	if at, why := q.Mapped(); said != whyMoved || at.Port() != 1234 || why != "" {
		t.Errorf("said %q; now %v, %q", said, at, why)
	}
}

// With a key, a server serves only those who have it, and a client takes its address from
// nobody else.
func TestKey(t *testing.T) {
	key := NewKey("alice", "/key", "teredo-secret")
	for _, c := range []struct {
		name           string
		server, client Key
		ok             bool
	}{
		{"the same", key, key, true},
		{"a client without", key, Key{}, false},
		{"a server without", Key{}, key, false},
		{"another secret", key, NewKey("alice", "/key", "another"), false},
		{"another name", key, NewKey("bob", "/key", "teredo-secret"), false},
		{"both secrets unread", NewKey("alice", "/key", ""), NewKey("alice", "/key", ""), false},
	} {
		w := agenttest.NewWorld(t, teredo.IsData)
		s := w.Add("server", NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)).With(c.server), teredo.Port, agenttest.None, server1, server1, server2)
		a := w.Add("a", NewClient(50001, agenttest.HostAt(server1), resolve.Host{}).With(c.client), 50001, agenttest.Restricted, "203.0.113.7", "10.0.0.5")
		w.Run(20 * time.Second)
		if ok := a.Agent.(*client).self.Load() != nil; ok != c.ok {
			t.Errorf("%s: qualified: %v; drops %v and %v", c.name, ok, s.Drops, a.Drops)
		}
		if refused := s.Drops[drop.Unauthenticated] + a.Drops[drop.Unauthenticated]; (refused > 0) == c.ok {
			t.Errorf("%s: %d refused", c.name, refused)
		}
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", NewServer(netip.Addr{}, netip.Addr{}).With(key)), fmt.Sprintf("%#v", key)} {
		if strings.Contains(text, "teredo-secret") {
			t.Errorf("the secret is in %q", text)
		}
	}
}

// A signed solicitation of another program is answered.
func TestSignedVector(t *testing.T) {
	s := bare(t, NewServer(netip.MustParseAddr("65.54.227.120"), netip.MustParseAddr("65.54.227.121")).With(NewKey("alice", "/key", "teredo-secret")), teredo.Port, "65.54.227.120", "65.54.227.121")
	v := vectors.Read(t)
	from := header.Mapping{Addr: agenttest.IP4("203.0.113.7"), Port: 50505}
	s.Receive(from, s.At[0], v["TEREDO-8"][header.IPv4Len+header.UDPLen:])
	if s.World.Sent != 1 {
		t.Errorf("drops %v", s.Drops)
	}
	s.Receive(from, s.At[0], v["TEREDO-1"][header.IPv4Len+header.UDPLen:])
	if s.World.Sent != 1 || s.Drops[drop.Unauthenticated] != 1 {
		t.Errorf("without a signature: %d sent, drops %v", s.World.Sent, s.Drops)
	}
}
