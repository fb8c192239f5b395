package tsp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wire "sixfour/encap/tsp"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/tsp"
)

// unit is a second of the tests' ends.
const unit = 200 * time.Millisecond

// end is a client's port of a test.
type end struct {
	*tsp.Port
	tx       transport.Sender
	events   chan event
	granted  chan tsp.Grant
	failures chan error
	got      chan []byte
}

type event struct {
	id  any
	at  netip.AddrPort
	why error
}

func open(t testing.TB) *end {
	t.Helper()
	return openAt(t, "127.0.0.1:0")
}

// openAt opens a port at a local address.
func openAt(t testing.TB, local string) *end {
	t.Helper()
	e := &end{events: make(chan event, 1000), granted: make(chan tsp.Grant, 1000), failures: make(chan error, 1000), got: make(chan []byte, 10000)}
	var err error
	e.Port, err = tsp.ListenFor(tsp.Config{
		Local:     netip.MustParseAddrPort(local),
		Connected: func(id any, at netip.AddrPort, why error) { e.events <- event{id, at, why} },
	}, unit)
	must(t, err)
	t.Cleanup(func() { e.Close() })
	e.tx, err = e.Sender(transport.Options{})
	must(t, err)
	go e.receive()
	return e
}

func (e *end) receive() {
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := e.Port.Receive(bufs, meta)
		if err != nil {
			return
		}
		for i := range n {
			o, b, ok := header.OpenUDP(bufs[i][:meta[i].Size])
			if !ok || o != meta[i].Outer {
				panic("a packet without its headers")
			}
			for each := meta[i].Each; each > 0 && len(b) > each; b = b[each:] {
				e.got <- bytes.Clone(b[:each])
			}
			e.got <- bytes.Clone(b)
		}
	}
}

// peer makes a server the only peer.
func (e *end) peer(t testing.TB, at netip.AddrPort, s *tsp.Settings) {
	t.Helper()
	s.Granted = func(g tsp.Grant) { e.granted <- g }
	s.Failed = func(err error) { e.failures <- err }
	must(t, e.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: s}}))
}

func take[T any](t testing.TB, c chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
		return v
	case <-time.After(soon):
		t.Fatalf("%s does not come", what)
		return v
	}
}

// send sends a packet through the tunnel.
func (e *end) send(to netip.AddrPort, inner []byte) error {
	head := make([]byte, 28)
	header.PutHeaders(head[:28], &header.Outer{From: e.Local(), At: to, TTL: 64})
	binary.BigEndian.PutUint16(head[6:], header.DF)
	_, err := e.tx.Send([]transport.Packet{{Head: head, Body: inner}})
	if !bytes.Equal(head[26:28], []byte{0, 0}) {
		panic("the headers have changed")
	}
	return err
}

// exchanges checks that packets pass in both directions.
func (e *end) exchanges(t testing.TB, g tsp.Grant, c *attached) {
	t.Helper()
	far := netip.MustParseAddr("2001:db8::5")
	up, down := packet(g.Inner, far, 17, []byte("up")), packet(far, g.Inner, 17, []byte("down"))
	must(t, e.send(g.Server, up))
	if got := take(t, c.got, "the packet of the client"); !bytes.Equal(got, up) {
		t.Errorf("received %x, not %x", got, up)
	}
	must(t, c.attachment.Link.Send(down))
	if got := take(t, e.got, "the packet to the client"); !bytes.Equal(got, down) {
		t.Errorf("the client has received %x, not %x", got, down)
	}
}

// All three methods of authentication lead to a tunnel, with a prefix.
func TestMethods(t *testing.T) {
	for _, test := range []struct {
		name string
		s    tsp.Settings
		open bool
	}{
		{"digest", tsp.Settings{User: "alice", Password: "wonder"}, true},
		{"plain", tsp.Settings{User: "alice", Password: "wonder", Auth: wire.Plain}, false},
		{"anonymous", tsp.Settings{}, true},
		{"latin", tsp.Settings{User: "zoë", Password: `pass"wört\`}, false},
		{"wide", tsp.Settings{User: "ζωή", Password: "κωδικός"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAuthority()
			a.add("alice", "wonder")
			a.add("zoë", `pass"wört\`)
			a.add("ζωή", "κωδικός")
			a.add("anonymous-127.0.0.1", "")
			dns := netip.MustParseAddr("2001:db8::53")
			s := serve(t, a, func(c *tsp.ServerConfig) { c.Open = test.open; c.DNS = []netip.Addr{dns} })
			e := open(t)
			test.s.PrefixLength, test.s.Keepalive = 56, 20*time.Second
			e.peer(t, s.Local(), &test.s)
			c := a.next(t)
			g := take(t, e.granted, "the grant")
			want := tsp.Grant{
				Type: wire.V6UDPV4, Server: s.Local(), Remote: s.Local().Addr(), Local: e.Local().Addr(),
				Inner: c.account.Endpoint.Client, ServerInner: c.account.Endpoint.Broker, Prefix: c.Lease().Prefix, DNS: []netip.Addr{dns},
				Keepalive: 20 * time.Second, KeepaliveTo: c.account.Endpoint.Broker, Lifetime: 24 * time.Hour,
			}
			if len(g.DNS) != 1 || g.DNS[0] != dns {
				t.Errorf("the resolvers are %v", g.DNS)
			}
			if g.DNS, want.DNS = nil, nil; !equalGrants(g, want) {
				t.Errorf("the grant is %+v, not %+v", g, want)
			}
			if ev := take(t, e.events, "the tunnel"); ev != (event{"server", s.Local(), nil}) {
				t.Errorf("the event is %v", ev)
			}
			if a.bits != 56 {
				t.Errorf("a prefix of length %d was asked for", a.bits)
			}
			if c.attachment.From != e.Local() || c.attachment.At != s.Local() || c.attachment.Protocol != "tsp" {
				t.Errorf("the attachment is %+v", c.attachment)
			}
			e.exchanges(t, g, c)
		})
	}
}

func equalGrants(a, b tsp.Grant) bool {
	return a.Type == b.Type && a.Server == b.Server && a.Remote == b.Remote && a.Local == b.Local && a.Inner == b.Inner && a.ServerInner == b.ServerInner &&
		a.Prefix == b.Prefix && a.MTU == b.MTU && a.Name == b.Name && a.Keepalive == b.Keepalive && a.KeepaliveTo == b.KeepaliveTo && a.Lifetime == b.Lifetime
}

// What a server refuses is said in words, and counted by the broker with its reason. Unknown
// users and wrong passwords get the same answer.
func TestRefusals(t *testing.T) {
	link := func(netip.Addr) access.Link { return discard{} }
	for _, test := range []struct {
		name   string
		s      tsp.Settings
		change func(c *tsp.ServerConfig, a *authority)
		words  string
		reason access.Reason
	}{
		{"password", tsp.Settings{User: "alice", Password: "x"}, nil, "does not accept user and password: the broker says 300 Authentication failed", access.WrongSecret},
		{"user", tsp.Settings{User: "bob", Password: "x"}, nil, "does not accept user and password: the broker says 300 Authentication failed", access.UnknownAccount},
		{"plain password", tsp.Settings{User: "alice", Password: "x", Auth: wire.Plain}, nil, "does not accept user and password: the broker says 300 Authentication failed", access.WrongSecret},
		{"plain user", tsp.Settings{User: "bob", Password: "x", Auth: wire.Plain}, nil, "does not accept user and password: the broker says 300 Authentication failed", access.UnknownAccount},
		{"name without a password", tsp.Settings{User: "nobody", Password: "x", Auth: wire.Plain}, func(_ *tsp.ServerConfig, a *authority) { a.add("nobody", "") }, "300 Authentication failed", access.UnknownAccount},
		{"name without a password, digest", tsp.Settings{User: "nobody"}, func(_ *tsp.ServerConfig, a *authority) { a.add("nobody", "") }, "300 Authentication failed", access.UnknownAccount},
		{"anonymous", tsp.Settings{}, nil, "does not offer the method of authentication: it offers [PLAIN DIGEST-MD5]", ""},
		{"type", tsp.Settings{User: "alice", Password: "wonder", Want: wire.V6V4}, nil, "does not offer this type of tunnel: v6v4", ""},
		{"pool", tsp.Settings{User: "alice", Password: "wonder"}, func(_ *tsp.ServerConfig, a *authority) { a.fails = access.Refuse(access.NoPrefix, "no more") }, "no tunnel or prefix left", access.NoPrefix},
		{"length", tsp.Settings{User: "alice", Password: "wonder", PrefixLength: 48}, func(_ *tsp.ServerConfig, a *authority) { a.fails = access.Refuse(access.NoPrefix, "no more") }, "no prefix of this length", access.NoPrefix},
		{"long", tsp.Settings{User: "alice", Password: "wonder", PrefixLength: 72}, nil, "no prefix of this length", access.Unsupported},
		{"store", tsp.Settings{User: "alice", Password: "wonder"}, func(_ *tsp.ServerConfig, a *authority) { a.fails = errors.New("disk full") }, "too busy", access.Unavailable},
		{"tcp", tsp.Settings{User: "alice", Password: "wonder", Transport: tsp.TCP}, nil, "does not offer this type of tunnel: the broker says 303", access.Unsupported},
		{"tcp password", tsp.Settings{User: "alice", Password: "x", Transport: tsp.TCP, Want: wire.V6V4}, func(c *tsp.ServerConfig, _ *authority) { c.Raw = link }, "does not accept user and password", access.WrongSecret},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAuthority()
			a.add("alice", "wonder")
			s := serve(t, a, func(c *tsp.ServerConfig) {
				if test.change != nil {
					test.change(c, a)
				}
			})
			e := open(t)
			e.peer(t, s.Local(), &test.s)
			if err := take(t, e.failures, "the refusal"); !strings.Contains(err.Error(), test.words) {
				t.Errorf("the error is %q, without %q", err, test.words)
			}
			if got := a.refused(); test.reason != "" && (len(got) == 0 || got[0] != test.reason) {
				t.Errorf("the broker has counted %v, not %v", got, test.reason)
			}
		})
	}
}

// discard is a link to nowhere.
type discard struct{}

func (discard) Send([]byte) error   { return nil }
func (discard) End(*access.Refusal) {}

// lossy is a path on which datagrams get lost and come twice. It is between a client and a
// server, each of which sees its address only.
type lossy struct {
	front, back *net.UDPConn
}

// between opens a path to a server, on which drop says how often a datagram arrives.
func between(t testing.TB, server netip.AddrPort, times func(n int, up bool) int) *lossy {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	back, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
	must(t, err)
	l := &lossy{front, back}
	clients := make(chan netip.AddrPort, 1)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		b := make([]byte, 65536)
		for i := 0; ; i++ {
			n, from, err := front.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			select {
			case clients <- from:
			default:
			}
			for range times(i, true) {
				_, _ = back.Write(b[:n])
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		var client netip.AddrPort
		b := make([]byte, 65536)
		for i := 0; ; i++ {
			n, err := back.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			if !client.IsValid() {
				client = <-clients
			}
			for range times(i, false) {
				_, _ = front.WriteToUDPAddrPort(b[:n], client)
			}
		}
	}()
	t.Cleanup(func() { front.Close(); back.Close(); <-done; <-done })
	return l
}

func (l *lossy) addr() netip.AddrPort { return l.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// Dialogues survive loss and duplicates in both directions.
func TestLossAndDuplicates(t *testing.T) {
	for _, test := range []struct {
		name  string
		times func(n int, up bool) int
	}{
		{"each second one is lost", func(n int, up bool) int { return n % 2 }},
		{"each one comes twice", func(int, bool) int { return 2 }},
		{"answers are lost", func(n int, up bool) int {
			if up || n%3 == 2 {
				return 1
			}
			return 0
		}},
		{"lost and twice", func(n int, up bool) int { return (n*7 + 3) % 3 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, auth := range []wire.Auth{wire.DigestMD5, wire.Plain, wire.Anonymous} {
				a := newAuthority()
				a.add("alice", "wonder")
				a.add("anonymous-127.0.0.1", "")
				s := serve(t, a, func(c *tsp.ServerConfig) { c.Open = true })
				l := between(t, s.Local(), test.times)
				e := open(t)
				e.peer(t, l.addr(), &tsp.Settings{User: "alice", Password: "wonder", Auth: auth})
				g := take(t, e.granted, "the grant")
				if g.Inner != a.next(t).account.Endpoint.Client {
					t.Errorf("%s: the grant is %+v", auth, g)
				}
				select {
				case err := <-e.failures:
					t.Errorf("%s: an attempt has failed: %v", auth, err)
				default:
				}
			}
		})
	}
}

// A server that forgets a client, or that does not answer, is asked again, and the tunnel is
// another one. Without a tunnel packets are refused.
func TestDeadTunnel(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	config := tsp.ServerConfig{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0")}
	s, err := tsp.NewServerFor(config, unit)
	must(t, err)
	e := open(t)
	settings := tsp.Settings{User: "alice", Password: "wonder", Keepalive: time.Second}
	if err := e.send(s.Local(), packet(netip.IPv6Unspecified(), netip.IPv6Unspecified(), 17, nil)); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("without a tunnel the error is %v", err)
	}
	e.peer(t, s.Local(), &settings)
	g := take(t, e.granted, "the grant")
	take(t, e.events, "the tunnel")
	e.exchanges(t, g, a.next(t))
	must(t, s.Close())
	if why := take(t, a.left, "the end"); why != "the server ends" {
		t.Errorf("the client has left: %s", why)
	}
	config.Local = s.Local()
	s, err = tsp.NewServerFor(config, unit)
	must(t, err)
	defer s.Close()
	_ = e.send(g.Server, packet(g.Inner, g.ServerInner, 17, nil))
	if ev := take(t, e.events, "the end of the tunnel"); ev.at.IsValid() || ev.why == nil {
		t.Errorf("the event is %v", ev)
	}
	g = take(t, e.granted, "the second grant")
	take(t, e.events, "the second tunnel")
	e.exchanges(t, g, a.next(t))
}
