package node

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
	"sixfour/internal/vectors"
)

// arrive passes a whole outer packet to a host.
func (h *host) arrive(pkt []byte) {
	ip, udp := header.IPv4(pkt), pkt[header.IPv4Len:]
	from := teredo.Mapping{Addr: binary.BigEndian.Uint32(ip.Source()), Port: binary.BigEndian.Uint16(udp)}
	to := teredo.Mapping{Addr: binary.BigEndian.Uint32(ip.Dest()), Port: binary.BigEndian.Uint16(udp[2:])}
	h.receive(from, to, udp[8:])
}

// bare is an agent alone in a world.
func bare(t *testing.T, m resolve.Mechanism, port uint16, at ...string) *host {
	return newWorld(t).add("alone", m, port, none, at[0], at...)
}

// The vectors to be dropped are dropped for the right reason, and nothing is sent for them.
func TestDropVectors(t *testing.T) {
	v := vectors.Read(t)
	for name, want := range map[string]drop.Reason{"TEREDO-D2": drop.Martian, "TEREDO-D3": drop.Martian} {
		s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
		s.arrive(v[name])
		if s.drops[want] != 1 || s.w.sent != 0 {
			t.Errorf("%s: %v, %d sent", name, s.drops, s.w.sent)
		}
	}
	c := bare(t, NewClient(50505, hostAt("65.54.227.120"), resolve.Host{}), 50505, "203.0.113.7")
	c.agent.(*client).self.Store(&self{addr: ip6("2001:0:4136:e378:0:3ab6:34ff:8ef8"), mapped: teredo.Mapping{Addr: ip4("203.0.113.7"), Port: 50505}})
	d1 := v["TEREDO-D1"]
	binary.BigEndian.PutUint32(d1[12:], ip4("203.0.113.66"))
	binary.BigEndian.PutUint32(d1[16:], ip4("203.0.113.7"))
	binary.BigEndian.PutUint16(d1[22:], 50505)
	if c.arrive(d1); c.drops[drop.Spoof] != 1 || len(c.got) != 0 {
		t.Errorf("TEREDO-D1: %v", c.drops)
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
		s.w.lose = func(_, _ teredo.Mapping, payload []byte) bool { got = payload; return true }
		ask := v[k.asks]
		if k.asks == "TEREDO-1" { // it is shown before the NAT
			binary.BigEndian.PutUint32(ask[12:], ip4("192.0.2.45"))
			binary.BigEndian.PutUint16(ask[20:], 40000)
		}
		if s.arrive(ask); string(got) != string(v[k.answers][28:]) {
			t.Errorf("%s: %x, %v", k.asks, got, s.drops)
		}
	}
}

// What the server refuses.
func TestServerRefuses(t *testing.T) {
	s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
	at := teredo.Mapping{Addr: ip4("203.0.113.7"), Port: 50001}
	ours, other := teredo.Address(ip4(server1), at, 0), teredo.Address(ip4("192.0.2.1"), at, 0)
	for _, k := range []struct {
		name     string
		from     teredo.Mapping
		src, dst header.Word6
		test     bool // a connectivity test instead of a bubble
		want     drop.Reason
	}{
		{"a client of ours to a native host", at, ours, ip6("2001:db8::1"), true, drop.None},
		{"a client of another server to a native host", at, other, ip6("2001:db8::1"), true, drop.Spoof},
		{"a forged mapping", teredo.Mapping{Addr: at.Addr, Port: 1}, ours, ip6("2001:db8::1"), true, drop.Spoof},
		{"from a private address", teredo.Mapping{Addr: ip4("10.0.0.1"), Port: 1}, ip6("fe80::1"), ours, false, drop.Martian},
		{"to a unique local address", at, ours, ip6("fd00::1"), true, drop.Martian},
		{"to a client at our own address", at, ours, teredo.Address(ip4(server1), teredo.Mapping{Addr: ip4(server2), Port: teredo.Port}, 0), false, drop.Loop},
		{"to a client at a private address", at, ours, teredo.Address(ip4(server1), teredo.Mapping{Addr: ip4("10.0.0.1"), Port: 1}, 0), false, drop.Martian},
		{"from a nonce to a client of another server", at, ip6("fe80::1:2"), other, false, drop.Spoof},
		{"a bubble to a native host", at, ours, ip6("2001:db8::1"), false, drop.NoPeer},
	} {
		b := teredo.AppendBubble(nil, k.src, k.dst)
		if k.test {
			b = teredo.AppendTest(nil, k.src, k.dst, [16]byte{})
		}
		s.drops, s.got = map[drop.Reason]int{}, nil
		s.receive(k.from, s.at[0], b)
		if k.want == drop.None && len(s.got) != 1 || k.want != drop.None && s.drops[k.want] != 1 {
			t.Errorf("%s: %v, %d delivered", k.name, s.drops, len(s.got))
		}
	}
	s.drops = map[drop.Reason]int{}
	if s.receive(at, s.at[0], udp(ours, ip6("2001:db8::1"), "data")); s.drops[drop.NoPeer] != 1 {
		t.Errorf("data: %v", s.drops)
	}
}

// A solicitation with the cone bit is answered from the other address.
func TestOtherAddress(t *testing.T) {
	for _, cone := range []bool{false, true} {
		for i := range 2 {
			s := bare(t, NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, server1, server2)
			var from teredo.Mapping
			s.w.lose = func(f, _ teredo.Mapping, _ []byte) bool { from = f; return true }
			b := header.IPv6(teredo.AppendSolicitation(nil))
			if cone {
				b[16] |= 0x80 // of the interface identifier
				b[42], b[43] = 0, 0
				binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6)))
			}
			s.receive(teredo.Mapping{Addr: ip4("203.0.113.7"), Port: 1}, s.at[i], b)
			if want := s.at[i]; !cone && from != want || cone && from == want || from.Port == 0 {
				t.Errorf("cone %v at %v: from %v", cone, s.at[i].AddrPort(), from.AddrPort())
			}
		}
	}
}

// A client that loses its mapping has no address until it has the new one; one whose server is
// gone asks three times, and again after 100 s.
func TestMappingLost(t *testing.T) {
	w, _, _ := newInternet(t)
	c := w.client("c", portRestricted, "203.0.113.7", "10.0.0.5")
	w.run(2 * time.Second)
	before := c.addr()
	w.run(200 * time.Second)
	if c.addr() != before {
		t.Error("the address changes without a reason")
	}
	c.out = ip4("203.0.113.9")
	w.run(40 * time.Second)
	if after := c.addr(); after == before || teredo.ClientOf(after).Addr != c.out {
		t.Errorf("%v after %v", after.Addr(), before.Addr())
	}
	asked := 0
	w.lose = func(_, to teredo.Mapping, _ []byte) bool { asked++; return to.Port == teredo.Port }
	w.run(31*time.Second + 12*time.Second + 13*time.Second)
	if l := c.agent.Learnt(); len(l.Addresses) != 0 || !l.Default.IsZero() || asked != 6 {
		t.Errorf("%+v, asked %d times", l, asked)
	}
	if e := c.agent.Entries(w.now)[0]; e.State != "offline" {
		t.Errorf("%+v", e)
	}
	w.run(60 * time.Second)
	if asked != 6 {
		t.Errorf("asked %d times", asked)
	}
	w.lose = nil
	w.run(60 * time.Second)
	c.addr()
}

// An advertisement without the nonce, from elsewhere, or with another prefix is not accepted.
func TestForgedAdvertisements(t *testing.T) {
	w := newWorld(t)
	c := w.client("c", none, "203.0.113.7", "203.0.113.7")
	w.run(time.Millisecond)
	q := &c.agent.(*client).qualification
	server := teredo.Mapping{Addr: ip4(server1), Port: teredo.Port}
	good := func() (teredo.Mapping, teredo.Message) {
		return server, teredo.Message{Auth: &teredo.Auth{Nonce: q.nonce}, Origin: teredo.Mapping{Addr: ip4("203.0.113.7"), Port: 50001}, Packet: teredo.AppendAdvertisement(nil, server, teredo.SolicitationSource)}
	}
	for name, change := range map[string]func(from *teredo.Mapping, m *teredo.Message){
		"nonce":             func(_ *teredo.Mapping, m *teredo.Message) { m.Auth.Nonce++ },
		"no authentication": func(_ *teredo.Mapping, m *teredo.Message) { m.Auth = nil },
		"no origin":         func(_ *teredo.Mapping, m *teredo.Message) { m.Origin = teredo.Mapping{} },
		"refused":           func(_ *teredo.Mapping, m *teredo.Message) { m.Auth.Confirmation = 1 },
		"another port":      func(from *teredo.Mapping, _ *teredo.Message) { from.Port++ },
		"another server":    func(from *teredo.Mapping, _ *teredo.Message) { from.Addr += 7 },
		"another prefix": func(_ *teredo.Mapping, m *teredo.Message) {
			m.Packet = teredo.AppendAdvertisement(nil, teredo.Mapping{Addr: 1, Port: teredo.Port}, teredo.SolicitationSource)
		},
		"another destination": func(_ *teredo.Mapping, m *teredo.Message) {
			m.Packet = teredo.AppendAdvertisement(nil, server, ip6("fe80::1"))
		},
	} {
		from, m := good()
		change(&from, &m)
		if c.receive(from, c.at[0], teredo.Append(nil, &m)); q.phase != asksFirst {
			t.Fatalf("%s: accepted", name)
		}
	}
	from, m := good()
	if c.receive(from, c.at[0], teredo.Append(nil, &m)); q.phase != asksSecond {
		t.Errorf("the good one is not accepted: %v", c.drops)
	}
}

// A flood of forged packets does not make a client or relay grow, send more than it gets, or
// lose a peer that is in use.
func TestFlood(t *testing.T) {
	w, _, relay := newInternet(t)
	c := w.client("c", none, "203.0.113.7", "203.0.113.7")
	w.run(2 * time.Second)
	native := ip6("2001:db8:ff::80")
	c.say(udp(c.addr(), native, "out"))
	w.run(2 * time.Second)
	w.lose = func(from, _ teredo.Mapping, _ []byte) bool { return from == c.at[0] }
	for _, h := range []*host{c, relay} {
		sent, got := w.sent, 0
		for i := range 50_000 {
			at := teredo.Mapping{Addr: 0xc6120000 + uint32(i), Port: 40000}
			src := teredo.Address(ip4(server1), at, uint16(i))
			h.receive(at, h.at[0], udp(src, c.addr(), "x"))
			h.receive(at, h.at[0], teredo.AppendBubble(nil, src, c.addr()))
			h.receive(at, h.at[0], udp(header.Word6{Hi: 0x2a00 << 48, Lo: uint64(i)}, c.addr(), "x"))
			got += 3
		}
		if n := w.sent - sent; n > got/10 {
			t.Errorf("%s sends %d datagrams for %d", h.name, n, got)
		}
	}
	if n := c.agent.(*client).peers.count; n > maxClientPeers {
		t.Errorf("%d peers", n)
	}
	if relay.agent.(*relayNode).peers.count > 2 {
		t.Error("a relay makes peers of strangers")
	}
	if _, why := c.agent.To(udp(c.addr(), native, "out")); why != drop.None {
		t.Errorf("the peer in use is lost: %v", why)
	}
}

// To and From allocate nothing.
func TestNoAllocs(t *testing.T) {
	w, _, relay := newInternet(t)
	c := w.client("c", none, "203.0.113.7", "203.0.113.7")
	w.run(2 * time.Second)
	native := ip6("2001:db8:ff::80")
	c.say(udp(c.addr(), native, "out"))
	w.run(2 * time.Second)
	out, in := udp(c.addr(), native, "x"), udp(native, c.addr(), "x")
	for name, f := range map[string]func() drop.Reason{
		"client to":   func() drop.Reason { _, why := c.agent.To(out); return why },
		"client from": func() drop.Reason { return c.agent.From(endpoint(relay.at[0]), endpoint(c.at[0]), in) },
		"wanted":      func() drop.Reason { c.agent.Wants(in); return drop.None },
		"relay to":    func() drop.Reason { _, why := relay.agent.To(in); return why },
		"relay from":  func() drop.Reason { return relay.agent.From(endpoint(c.at[0]), endpoint(relay.at[0]), out) },
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
		{NewClient(1, hostAt(server1), resolve.Host{}), "another host"},
		{NewClient(1, hostAt(server2), hostAt(server2)), "two addresses"},
		{NewClient(1, hostAt("10.0.0.1"), resolve.Host{}), "another host"},
	} {
		if _, err := k.m.Resolver(site); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%+v: %v", k.m, err)
		}
	}
}
