package tsp_test

import (
	"net/netip"
	"testing"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/tsp"

	wire "sixfour/encap/tsp"
)

// Clients behind a NAT of the kernel, and one in front of it:
//
//	client 10.0.0.2 ── 10.0.0.1 nat 203.0.113.2 ── 203.0.113.1 server
//	                                203.0.113.2 (neighbour, in the NAT's own namespace)
//
// The client behind the NAT gets v6udpv4 for v6anyv4, and the server sees the NAT's address. When
// the NAT forgets the mapping and the client's port is another one, the client negotiates
// again. A client at a public address gets v6v4, but not where a client of another account has a
// tunnel.
func TestBehindNAT(t *testing.T) {
	client, nat, server := rigtest.Namespace(t, "tsp-client"), rigtest.Namespace(t, "tsp-nat"), rigtest.Namespace(t, "tsp-server")
	must(t, rig.Veth(client, "out", nat, "in", 1500))
	must(t, rig.Veth(nat, "out", server, "in", 1500))
	must(t, client.AddAddr("out", netip.MustParsePrefix("10.0.0.2/24")))
	must(t, nat.AddAddr("in", netip.MustParsePrefix("10.0.0.1/24")))
	must(t, nat.AddAddr("out", netip.MustParsePrefix("203.0.113.2/24")))
	must(t, server.AddAddr("in", netip.MustParsePrefix("203.0.113.1/24")))
	must(t, server.AddAddr("in", netip.MustParsePrefix("203.0.113.3/24")))
	must(t, client.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1"), "out"))
	must(t, nat.Forward())
	must(t, nat.Masquerade("out"))

	a := newAuthority()
	a.add("alice", "wonder")
	a.add("bob", "builder")
	a.add("carol", "singer")
	a.add("dave", "driver")
	at := netip.MustParseAddrPort("203.0.113.1:3653")
	var s *tsp.Server
	must(t, server.Do(func() (err error) {
		c := tsp.ServerConfig{Authority: a, Local: netip.MustParseAddrPort("0.0.0.0:3653"), Raw: func(netip.Addr) access.Link { return discard{} }}
		s, err = tsp.NewServerFor(c, unit)
		return err
	}))
	defer s.Close()
	from := func(ns *rig.Namespace) (e *end) {
		t.Helper()
		must(t, ns.Do(func() error { e = openAt(t, "0.0.0.0:0"); return nil }))
		return e
	}
	alice, bob := from(client), from(client)
	alice.peer(t, at, &tsp.Settings{User: "alice", Password: "wonder", Keepalive: 1e9})
	g := take(t, alice.granted, "the grant")
	c := a.next(t)
	take(t, alice.events, "the tunnel")
	if g.Type != wire.V6UDPV4 || g.Local != netip.MustParseAddr("10.0.0.2") {
		t.Errorf("behind the NAT the grant is %+v", g)
	}
	if c.attachment.From.Addr() != netip.MustParseAddr("203.0.113.2") || c.attachment.At != at {
		t.Errorf("the attachment is %+v", c.attachment)
	}
	alice.exchanges(t, g, c)
	bob.peer(t, at, &tsp.Settings{User: "bob", Password: "builder"})
	second := take(t, bob.granted, "the second grant")
	other := a.next(t)
	take(t, bob.events, "the second tunnel")
	if other.attachment.From == c.attachment.From {
		t.Error("two clients have one address and port")
	}
	bob.exchanges(t, second, other)
	alice.exchanges(t, g, c)

	// A server that sends its clients to another one is followed, and the tunnel is with that.
	conn, err := client.ListenUDP(netip.MustParseAddrPort("10.0.0.2:3653"))
	must(t, err)
	list := "1200 Ask another broker\r\n<tunnel action=\"list\" type=\"broker\"><broker><address type=\"ipv4\">203.0.113.1</address></broker></tunnel>\r\n"
	scriptOn(t, conn, offersAll, "", success, string(wire.AppendDocument(nil, []byte(list))))
	dave := from(client)
	dave.peer(t, netip.MustParseAddrPort("10.0.0.2:3653"), &tsp.Settings{User: "dave", Password: "driver", Auth: wire.Plain})
	third := take(t, dave.granted, "the grant of the other server")
	if ev := take(t, dave.events, "the tunnel with the other server"); ev.at != at || third.Server != at {
		t.Errorf("the tunnel is with %v, and granted by %v", ev.at, third.Server)
	}
	dave.exchanges(t, third, a.next(t))

	// A host at the public address of the NAT wants protocol 41: the address has tunnels of others.
	must(t, server.Do(func() error {
		_, err := tsp.Negotiate(t.Context(), netip.MustParseAddr("203.0.113.3"), at, &tsp.Settings{User: "carol", Password: "singer"}, transport.Options{})
		if err != nil {
			t.Errorf("at another public address: %v", err)
		}
		return nil
	}))
	if at := a.next(t).attachment; at.From != netip.MustParseAddrPort("203.0.113.3:0") {
		t.Errorf("the attachment is %+v", at)
	}

	// The link is away for longer than the tunnel is alive at both ends.
	must(t, nat.LinkDown("out"))
	if ev := take(t, alice.events, "the end"); ev.at.IsValid() {
		t.Errorf("the event is %v", ev)
	}
	take(t, a.left, "the end at the server")
	must(t, nat.LinkUp("out"))
	g = take(t, alice.granted, "the grant after the pause")
	take(t, alice.events, "the tunnel after the pause")
	c = a.next(t)
	for c.account.Name != "alice" {
		c = a.next(t)
	}
	alice.exchanges(t, g, c)
}
