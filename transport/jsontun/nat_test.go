package jsontun

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
)

// network is a client behind a NAT:
//
//	client 10.0.0.2 ── 10.0.0.1 nat 203.0.113.2 ── 203.0.113.1 server
type network struct{ client, nat, server *rig.Namespace }

func newNetwork(t *testing.T) network {
	t.Helper()
	n := network{rigtest.Namespace(t, "json-client"), rigtest.Namespace(t, "json-nat"), rigtest.Namespace(t, "json-server")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(rig.Veth(n.client, "out", n.nat, "in", 1500))
	must(rig.Veth(n.nat, "out", n.server, "in", 1500))
	must(n.client.AddAddr("out", netip.MustParsePrefix("10.0.0.2/24")))
	must(n.nat.AddAddr("in", netip.MustParsePrefix("10.0.0.1/24")))
	must(n.nat.AddAddr("out", netip.MustParsePrefix("203.0.113.2/24")))
	must(n.server.AddAddr("in", netip.MustParsePrefix("203.0.113.1/24")))
	must(n.client.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1"), "out"))
	must(n.nat.Forward())
	must(n.nat.Masquerade("out"))
	return n
}

// Both ends with a NAT between them. Connections that are lost without a word, because the NAT
// passes nothing for a while, are replaced by others: when the client has another connection, and
// when the server has forgotten all.
func TestBehindNAT(t *testing.T) {
	n := newNetwork(t)
	at := netip.MustParseAddrPort("203.0.113.1:14629")
	b := newBroker()
	start := func() (s *Server) {
		t.Helper()
		if err := n.server.Do(func() (err error) {
			s, err = newServer(ServerConfig{Authority: b, Local: at}, transport.Options{}, testServerTimes)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	connect := func() (e *end) {
		t.Helper()
		if err := n.client.Do(func() error {
			e = openPort(t, at, Settings{ID: "laptop", Secret: []byte("open sesame")}, testPortTimes)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return e
	}
	both := func(e *end) {
		t.Helper()
		until(t, "the connection", func() bool { return e.connected() && b.of("laptop") != nil })
		of := b.of("laptop")
		if from := of.attachment.From.Addr().String(); from != "203.0.113.2" || of.lease.Prefix.String() != "2001:db8:77:5::/64" {
			t.Errorf("from %s, %v", from, of.lease.Prefix)
		}
		if err := e.sender.SendOne(to(at, inner(1280, 1))); err != nil {
			t.Error(err)
		}
		until(t, "a packet", func() bool { return len(of.packets()) == 1 })
		if err := of.attachment.Link.Send(inner(1280, 2)); err != nil {
			t.Error(err)
		}
		bufs, meta := [][]byte{make([]byte, transport.MaxPacket)}, make([]transport.Meta, 1)
		if _, err := e.Receive(bufs, meta); err != nil || !bytes.Equal(bufs[0][28:meta[0].Size], inner(1280, 2)) {
			t.Errorf("received %x, %v", bufs[0][:meta[0].Size], err)
		}
	}
	cut := func(now bool) {
		t.Helper()
		f := n.nat.LinkUp
		if now {
			f = n.nat.LinkDown
		}
		if err := f("out"); err != nil {
			t.Fatal(err)
		}
	}
	s := start()
	first := connect()
	both(first)
	cut(true)
	of := b.of("laptop")
	first.Close()
	cut(false)
	second := connect()
	until(t, "the other connection", func() bool { now := b.of("laptop"); return now != nil && now != of })
	both(second)
	until(t, "the end of the first one", func() bool { return s.Connections() == 1 })
	cut(true)
	of = b.of("laptop")
	s.Close()
	s = start()
	defer func() { s.Close() }()
	cut(false)
	until(t, "another connection", func() bool {
		second.sender.SendOne(to(at, inner(56, 0)))
		time.Sleep(10 * time.Millisecond)
		now := b.of("laptop")
		return now != nil && now != of
	})
}
