package ayiya

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
)

// behindNAT returns
//
//	home (eth0: 192.168.1.2, .3) ---- nat (in: 192.168.1.1, out: 203.0.113.9) ---- net (eth0: 203.0.113.1, .2)
//
// where nat is a NAT of the kernel that accepts no packets for itself.
func behindNAT(t *testing.T) (home, nat, net *rig.Namespace) {
	t.Helper()
	home, nat, net = rigtest.Namespace(t, "home"), rigtest.Namespace(t, "nat"), rigtest.Namespace(t, "net")
	must(t, rig.Veth(home, "eth0", nat, "in", 1500))
	must(t, rig.Veth(nat, "out", net, "eth0", 1500))
	for _, a := range []struct {
		ns       *rig.Namespace
		dev, has string
	}{
		{home, "eth0", "192.168.1.2/24"}, {home, "eth0", "192.168.1.3/24"}, {nat, "in", "192.168.1.1/24"},
		{nat, "out", "203.0.113.9/24"}, {net, "eth0", "203.0.113.1/24"}, {net, "eth0", "203.0.113.2/24"},
	} {
		must(t, a.ns.AddAddr(a.dev, netip.MustParsePrefix(a.has)))
	}
	must(t, home.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.1.1"), ""))
	must(t, nat.Forward())
	must(t, nat.Masquerade("out"))
	return home, nat, net
}

// Clients behind one NAT, two of them with the same port, at two addresses of a server. The NAT gets
// another address, and forgets its mappings: the clients move, and keep their tunnels.
func TestNAT(t *testing.T) {
	home, nat, net := behindNAT(t)
	b := newBroker(4)
	must(t, net.Do(func() error {
		serve(t, ServerConfig{Authority: b, Local: netip.MustParseAddrPort("0.0.0.0:5072")})
		return nil
	}))
	var clients []*client
	locals := []string{"192.168.1.2:4000", "192.168.1.3:4000", "192.168.1.2:4001"}
	servers := []netip.AddrPort{
		netip.MustParseAddrPort("203.0.113.1:5072"), netip.MustParseAddrPort("203.0.113.1:5072"), netip.MustParseAddrPort("203.0.113.2:5072"),
	}
	for i, server := range servers {
		n, local := i+1, netip.MustParseAddrPort(locals[i])
		must(t, home.Do(func() error { clients = append(clients, open(t, n, local, server, quick)); return nil }))
		clients[i].expect(t, fmt.Sprintf("up %d %v", n, server))
	}
	exchange := func(round string) {
		t.Helper()
		for i, c := range clients {
			n := i + 1
			id, server := endpoint(n).Client, servers[i]
			at := b.client(fmt.Sprint(n))
			// A heartbeat that was sent before a move, and arrives after it, moves the client
			// back: until its next packet, ours get lost.
			eventually(t, fmt.Sprintf("%s: an exchange with client %d", round, n), func() bool {
				text := fmt.Sprint(round, time.Now().UnixNano())
				out, in := inner(id, internet, text), inner(internet, id, text)
				if err := c.tx.SendOne(c.packet(server, out)); err != nil {
					return false
				}
				return comes(at.packets, out) && at.Link.Send(in) == nil && comes(c.got, in)
			})
			if to := at.place.Load().at; to != server {
				t.Errorf("%s: client %d sends to %v", round, n, to)
			}
		}
	}
	exchange("first")
	one, two := b.client("1"), b.client("2")
	if a, b := one.place.Load().from, two.place.Load().from; a.Addr() != b.Addr() || a.Port() == b.Port() {
		t.Fatalf("the clients are at %v and %v: not behind one NAT", a, b)
	}

	was := one.place.Load().from
	must(t, nat.DelAddr("out", netip.MustParsePrefix("203.0.113.9/24")))
	must(t, nat.AddAddr("out", netip.MustParsePrefix("203.0.113.10/24")))
	must(t, nat.Handle().ConntrackTableFlush(netlink.ConntrackTable))
	exchange("moved")
	eventually(t, "the broker's notice of the move", func() bool { // at once, or with the next packet after a second
		_ = clients[0].tx.SendOne(clients[0].packet(servers[0], inner(endpoint(1).Client, internet, "x")))
		return one.place.Load().from.Addr() != was.Addr()
	})

	// With nothing to send, a heartbeat moves it.
	must(t, nat.DelAddr("out", netip.MustParsePrefix("203.0.113.10/24")))
	must(t, nat.AddAddr("out", netip.MustParsePrefix("203.0.113.11/24")))
	must(t, nat.Handle().ConntrackTableFlush(netlink.ConntrackTable))
	eventually(t, "the move by a heartbeat", func() bool {
		return one.place.Load().from.Addr() == netip.MustParseAddr("203.0.113.11") && two.place.Load().from.Addr() == netip.MustParseAddr("203.0.113.11")
	})
	must(t, one.Link.Send(inner(internet, endpoint(1).Client, "to who is idle")))
	<-clients[0].got
	exchange("moved again")

	if b.client("1") != one || b.client("2") != two {
		t.Error("clients were attached again")
	}
	if r := b.reasons(); len(r) > 0 {
		t.Errorf("refused: %v", r)
	}
}

// The host of a client has no route to the server at first, and another address later.
func TestClientMoves(t *testing.T) {
	home, _, net := behindNAT(t)
	b := newBroker(3)
	must(t, net.Do(func() error {
		serve(t, ServerConfig{Authority: b, Local: netip.MustParseAddrPort("203.0.113.1:5072")})
		return nil
	}))
	def, router := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.1.1")
	must(t, home.DelRoute(def, router, ""))
	server := netip.MustParseAddrPort("203.0.113.1:5072")
	var c *client
	must(t, home.Do(func() error { c = open(t, 1, netip.MustParseAddrPort("0.0.0.0:0"), server, quick); return nil }))
	c.expect(t, "down 1 send to the AYIYA server 203.0.113.1:5072: ")
	must(t, home.AddRoute(def, router, ""))
	c.expect(t, "up 1 203.0.113.1:5072")

	must(t, home.DelAddr("eth0", netip.MustParsePrefix("192.168.1.2/24")))
	must(t, home.AddAddr("eth0", netip.MustParsePrefix("192.168.1.77/24")))
	must(t, home.AddRoute(def, router, ""))
	out := inner(endpoint(1).Client, internet, "from elsewhere")
	eventually(t, "the client's connection", func() bool { return c.tx.SendOne(c.packet(server, out)) == nil })
	b.client("1").expect(t, out)
}

// comes reports whether a packet comes within a second.
func comes(from <-chan []byte, want []byte) bool {
	for end := time.After(time.Second); ; {
		select {
		case got := <-from:
			if bytes.Equal(got, want) {
				return true
			}
		case <-end:
			return false
		}
	}
}

// open opens a client's port at an address, in the namespace of the calling thread.
func open(t testing.TB, n int, local, server netip.AddrPort, tm timing) *client {
	c := newClient(t, local, tm)
	must(t, c.SetPeers([]transport.SessionPeer{{ID: n, Remote: server, Settings: settings(n)}}))
	return c
}
