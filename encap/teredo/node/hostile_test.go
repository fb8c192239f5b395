package node

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
	"sixfour/internal/vectors"
)

// bare is an agent alone in a world.
func bare(t *testing.T, m resolve.Mechanism, port uint16, at ...string) *agenttest.Host {
	return agenttest.NewWorld(t, teredo.IsData).Add("alone", m, port, agenttest.None, at[0], at...)
}

// The vectors to be dropped are dropped for the right reason, and nothing is sent for them.
func TestDropVectors(t *testing.T) {
	v := vectors.Read(t)
	for name, want := range map[string]drop.Reason{"TEREDO-D2": drop.Martian, "TEREDO-D3": drop.Martian} {
		s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
		s.Arrive(v[name])
		if s.Drops[want] != 1 || s.World.Sent != 0 {
			t.Errorf("%s: %v, %d sent", name, s.Drops, s.World.Sent)
		}
	}
	c := bare(t, NewClient(50505, agenttest.HostAt("65.54.227.120"), resolve.Host{}), 50505, "203.0.113.7")
	c.Agent.(*client).self.Store(&self{addr: agenttest.IP6("2001:0:4136:e378:0:3ab6:34ff:8ef8"), mapped: header.Mapping{Addr: agenttest.IP4("203.0.113.7"), Port: 50505}})
	d1 := v["TEREDO-D1"]
	binary.BigEndian.PutUint32(d1[12:], agenttest.IP4("203.0.113.66"))
	binary.BigEndian.PutUint32(d1[16:], agenttest.IP4("203.0.113.7"))
	binary.BigEndian.PutUint16(d1[22:], 50505)
	if c.Arrive(d1); c.Drops[drop.Spoof] != 1 || len(c.Got) != 0 {
		t.Errorf("TEREDO-D1: %v", c.Drops)
	}
}

// The server answers as the vectors say.
func TestServerVectors(t *testing.T) {
	v := vectors.Read(t)
	for _, k := range []struct{ asks, answers, server, second string }{
		{"TEREDO-1", "TEREDO-2", "65.54.227.120", "65.54.227.121"},
		{"TEREDO-3", "TEREDO-4", "65.54.227.120", "65.54.227.121"},
		{"TEREDO-10a", "TEREDO-10b", "198.51.100.120", "198.51.100.121"},
		{"TEREDO-11a", "TEREDO-11b", "198.51.100.120", "198.51.100.121"},
		{"TEREDO-15a", "TEREDO-15b", "198.51.100.120", "198.51.100.121"},
		{"TEREDO-17b", "TEREDO-17c", "198.51.100.120", "198.51.100.121"},
	} {
		s := bare(t, NewServer(netip.MustParseAddr(k.server), netip.MustParseAddr(k.second)), teredo.Port, k.server, k.second)
		var got []byte
		s.World.Lose = func(_, _ header.Mapping, payload []byte) bool { got = payload; return true }
		ask := v[k.asks]
		if k.asks == "TEREDO-1" { // it is shown before the NAT
			binary.BigEndian.PutUint32(ask[12:], agenttest.IP4("192.0.2.45"))
			binary.BigEndian.PutUint16(ask[20:], 40000)
		}
		if s.Arrive(ask); string(got) != string(v[k.answers][28:]) {
			t.Errorf("%s: %x, %v", k.asks, got, s.Drops)
		}
	}
}

// What the server refuses.
func TestServerRefuses(t *testing.T) {
	s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
	at := header.Mapping{Addr: agenttest.IP4("203.0.113.7"), Port: 50001}
	ours, other := teredo.Address(agenttest.IP4(server1), at, 0), teredo.Address(agenttest.IP4("192.0.2.1"), at, 0)
	for _, k := range []struct {
		name     string
		from     header.Mapping
		src, dst header.Word6
		test     bool // a connectivity test instead of a bubble
		want     drop.Reason
	}{
		{"a client of ours to a native host", at, ours, agenttest.IP6("2001:db8::1"), true, drop.None},
		{"a client of another server to a native host", at, other, agenttest.IP6("2001:db8::1"), true, drop.Spoof},
		{"a forged mapping", header.Mapping{Addr: at.Addr, Port: 1}, ours, agenttest.IP6("2001:db8::1"), true, drop.Spoof},
		{"from a private address", header.Mapping{Addr: agenttest.IP4("10.0.0.1"), Port: 1}, agenttest.IP6("fe80::1"), ours, false, drop.Martian},
		{"to a unique local address", at, ours, agenttest.IP6("fd00::1"), true, drop.Martian},
		{"to a client at our own address", at, ours, teredo.Address(agenttest.IP4(server1), header.Mapping{Addr: agenttest.IP4(server2), Port: teredo.Port}, 0), false, drop.Loop},
		{"to a client at a private address", at, ours, teredo.Address(agenttest.IP4(server1), header.Mapping{Addr: agenttest.IP4("10.0.0.1"), Port: 1}, 0), false, drop.Martian},
		{"from a nonce to a client of another server", at, agenttest.IP6("fe80::1:2"), other, false, drop.Spoof},
		{"a bubble to a native host", at, ours, agenttest.IP6("2001:db8::1"), false, drop.NoPeer},
	} {
		b := teredo.AppendBubble(nil, k.src, k.dst)
		if k.test {
			b = teredo.AppendTest(nil, k.src, k.dst, [16]byte{})
		}
		s.Drops, s.Got = map[drop.Reason]int{}, nil
		s.Receive(k.from, s.At[0], b)
		if k.want == drop.None && len(s.Got) != 1 || k.want != drop.None && s.Drops[k.want] != 1 {
			t.Errorf("%s: %v, %d delivered", k.name, s.Drops, len(s.Got))
		}
	}
	s.Drops = map[drop.Reason]int{}
	if s.Receive(at, s.At[0], agenttest.UDP(ours, agenttest.IP6("2001:db8::1"), "data")); s.Drops[drop.NoPeer] != 1 {
		t.Errorf("data: %v", s.Drops)
	}
}

// A solicitation with the cone bit is answered from the other address.
func TestOtherAddress(t *testing.T) {
	for _, cone := range []bool{false, true} {
		for i := range 2 {
			s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
			var from header.Mapping
			s.World.Lose = func(f, _ header.Mapping, _ []byte) bool { from = f; return true }
			b := header.IPv6(teredo.AppendSolicitation(nil, teredo.SolicitationSource))
			if cone {
				b[16] |= 0x80 // of the interface identifier
				b[42], b[43] = 0, 0
				binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6)))
			}
			s.Receive(header.Mapping{Addr: agenttest.IP4("203.0.113.7"), Port: 1}, s.At[i], b)
			if want := s.At[i]; !cone && from != want || cone && from == want || from.Port == 0 {
				t.Errorf("cone %v at %v: from %v", cone, s.At[i].AddrPort(), from.AddrPort())
			}
		}
	}
}

// A client that loses its mapping has no address until it has the new one; one whose server is
// gone asks three times, and again after 100 s.
func TestMappingLost(t *testing.T) {
	w, _, _ := newInternet(t)
	c := newClient(w, "c", agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
	w.Run(2 * time.Second)
	before := addr(c)
	w.Run(200 * time.Second)
	if addr(c) != before {
		t.Error("the address changes without a reason")
	}
	c.Out = agenttest.IP4("203.0.113.9")
	w.Run(40 * time.Second)
	if after := addr(c); after == before || teredo.ClientOf(after).Addr != c.Out {
		t.Errorf("%v after %v", after.Addr(), before.Addr())
	}
	asked := 0
	w.Lose = func(_, to header.Mapping, _ []byte) bool { asked++; return to.Port == teredo.Port }
	w.Run(31*time.Second + 12*time.Second + 13*time.Second)
	if l := c.Agent.Learnt(); len(l.Addresses) != 0 || !l.Default.IsZero() || asked != 6 {
		t.Errorf("%+v, asked %d times", l, asked)
	}
	if e := c.Agent.Entries(w.Now)[0]; e.State != "offline" {
		t.Errorf("%+v", e)
	}
	w.Run(60 * time.Second)
	if asked != 6 {
		t.Errorf("asked %d times", asked)
	}
	w.Lose = nil
	w.Run(60 * time.Second)
	addr(c)
}

// An advertisement without the nonce, from elsewhere, or with another prefix is not accepted.
func TestForgedAdvertisements(t *testing.T) {
	w := agenttest.NewWorld(t, teredo.IsData)
	c := newClient(w, "c", agenttest.None, "203.0.113.7", "203.0.113.7")
	w.Run(time.Millisecond)
	q := &c.Agent.(*client).qualification
	server := header.Mapping{Addr: agenttest.IP4(server1), Port: teredo.Port}
	good := func() (header.Mapping, teredo.Message) {
		return server, teredo.Message{Auth: &teredo.Auth{Nonce: q.nonce}, Origin: header.Mapping{Addr: agenttest.IP4("203.0.113.7"), Port: 50001}, Packet: teredo.AppendAdvertisement(nil, server, teredo.SolicitationSource)}
	}
	for name, change := range map[string]func(from *header.Mapping, m *teredo.Message){
		"nonce":             func(_ *header.Mapping, m *teredo.Message) { m.Auth.Nonce++ },
		"no authentication": func(_ *header.Mapping, m *teredo.Message) { m.Auth = nil },
		"no origin":         func(_ *header.Mapping, m *teredo.Message) { m.Origin = header.Mapping{} },
		"refused":           func(_ *header.Mapping, m *teredo.Message) { m.Auth.Confirmation = 1 },
		"another port":      func(from *header.Mapping, _ *teredo.Message) { from.Port++ },
		"another server":    func(from *header.Mapping, _ *teredo.Message) { from.Addr += 7 },
		"another prefix": func(_ *header.Mapping, m *teredo.Message) {
			m.Packet = teredo.AppendAdvertisement(nil, header.Mapping{Addr: 1, Port: teredo.Port}, teredo.SolicitationSource)
		},
		"another destination": func(_ *header.Mapping, m *teredo.Message) {
			m.Packet = teredo.AppendAdvertisement(nil, server, agenttest.IP6("fe80::1"))
		},
	} {
		from, m := good()
		change(&from, &m)
		if c.Receive(from, c.At[0], teredo.Append(nil, &m)); q.phase != asksFirst {
			t.Fatalf("%s: accepted", name)
		}
	}
	from, m := good()
	if c.Receive(from, c.At[0], teredo.Append(nil, &m)); q.phase != asksSecond {
		t.Errorf("the good one is not accepted: %v", c.Drops)
	}
}

// A flood of forged packets does not make a client or relay grow, send more than it gets, or
// lose a peer that is in use.
func TestFlood(t *testing.T) {
	w, _, relay := newInternet(t)
	c := newClient(w, "c", agenttest.None, "203.0.113.7", "203.0.113.7")
	w.Run(2 * time.Second)
	native := agenttest.IP6("2001:db8:ff::80")
	c.Say(agenttest.UDP(addr(c), native, "out"))
	w.Run(2 * time.Second)
	w.Lose = func(from, _ header.Mapping, _ []byte) bool { return from == c.At[0] }
	for _, h := range []*agenttest.Host{c, relay} {
		sent, got := w.Sent, 0
		for i := range 50_000 {
			at := header.Mapping{Addr: 0xc6120000 + uint32(i), Port: 40000}
			src := teredo.Address(agenttest.IP4(server1), at, uint16(i))
			h.Receive(at, h.At[0], agenttest.UDP(src, addr(c), "x"))
			h.Receive(at, h.At[0], teredo.AppendBubble(nil, src, addr(c)))
			h.Receive(at, h.At[0], agenttest.UDP(header.Word6{Hi: 0x2a00 << 48, Lo: uint64(i)}, addr(c), "x"))
			got += 3
		}
		if n := w.Sent - sent; n > got/10 {
			t.Errorf("%s sends %d datagrams for %d", h.Name, n, got)
		}
	}
	if n := c.Agent.(*client).peers.Len(); n > maxClientPeers {
		t.Errorf("%d peers", n)
	}
	if relay.Agent.(*relayNode).peers.Len() > 2 {
		t.Error("a relay makes peers of strangers")
	}
	if _, why := c.Agent.To(agenttest.UDP(addr(c), native, "out")); why != drop.None {
		t.Errorf("the peer in use is lost: %v", why)
	}
}

// To and From allocate nothing.
func TestNoAllocs(t *testing.T) {
	w, _, relay := newInternet(t)
	c := newClient(w, "c", agenttest.None, "203.0.113.7", "203.0.113.7")
	w.Run(2 * time.Second)
	native := agenttest.IP6("2001:db8:ff::80")
	c.Say(agenttest.UDP(addr(c), native, "out"))
	w.Run(2 * time.Second)
	out, in := agenttest.UDP(addr(c), native, "x"), agenttest.UDP(native, addr(c), "x")
	for name, f := range map[string]func() drop.Reason{
		"client to":   func() drop.Reason { _, why := c.Agent.To(out); return why },
		"client from": func() drop.Reason { return c.Agent.From(agent.Endpoint(relay.At[0]), agent.Endpoint(c.At[0]), in) },
		"wanted":      func() drop.Reason { c.Agent.Wants(in); return drop.None },
		"relay to":    func() drop.Reason { _, why := relay.Agent.To(in); return why },
		"relay from":  func() drop.Reason { return relay.Agent.From(agent.Endpoint(c.At[0]), agent.Endpoint(relay.At[0]), out) },
	} {
		if why := f(); why != drop.None {
			t.Errorf("%s: %v", name, why)
		}
		if n := testing.AllocsPerRun(100, func() { f() }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Mechanisms that cannot work say why.
func TestMechanisms(t *testing.T) {
	site := resolve.Site{Local: netip.MustParseAddr(server1)}
	for _, k := range []struct {
		m    resolve.Mechanism
		want string
	}{
		{NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server1)), "must differ"},
		{NewServer(netip.MustParseAddr(server2), netip.MustParseAddr(server1)), "local must be"},
		{NewServer(netip.MustParseAddr(server1), netip.MustParseAddr("10.0.0.1")), "not global"},
		{NewRelay(1, nil), "prefix"},
		{NewClient(1, agenttest.HostAt(server1), resolve.Host{}), "another host"},
		{NewClient(1, agenttest.HostAt(server2), agenttest.HostAt(server2)), "two addresses"},
		{NewClient(1, agenttest.HostAt("10.0.0.1"), resolve.Host{}), "another host"},
	} {
		if _, err := k.m.Resolver(site); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%+v: %v", k.m, err)
		}
	}
}
