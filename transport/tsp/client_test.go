package tsp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	wire "sixfour/encap/tsp"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/tsp"
)

// scripted is a server that answers each message of a dialogue over UDP by the next text, and
// the ones after the last text not at all.
type scripted struct {
	conn *net.UDPConn
	mu   sync.Mutex
	got  []string
	raw  [][]byte
}

func script(t testing.TB, answers ...string) *scripted {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	return scriptOn(t, conn, answers...)
}

// scriptOn is script on a socket.
func scriptOn(t testing.TB, conn *net.UDPConn, answers ...string) *scripted {
	t.Helper()
	s := &scripted{conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			h, text, ok := wire.Parse(b[:n])
			s.mu.Lock()
			if ok && (len(s.got) == 0 || s.got[len(s.got)-1] != string(text)) {
				s.got = append(s.got, string(text))
				s.raw = append(s.raw, bytes.Clone(b[:n]))
			}
			next := len(s.got) - 1
			s.mu.Unlock()
			if ok && next < len(answers) {
				_, _ = conn.WriteToUDPAddrPort(append(h.Append(nil), answers[next]...), from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

func (s *scripted) addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (s *scripted) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// info is a message by which a server grants a tunnel.
func info(kind wire.Type, change func(*wire.Tunnel)) string {
	a := netip.MustParseAddr
	t := wire.Tunnel{
		Action: wire.Info, Type: kind, Lifetime: 1440, Server: wire.End{IPv4: a("198.51.100.2"), IPv6: a("2001:db8::1")},
		Client: wire.End{IPv4: a("192.0.2.1"), IPv6: a("2001:db8::2"), Keepalive: 30, KeepaliveTo: a("2001:db8::1")},
	}
	if change != nil {
		change(&t)
	}
	return string(wire.AppendDocument(nil, t.AppendInfo(wire.StatusOf(wire.Success).Append(nil))))
}

const (
	offersAll       = "CAPABILITY TUNNEL=V6V4 TUNNEL=V6UDPV4 AUTH=ANONYMOUS AUTH=PLAIN AUTH=DIGEST-MD5\r\n"
	offersAnonymous = "CAPABILITY TUNNEL=V6UDPV4 AUTH=ANONYMOUS\r\n"
	success         = "200 Success\r\n"
)

// What the client sends is what gogoCLIENT sent, byte by byte where the text says so: TSP-5,
// TSP-11, TSP-13 and TSP-15, but for the addresses and the time.
func TestClientRecorded(t *testing.T) {
	challenge := string(udp(t, "TSP-8")[8:])
	s := script(t, string(udp(t, "TSP-6")[8:]), challenge, "", success, string(udp(t, "TSP-14")[8:]), "")
	e := open(t)
	e.peer(t, s.addr(), &tsp.Settings{Host: "198.51.100.2", User: "alice", Password: "wonder", Auth: wire.DigestMD5, Want: wire.V6UDPV4})
	// The proof depends on the client's nonce, so that the script cannot know it: the client
	// refuses the server. That is checked here, and the rest with PLAIN.
	if err := take(t, e.failures, "the refusal"); !errors.Is(err, wire.ErrProtocol) && !errors.Is(err, wire.ErrProof) {
		t.Errorf("the error is %v", err)
	}
	if got := s.messages(); len(got) < 3 || got[0] != string(udp(t, "TSP-5")[8:]) || got[1] != "AUTHENTICATE DIGEST-MD5\r\n" {
		t.Errorf("the client has sent %q", got)
	} else if d, err := wire.ParseDigest([]byte(got[2])); err != nil || d.User != "alice" || d.Realm != "cdpatsps" || d.Nonce != "64E411A8" || d.URI != "tsp/198.51.100.2" || d.Charset != "utf8" {
		t.Errorf("the response is %+v, %v", d, err)
	}

	s = script(t, string(udp(t, "TSP-6")[8:]), "", success, string(udp(t, "TSP-14")[8:]), "")
	e = open(t)
	e.peer(t, s.addr(), &tsp.Settings{User: "alice", Password: "wonder", Auth: wire.Plain, Want: wire.V6UDPV4})
	g := take(t, e.granted, "the grant")
	if g.Inner != netip.MustParseAddr("2001:db8:8000::39") || g.KeepaliveTo != netip.MustParseAddr("2001:db8:8000::1") || g.Remote != s.addr().Addr() || g.Keepalive != 30*time.Second {
		t.Errorf("the grant is %+v", g)
	}
	create := strings.Replace(string(udp(t, "TSP-13")[8:]), "192.0.2.45", "127.0.0.1", 1)
	create = strings.Replace(create, "215", "214", 1)
	if got, want := s.messages(), []string{"VERSION=2.0.2\r\n", "AUTHENTICATE PLAIN\r\n", "\x00alice\x00wonder\r\n", create, string(udp(t, "TSP-15")[8:])}; !slices.Equal(got, want) {
		t.Errorf("the client has sent\n%q, not\n%q", got, want)
	}
	for i, b := range s.raw {
		if want := uint32(wire.FirstSequence + i); binary.BigEndian.Uint32(b) != want {
			t.Errorf("message %d has the sequence number %x, not %x", i, b[:4], want)
		}
	}
}

// Servers that lie, or that offer something else, are refused in words.
func TestHostileServers(t *testing.T) {
	bomb := `<!DOCTYPE t [<!ENTITY a "aaaaaaaaaa">]><tunnel action="info" type="v6udpv4">&a;</tunnel>`
	for _, test := range []struct {
		name    string
		answers []string
		words   string
	}{
		{"garbage", []string{"\x00\x01\x02"}, "does not say what it offers"},
		{"empty", []string{""}, "does not say what it offers"},
		{"length", []string{"Content-length: 9999999\r\n"}, "does not keep to the protocol"},
		{"status", []string{success}, "a result that was not expected"},
		{"no type", []string{"CAPABILITY TUNNEL=V4V6 AUTH=ANONYMOUS\r\n"}, "does not offer this type of tunnel: v6udpv4"},
		{"no method", []string{"CAPABILITY TUNNEL=V6UDPV4 AUTH=PASSDSS-3DES-1\r\n"}, "it offers [PASSDSS-3DES-1]"},
		{"no result", []string{offersAnonymous, ""}, "there is no result"},
		{"other codes", []string{offersAnonymous, "499 \x1b[31mred\r\n"}, "the broker says 499"},
		{"busy", []string{offersAnonymous, success, "Content-length: 21\r\n530 Server too busy\r\n"}, "the broker is too busy: the broker says 530 Server too busy"},
		{"no tunnel", []string{offersAnonymous, success, success}, "there is no tunnel element"},
		{"entities", []string{offersAnonymous, success, string(wire.AppendDocument(nil, []byte(success+bomb)))}, "document type"},
		{"other type", []string{offersAnonymous, success, info(wire.V6V4, nil)}, `a tunnel of the type "v6v4"`},
		{"no address", []string{offersAnonymous, success, info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Client.IPv6 = netip.Addr{} })}, "no IPv6 address"},
		{"loopback", []string{offersAnonymous, success, info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Client.IPv6 = netip.IPv6Loopback() })}, "no IPv6 address"},
		{"multicast", []string{offersAnonymous, success, info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Server.IPv6 = netip.MustParseAddr("ff02::1") })}, "its IPv6 address is none"},
		{"everything", []string{offersAnonymous, success, info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Client.Prefix = netip.MustParsePrefix("2000::/3") })}, "the prefix 2000::/3"},
		{"no action", []string{offersAnonymous, success, info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Action = "create" })}, "not the tunnel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := script(t, test.answers...)
			e := open(t)
			e.peer(t, s.addr(), &tsp.Settings{Want: wire.V6UDPV4})
			if err := take(t, e.failures, "the error"); !strings.Contains(err.Error(), test.words) || strings.ContainsAny(err.Error(), "\x1b\r") {
				t.Errorf("the error is %q, without %q", err, test.words)
			}
			if len(e.granted) > 0 {
				t.Error("there is a grant")
			}
		})
	}
}

// A server that does not know the password, although it claims to have checked ours, is
// refused.
func TestServerWithoutProof(t *testing.T) {
	c := wire.Challenge{Realm: "r", Nonce: "n", Charset: "utf-8"}
	s := script(t, offersAll, string(c.Append(nil)), string(wire.AppendProof(nil, "00000000000000000000000000000000")), success)
	e := open(t)
	e.peer(t, s.addr(), &tsp.Settings{User: "alice", Password: "wonder"})
	if err := take(t, e.failures, "the error"); !errors.Is(err, wire.ErrProof) {
		t.Errorf("the error is %v", err)
	}
}

// A server that knows an older version is asked with that.
func TestVersions(t *testing.T) {
	s := script(t, "302 Unsupported client version\r\n", "302 Unsupported client version\r\n", offersAnonymous, success, info(wire.V6UDPV4, nil), "")
	e := open(t)
	e.peer(t, s.addr(), &tsp.Settings{})
	take(t, e.granted, "the grant")
	if got := s.messages(); !slices.Equal(got[:3], []string{"VERSION=2.0.2\r\n", "VERSION=2.0.1\r\n", "VERSION=2.0.0\r\n"}) {
		t.Errorf("the client has sent %q", got)
	}
}

// A list of other servers is followed, by address and by name, and not round in a circle.
func TestRedirection(t *testing.T) {
	a := newAuthority()
	a.add("anonymous-127.0.0.1", "")
	s := serve(t, a, func(c *tsp.ServerConfig) { c.Open = true })
	list := func(brokers ...string) string {
		text := "1302 Unsupported client version, use another broker\r\n<tunnel action=\"list\" type=\"broker\"><broker>"
		for _, b := range brokers {
			text += "<address type=\"dn\">" + b + "</address>"
		}
		return string(wire.AppendDocument(nil, []byte(text+"</broker></tunnel>\r\n")))
	}
	first := script(t, list("nowhere.example", "good.example"))
	second := script(t, list("circle.example", "good.example"))
	names := map[string]netip.AddrPort{"good.example": second.addr(), "circle.example": first.addr()}
	e := open(t)
	asked := make(chan string, 100)
	settings := &tsp.Settings{Transport: tsp.UDP, Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
		asked <- name
		if at, ok := names[name]; ok {
			return []netip.Addr{at.Addr()}, nil
		}
		return nil, errors.New("no such host")
	}}
	e.peer(t, first.addr(), settings)
	// Loopback addresses are not followed, so that the list leads nowhere, and the error is what
	// the server has said.
	if err := take(t, e.failures, "the error"); !strings.Contains(err.Error(), "1302 Unsupported client version, use another broker") {
		t.Errorf("the error is %v", err)
	}
	if take(t, asked, "a name") != "nowhere.example" || take(t, asked, "a name") != "good.example" {
		t.Error("the names are not looked up in their order")
	}
	_ = s
}

// If the server is silent over UDP, TCP is tried, and a tunnel in protocol 41 is granted there.
func TestFallback(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, func(c *tsp.ServerConfig) { c.NoUDP = true; c.Raw = func(netip.Addr) access.Link { return discard{} } })
	for _, auth := range []wire.Auth{wire.DigestMD5, wire.Plain} {
		e := open(t)
		e.peer(t, s.Local(), &tsp.Settings{User: "alice", Password: "wonder", Auth: auth, PrefixLength: 56})
		g := take(t, e.granted, "the grant")
		c := a.next(t)
		if g.Type != wire.V6V4 || g.Remote != s.Local().Addr() || g.Inner != c.account.Endpoint.Client || g.Prefix != c.Lease().Prefix {
			t.Errorf("%s: the grant is %+v", auth, g)
		}
	}
	e := open(t)
	e.peer(t, s.Local(), &tsp.Settings{User: "alice", Password: "wonder", Want: wire.V6UDPV4})
	if err := take(t, e.failures, "the error"); !errors.Is(err, tsp.ErrSilent) {
		t.Errorf("a tunnel in UDP without UDP: %v", err)
	}
}

// Negotiate needs no port.
func TestNegotiate(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, func(c *tsp.ServerConfig) { c.Raw = func(netip.Addr) access.Link { return discard{} } })
	for _, transports := range []tsp.Transport{tsp.UDP, tsp.TCP, tsp.Auto} {
		g, err := tsp.Negotiate(t.Context(), netip.IPv4Unspecified(), s.Local(), &tsp.Settings{User: "alice", Password: "wonder", Transport: transports}, transport.Options{})
		if err != nil || g.Type != wire.V6V4 || g.Local != s.Local().Addr() {
			t.Errorf("transport %d: %+v, %v", transports, g, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("it is over")
	cancel(over)
	if _, err := tsp.Negotiate(ctx, netip.IPv4Unspecified(), script(t).addr(), &tsp.Settings{}, transport.Options{}); !errors.Is(err, over) {
		t.Errorf("the error is %v", err)
	}
	if _, err := tsp.Negotiate(t.Context(), netip.IPv4Unspecified(), s.Local(), &tsp.Settings{Want: wire.V6UDPV4}, transport.Options{}); err == nil {
		t.Error("a tunnel in UDP needs no port")
	}
}

// The client sends signs of life, within the interval, and takes their answers out of what is
// received. When they are not answered it negotiates again. A server that does not know the
// client makes it find out at once.
func TestSignsOfLife(t *testing.T) {
	grant := info(wire.V6UDPV4, func(d *wire.Tunnel) { d.Client.Keepalive = 1 })
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	answers := []string{offersAnonymous, success, grant, ""}
	pings := make(chan time.Time, 1000)
	var mu sync.Mutex
	answering := true
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		step := 0
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if h, text, ok := wire.Parse(b[:n]); ok {
				if wire.Begins(text) {
					step = 0
				}
				if step < len(answers) {
					_, _ = conn.WriteToUDPAddrPort(append(h.Append(nil), answers[step]...), from)
				}
				step++
				continue
			}
			pings <- time.Now()
			mu.Lock()
			if answering {
				reply := bytes.Clone(b[:n])
				copy(reply[8:24], b[24:40])
				copy(reply[24:40], b[8:24])
				reply[40] = 129
				_, _ = conn.WriteToUDPAddrPort(reply, from)
			} else {
				_, _ = conn.WriteToUDPAddrPort(append(wire.Header{Sequence: 0xffffffff}.Append(nil), "310 TSP status error\r\n"...), from)
			}
			mu.Unlock()
		}
	}()
	defer func() { conn.Close(); <-done }()
	e := open(t)
	e.peer(t, conn.LocalAddr().(*net.UDPAddr).AddrPort(), &tsp.Settings{})
	take(t, e.granted, "the grant")
	take(t, e.events, "the tunnel")
	last := take(t, pings, "a sign of life")
	for range 2 {
		next := take(t, pings, "a sign of life")
		if d := next.Sub(last); d < 700*time.Millisecond {
			t.Errorf("a sign of life comes after %v", d)
		}
		last = next
	}
	if len(e.got) > 0 {
		t.Errorf("the answers are received: %x", <-e.got)
	}
	mu.Lock()
	answering = false
	mu.Unlock()
	if ev := take(t, e.events, "the end"); ev.at.IsValid() || !strings.Contains(ev.why.Error(), "has not answered") {
		t.Errorf("the event is %v", ev)
	}
	take(t, e.granted, "another grant")
}

// SetPeers keeps tunnels of peers that stay, with their new names and functions, and ends the
// others.
func TestSetPeers(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, nil)
	e := open(t)
	settings := tsp.Settings{User: "alice", Password: "wonder"}
	e.peer(t, s.Local(), &settings)
	take(t, e.granted, "the grant")
	take(t, e.events, "the tunnel")
	again := settings
	must(t, e.SetPeers([]transport.SessionPeer{{ID: "renamed", Remote: s.Local(), Settings: &again}}))
	if ev := take(t, e.events, "the new name"); ev != (event{"renamed", s.Local(), nil}) {
		t.Errorf("the event is %v", ev)
	}
	if g := take(t, e.granted, "the grant, again"); g.Type != wire.V6UDPV4 {
		t.Errorf("the grant is %+v", g)
	}
	a.next(t)
	must(t, e.SetPeers(nil))
	if len(a.news)+len(e.events)+len(e.granted) > 0 {
		t.Error("there was another negotiation, or an event for a peer that is removed")
	}
	if err := e.send(s.Local(), packet(netip.IPv6Unspecified(), netip.IPv6Unspecified(), 17, nil)); err == nil {
		t.Error("the tunnel of a removed peer is still there")
	}
	for name, peers := range map[string][]transport.SessionPeer{
		"settings": {{Remote: s.Local(), Settings: 7}},
		"nil":      {{Remote: s.Local(), Settings: (*tsp.Settings)(nil)}},
		"IPv6":     {{Remote: netip.MustParseAddrPort("[2001:db8::1]:3653"), Settings: &settings}},
		"port":     {{Remote: netip.AddrPortFrom(s.Local().Addr(), 0), Settings: &settings}},
		"twice":    {{Remote: s.Local(), Settings: &settings}, {Remote: s.Local(), Settings: &settings}},
		"type":     {{Remote: s.Local(), Settings: &tsp.Settings{Want: "gre"}}},
		"method":   {{Remote: s.Local(), Settings: &tsp.Settings{Auth: "CRAM"}}},
		"user":     {{Remote: s.Local(), Settings: &tsp.Settings{Auth: wire.Plain}}},
		"length":   {{Remote: s.Local(), Settings: &tsp.Settings{PrefixLength: 129}}},
		"tcp":      {{Remote: s.Local(), Settings: &tsp.Settings{Want: wire.V6UDPV4, Transport: tsp.TCP}}},
		"short":    {{Remote: s.Local(), Settings: &tsp.Settings{Keepalive: 1}}},
	} {
		if e.SetPeers(peers) == nil {
			t.Errorf("%s: there is no error", name)
		}
	}
	must(t, e.Close())
	if err := e.SetPeers(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetPeers after Close: %v", err)
	}
}

// Of several datagrams in a buffer those stay that are packets, one after the other and with
// right headers.
func TestMergedDatagrams(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.1:3653")
	p := func(n byte, size int) []byte { return bytes.Repeat([]byte{0x60 | n}, size) }
	s := func(size int) []byte {
		return append(wire.Header{Sequence: wire.FirstSequence}.Append(nil), make([]byte, size-8)...)
	}
	for _, test := range []struct {
		name       string
		datagrams  [][]byte
		kept, each int
		signals    int
	}{
		{"all", [][]byte{p(0, 50), p(1, 50), p(2, 20)}, 3, 50, 0},
		{"first", [][]byte{s(50), p(1, 50), p(2, 20)}, 2, 50, 1},
		{"middle", [][]byte{p(0, 50), s(50), p(2, 50), p(3, 50)}, 3, 50, 1},
		{"last", [][]byte{p(0, 50), p(1, 50), s(20)}, 2, 50, 1},
		{"one left", [][]byte{s(50), p(1, 20)}, 1, 0, 1},
		{"first left", [][]byte{p(0, 50), s(20)}, 1, 0, 1},
		{"none", [][]byte{s(50), s(50), s(9)}, 0, 0, 3},
	} {
		o := header.Outer{From: from, At: netip.MustParseAddrPort("198.51.100.1:5000"), TTL: 60}
		b := make([]byte, 28, 1000)
		var want []byte
		first := 0
		for _, d := range test.datagrams {
			b = append(b, d...)
			if wire.IsPacket(d) {
				if want == nil {
					first = len(d)
				}
				want = append(want, d...)
			}
		}
		m := transport.Meta{Outer: o, Size: len(b), Each: len(test.datagrams[0])}
		header.PutHeaders(b[:28+m.Each], &o)
		left, signals := tsp.Sift(from, b, &m)
		if left != (test.kept > 0) || signals != test.signals {
			t.Errorf("%s: left %v, %d messages", test.name, left, signals)
			continue
		}
		if !left {
			continue
		}
		if !bytes.Equal(b[28:m.Size], want) || m.Each != test.each || header.IPv4(b).TotalLen() != 28+first {
			t.Errorf("%s: %x, each %d, total length %d", test.name, b[28:m.Size], m.Each, header.IPv4(b).TotalLen())
		}
	}
}

// A packet costs no allocation, in either direction.
func TestClientAllocatesNothing(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, nil)
	e := open(t)
	e.peer(t, s.Local(), &tsp.Settings{User: "alice", Password: "wonder"})
	g := take(t, e.granted, "the grant")
	c := a.next(t)
	c.discard.Store(true)
	take(t, e.events, "the tunnel")
	head := make([]byte, 28)
	header.PutHeaders(head, &header.Outer{From: e.Local(), At: g.Server, TTL: 64})
	binary.BigEndian.PutUint16(head[6:], header.DF)
	pkts := []transport.Packet{{Head: head, Body: packet(g.Inner, g.ServerInner, 17, make([]byte, 1000))}}
	if n := testing.AllocsPerRun(1000, func() { _, _ = e.tx.Send(pkts) }); n > 0 {
		t.Errorf("sending allocates %v times", n)
	}
	b := append(bytes.Clone(head), pkts[0].Body...)
	m := transport.Meta{Outer: header.Outer{From: g.Server, At: e.Local()}, Size: len(b)}
	if n := testing.AllocsPerRun(1000, func() { e.Sift(b, &m) }); n > 0 {
		t.Errorf("receiving allocates %v times", n)
	}
}

func TestListenRefuses(t *testing.T) {
	if _, err := tsp.Listen(tsp.Config{Local: netip.MustParseAddrPort("[::1]:0")}, transport.Options{}); err == nil {
		t.Error("a port has an IPv6 address")
	}
}
