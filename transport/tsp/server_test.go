package tsp_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	wire "sixfour/encap/tsp"
	"sixfour/transport/access"
	"sixfour/transport/tsp"
)

// request is a message that asks for a tunnel.
func request(kind wire.Type, address string, prefix int) string {
	t := wire.Tunnel{Action: wire.Create, Type: kind, Client: wire.End{IPv4: netip.MustParseAddr(address), Keepalive: 30, Router: prefix > 0, PrefixLength: prefix}}
	return string(wire.AppendDocument(nil, t.AppendRequest(nil)))
}

// simple is a message with an action alone.
func simple(action string) string {
	return string(wire.AppendDocument(nil, fmt.Appendf(nil, "<tunnel action=%q></tunnel>\r\n", action)))
}

// login is the dialogue up to the tunnel, with PLAIN.
func (o *old) login(user, password string) {
	o.t.Helper()
	for _, step := range [][2]string{{"VERSION=2.0.1\r\n", "CAPABILITY"}, {"AUTHENTICATE PLAIN\r\n", ""}, {"\x00" + user + "\x00" + password + "\r\n", "200 Success\r\n"}} {
		if got := o.ask(step[0]); !strings.HasPrefix(got, step[1]) {
			o.t.Fatalf("the answer to %q is %q", step[0], got)
		}
	}
}

// A message that comes again gets the same answer, with its own timestamp, while the step that it
// asks for is done once.
func TestSentAgain(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	a.waits = make(chan struct{})
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	text := request(wire.V6UDPV4, "127.0.0.1", 0)
	message := func(stamp uint32) []byte {
		return append(wire.Header{Sequence: o.seq, Timestamp: stamp}.Append(nil), text...)
	}
	o.send(message(1))
	o.send(message(2)) // while the broker is at work
	o.silent()
	close(a.waits)
	first := o.receive()
	if !bytes.Equal(first[:8], message(1)[:8]) {
		t.Errorf("the answer has the header %x", first[:8])
	}
	o.send(message(3))
	again := o.receive()
	if !bytes.Equal(again[:8], message(3)[:8]) || !bytes.Equal(again[8:], first[8:]) {
		t.Errorf("the second answer is\n%q, not\n%q", again, first)
	}
	a.next(t)
	select {
	case <-a.news:
		t.Error("the client was attached twice")
	default:
	}
}

// Strangers get no more than the protocol says: packets and garbage are not answered, and
// steps of a dialogue that is not known are answered by a result.
func TestStrangers(t *testing.T) {
	a := newAuthority()
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	h := wire.Header{Sequence: wire.FirstSequence}.Append(nil)
	for _, b := range []string{
		"", "\xf0", string(h), string(h) + "hello", string(h) + "\r\n", string(h) + strings.Repeat("x", 9000), "garbage without a header",
		string(packet(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 17, nil)), "\x45" + strings.Repeat("\x00", 40),
	} {
		o.send([]byte(b))
	}
	o.silent()
	for text, want := range map[string]string{
		"AUTHENTICATE PLAIN\r\n": "310 Server side error\r\n", simple("accept"): "310 Server side error\r\n", "VERSION=3.0\r\n": "302 Unsupported client version\r\n",
		"VERSION=2.0.2\r\n": "CAPABILITY TUNNEL=V6UDPV4 AUTH=PLAIN AUTH=DIGEST-MD5\r\n",
	} {
		if got := dial(t, s.Local()).ask(text); got != want {
			t.Errorf("the answer to %q is %q, not %q", text, got, want)
		}
	}
	o = dial(t, s.Local())
	a.mu.Lock()
	a.limit = 0 // no more attempts
	a.mu.Unlock()
	o.send(append(h, "VERSION=2.0.2\r\n"...))
	o.send(append(h, "AUTHENTICATE PLAIN\r\n"...))
	o.silent()
}

// An address can have so many dialogues at a time. Then the oldest one is forgotten.
func TestTooManyDialogues(t *testing.T) {
	a := newAuthority()
	s := serve(t, a, nil)
	var all []*old
	for i := range 65 {
		all = append(all, dial(t, s.Local()))
		if got := all[i].ask("VERSION=2.0.2\r\n"); !strings.HasPrefix(got, "CAPABILITY") {
			t.Fatalf("dialogue %d: %q", i, got)
		}
	}
	for i, want := range map[int]string{0: "310 Server side error\r\n", 1: "", 64: ""} {
		if got := all[i].ask("AUTHENTICATE PLAIN\r\n"); got != want {
			t.Errorf("dialogue %d: %q, not %q", i, got, want)
		}
	}
}

// A tunnel belongs to an address and port. Another client there has it only after it has
// authenticated, and then the first one has left.
func TestOneTunnelForAnAddress(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	a.add("bob", "builder")
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	o.ask(request(wire.V6UDPV4, "127.0.0.1", 0))
	alice := a.next(t)
	carries(t, o, alice)

	o.seq = 0xf12345f0
	o.ask("VERSION=2.0.2\r\n")
	o.ask("AUTHENTICATE PLAIN\r\n")
	if got := o.ask("\x00bob\x00wrong\r\n"); got != "300 Authentication failed\r\n" {
		t.Errorf("the result is %q", got)
	}
	carries(t, o, alice) // still
	o.login("bob", "builder")
	o.ask(request(wire.V6UDPV4, "127.0.0.1", 0))
	bob := a.next(t)
	if why := take(t, a.left, "the end of the first tunnel"); !strings.Contains(why, "another tunnel") {
		t.Errorf("the first client has left: %s", why)
	}
	carries(t, o, bob)
	if err := alice.attachment.Link.Send([]byte{0x60}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the link of the first client still sends: %v", err)
	}
	// The same account from elsewhere: the broker ends the former client.
	o2 := dial(t, s.Local())
	o2.login("bob", "builder")
	o2.ask(request(wire.V6UDPV4, "127.0.0.1", 0))
	carries(t, o2, a.next(t))
	up := packet(bob.account.Endpoint.Client, netip.MustParseAddr("2001:db8::5"), 17, []byte("up"))
	o.send(up)
	o.silent()
	select {
	case <-bob.got:
		t.Error("a packet of the former client is received")
	default:
	}
}

// The tunnel's type follows from what the client asks, the NAT that is seen, and what is
// offered.
func TestTypes(t *testing.T) {
	for _, test := range []struct {
		want    wire.Type
		address string
		raw     bool
		granted wire.Type
		code    int
	}{
		{wire.V6AnyV4, "127.0.0.1", true, wire.V6V4, 200},
		{wire.V6AnyV4, "127.0.0.1", false, wire.V6UDPV4, 200},
		{wire.V6AnyV4, "192.168.1.2", true, wire.V6UDPV4, 200},
		{wire.V6V4, "127.0.0.1", true, wire.V6V4, 200},
		{wire.V6V4, "192.168.1.2", true, "", wire.BadIPv4},
		{wire.V6V4, "127.0.0.1", false, "", wire.BadType},
		{wire.V6UDPV4, "127.0.0.1", true, wire.V6UDPV4, 200},
		{"v4v6", "127.0.0.1", true, "", wire.BadType},
		{wire.V6UDPV4, "0.0.0.0", true, "", wire.BadIPv4},
	} {
		a := newAuthority()
		a.add("alice", "wonder")
		s := serve(t, a, func(c *tsp.ServerConfig) {
			if test.raw {
				c.Raw = func(netip.Addr) access.Link { return discard{} }
			}
		})
		o := dial(t, s.Local())
		o.login("alice", "wonder")
		answer := o.ask(request(test.want, test.address, 56))
		body, ok, err := wire.Document([]byte(answer))
		status, rest, _ := wire.ParseStatus(body)
		if !ok || err != nil || status.Code != test.code {
			t.Errorf("%+v: %q", test, answer)
			continue
		}
		if test.code != 200 {
			continue
		}
		info, err := wire.ParseTunnel(rest)
		c := a.next(t)
		if err != nil || info.Type != test.granted || info.Client.Prefix != c.Lease().Prefix {
			t.Errorf("%+v: %+v, %v", test, info, err)
		}
		if raw := c.attachment.From.Port() == 0; raw != (test.granted == wire.V6V4) {
			t.Errorf("%+v: the attachment is %+v", test, c.attachment)
		}
	}
}

// A tunnel in protocol 41 is refused if its address has a tunnel of another account.
func TestAddressInUse(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	a.add("bob", "builder")
	s := serve(t, a, func(c *tsp.ServerConfig) { c.Raw = func(netip.Addr) access.Link { return discard{} } })
	ask := func(user, password string, kind wire.Type) string {
		o := dial(t, s.Local())
		o.login(user, password)
		return o.ask(request(kind, "127.0.0.1", 0))
	}
	if got := ask("alice", "wonder", wire.V6UDPV4); !strings.Contains(got, "200 Success") {
		t.Fatal(got)
	}
	if got := ask("bob", "builder", wire.V6V4); !strings.Contains(got, "506 IPv4 address already used") {
		t.Errorf("another account's tunnel in UDP: %q", got)
	}
	if got := ask("alice", "wonder", wire.V6V4); !strings.Contains(got, "200 Success") { // which ends that in UDP
		t.Errorf("the own tunnel in UDP: %q", got)
	}
	if got := ask("bob", "builder", wire.V6V4); !strings.Contains(got, "506 IPv4 address already used") {
		t.Errorf("another account's tunnel in protocol 41: %q", got)
	}
	a.next(t)
	a.next(t).attachment.Link.End(access.Refuse(access.Silent, "gone"))
	if got := ask("bob", "builder", wire.V6V4); !strings.Contains(got, "200 Success") {
		t.Errorf("after its end: %q", got)
	}
	if got := a.refused(); !slices.Equal(got, []access.Reason{access.WrongAddress, access.WrongAddress}) {
		t.Errorf("the broker has counted %v", got)
	}
}

// receiver is a link that wants to know the client.
type receiver struct {
	discard
	clients chan access.Client
	left    chan bool
}

func (r receiver) Attached(c access.Client) { r.clients <- c }
func (r receiver) Left()                    { r.left <- true }

// The link of a tunnel in protocol 41 gets to know its client, as if there were nothing between
// it and the broker.
func TestRawLink(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	link := receiver{clients: make(chan access.Client, 1), left: make(chan bool, 1)}
	s := serve(t, a, func(c *tsp.ServerConfig) { c.Raw = func(netip.Addr) access.Link { return link } })
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	o.ask(request(wire.V6V4, "127.0.0.1", 0))
	c := a.next(t)
	follower, ok := c.attachment.Link.(access.Follower)
	if !ok {
		t.Fatal("the link does not want to know the client")
	}
	follower.Attached(c)
	if take(t, link.clients, "the client") != access.Client(c) {
		t.Error("the link knows another client")
	}
	follower.Left()
	take(t, link.left, "the end")
}

// A client may ask again what it has, and give it back.
func TestInfoAndDelete(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	if got := o.ask(simple("info")); !strings.Contains(got, "310 There is no tunnel\r\n") {
		t.Errorf("without a tunnel: %q", got)
	}
	if got := o.ask("Content-length: 10\r\n<x/>\r\n"); !strings.Contains(got, "500 Invalid request") {
		t.Errorf("a length that lies: %q", got)
	}
	if got := o.ask(simple("dance")); !strings.Contains(got, "500 Invalid request") {
		t.Errorf("another action: %q", got)
	}
	granted := o.ask(request(wire.V6UDPV4, "127.0.0.1", 56))
	c := a.next(t)
	if got := o.ask(simple("info")); got != granted {
		t.Errorf("info is\n%q, not\n%q", got, granted)
	}
	if got := o.ask(simple("delete")); !strings.HasSuffix(got, "200 Success\r\n") {
		t.Errorf("delete: %q", got)
	}
	if why := take(t, a.left, "the end"); !strings.Contains(why, "deleted") {
		t.Errorf("the client has left: %s", why)
	}
	o.send(packet(c.account.Endpoint.Client, netip.MustParseAddr("2001:db8::5"), 17, nil))
	o.silent()
	if len(c.got) != 0 {
		t.Error("a packet of a deleted tunnel is received")
	}
}

// A client from which nothing comes for three of its intervals has left.
func TestSilentClient(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s, err := tsp.NewServerFor(tsp.ServerConfig{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0")}, unit)
	must(t, err)
	defer s.Close()
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	began := time.Now()
	o.ask(strings.Replace(request(wire.V6UDPV4, "127.0.0.1", 0), `interval="30"`, `interval="01"`, 1))
	a.next(t)
	if why := take(t, a.left, "the end"); !strings.Contains(why, "nothing has come from it for 3s") || time.Since(began) < 3*time.Second {
		t.Errorf("after %v the client has left: %s", time.Since(began), why)
	}
}

// talk is a client over TCP.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func connect(t *testing.T, to netip.AddrPort) *talk {
	t.Helper()
	conn, err := net.Dial("tcp4", to.String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(soon)))
	return &talk{t, conn, bufio.NewReader(conn)}
}

func (c *talk) send(text string) {
	c.t.Helper()
	_, err := c.conn.Write([]byte(text))
	must(c.t, err)
}

// succeeds reads the result of a request, which must be good.
func (c *talk) succeeds() {
	c.t.Helper()
	if l := c.line(); l != "200 Success\r\n" {
		c.t.Errorf("the result is %q", l)
	}
}

func (c *talk) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	must(c.t, err)
	return s
}

// ended fails the test if the server does not end the connection.
func (c *talk) ended() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Errorf("the server goes on: %q", b)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Error("the server does not end the connection")
	}
}

// The dialogue over TCP, as clients in the field have it: NUL bytes behind lines, credentials
// without waiting, and no empty message with DIGEST-MD5.
func TestTCP(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	a.add("anonymous-127.0.0.1", "")
	outer := make(chan netip.Addr, 10)
	s := serve(t, a, func(c *tsp.ServerConfig) {
		c.Open = true
		c.Raw = func(to netip.Addr) access.Link { outer <- to; return discard{} }
	})
	finish := func(c *talk) {
		t.Helper()
		c.send(request(wire.V6AnyV4, "127.0.0.1", 0))
		if l := c.line(); !strings.HasPrefix(l, "Content-length: ") {
			t.Fatalf("the answer is %q", l)
		}
		c.succeeds()
		if l := c.line(); !strings.Contains(l, `type="v6v4"`) {
			t.Errorf("the tunnel is %q", l)
		}
		for c.line() != "</tunnel>\r\n" {
		}
		c.send(simple("accept"))
		at := a.next(t).attachment
		defer at.Link.End(access.Refuse(access.Elsewhere, "the next one comes"))
		if at.From != netip.MustParseAddrPort("127.0.0.1:0") || take(t, outer, "the link") != at.From.Addr() {
			t.Errorf("the attachment is %+v", at)
		}
	}
	const offer = "CAPABILITY TUNNEL=V6V4 TUNNEL=V6UDPV4 AUTH=ANONYMOUS AUTH=PLAIN AUTH=DIGEST-MD5\r\n"
	begin := func(auth string) *talk {
		t.Helper()
		c := connect(t, s.Local())
		c.send("VERSION=2.0.2\r\n")
		if l := c.line(); l != offer {
			t.Errorf("the capability is %q", l)
		}
		c.send(auth)
		return c
	}
	t.Run("anonymous", func(t *testing.T) {
		c := begin("AUTHENTICATE ANONYMOUS\r\n\x00")
		c.succeeds()
		finish(c)
	})
	t.Run("plain", func(t *testing.T) {
		c := begin("AUTHENTICATE PLAIN\r\n\x00")
		c.send("\x00alice\x00wonder\r\n")
		c.succeeds()
		finish(c)
	})
	t.Run("plain in two lines", func(t *testing.T) {
		c := begin("AUTHENTICATE PLAIN\r\n")
		c.send("\x00alice\r\n")
		c.send("wonder\r\n")
		c.succeeds()
		finish(c)
	})
	t.Run("digest", func(t *testing.T) {
		c := begin("AUTHENTICATE DIGEST-MD5\r\n\x00")
		challenge, err := wire.ParseChallenge([]byte(c.line()))
		must(t, err)
		d := challenge.Answer("alice", "wonder", "broker", "1234")
		c.send(string(d.Append(nil)))
		proof := make([]byte, 4096)
		n, err := c.r.Read(proof) // all that comes at once: the proof alone
		must(t, err)
		if got := string(proof[:n]); got != string(wire.AppendProof(nil, d.Proof("wonder"))) {
			t.Errorf("the proof is %q", got)
		}
		c.succeeds()
		finish(c)
	})
	t.Run("nonce once", func(t *testing.T) {
		c := begin("AUTHENTICATE DIGEST-MD5\r\n")
		challenge, err := wire.ParseChallenge([]byte(c.line()))
		must(t, err)
		d := challenge.Answer("alice", "wonder", "broker", "1234")
		c2 := begin("AUTHENTICATE DIGEST-MD5\r\n")
		c2.line()
		c2.send(string(d.Append(nil))) // an answer to another challenge
		if l := c2.line(); l != "300 Authentication failed\r\n" {
			t.Errorf("the result is %q", l)
		}
		c2.ended()
	})
	t.Run("NAT", func(t *testing.T) {
		c := begin("AUTHENTICATE PLAIN\r\n\x00alice\x00wonder\r\n")
		c.line()
		c.send(request(wire.V6AnyV4, "10.0.0.1", 0))
		c.line()
		if l := c.line(); l != "303 Unsupported tunnel type\r\n" {
			t.Errorf("the result is %q", l)
		}
	})
	for name, text := range map[string]string{
		"line":    strings.Repeat("x", 100000) + "\n",
		"endless": strings.Repeat("x", 100000),
		"length":  "Content-length: 100000000\r\n",
		"request": "GET / HTTP/1.0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.Local())
			_, _ = c.conn.Write([]byte(text)) // the server may not read all of it
			c.r.ReadString('\n')
			c.ended()
		})
	}
}

// Connections that say nothing end, and there are only so many: they do not keep others out,
// and do not displace clients that have authenticated.
func TestSilentConnections(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	config := tsp.ServerConfig{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0"), Raw: func(netip.Addr) access.Link { return discard{} }}
	s, err := tsp.NewServerFor(config, 10*unit)
	must(t, err)
	defer s.Close()
	alice := connect(t, s.Local())
	alice.send("VERSION=2.0.2\r\nAUTHENTICATE PLAIN\r\n\x00alice\x00wonder\r\n")
	alice.line()
	alice.succeeds()
	var all []*talk
	for range 100 {
		all = append(all, connect(t, s.Local()))
	}
	bob := connect(t, s.Local())
	bob.send("VERSION=2.0.2\r\n")
	if l := bob.line(); !strings.HasPrefix(l, "CAPABILITY") {
		t.Errorf("the capability is %q", l)
	}
	alice.send(request(wire.V6V4, "127.0.0.1", 0))
	if l := alice.line(); !strings.HasPrefix(l, "Content-length") {
		t.Errorf("the answer is %q", l)
	}
	for _, c := range all {
		c.ended()
	}
}

func TestBadServers(t *testing.T) {
	for name, c := range map[string]tsp.ServerConfig{
		"IPv6":    {Local: netip.MustParseAddrPort("[::1]:0")},
		"nothing": {Local: netip.MustParseAddrPort("127.0.0.1:0"), NoUDP: true, NoTCP: true},
		"no type": {Local: netip.MustParseAddrPort("127.0.0.1:0"), NoUDP: true},
	} {
		if s, err := tsp.NewServerFor(c, unit); err == nil {
			t.Errorf("%s: there is no error", name)
			s.Close()
		}
	}
	s := serve(t, newAuthority(), nil)
	if s2, err := tsp.NewServerFor(tsp.ServerConfig{Local: s.Local()}, unit); err == nil {
		t.Error("two servers have one port")
		s2.Close()
	}
	must(t, s.Close())
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close: %v", err)
	}
}

// A packet costs no allocation, in either direction.
func TestServerAllocatesNothing(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	o.login("alice", "wonder")
	o.ask(request(wire.V6UDPV4, "127.0.0.1", 0))
	c := a.next(t)
	down := packet(netip.MustParseAddr("2001:db8::5"), c.account.Endpoint.Client, 17, make([]byte, 1000))
	if n := testing.AllocsPerRun(1000, func() { _ = c.attachment.Link.Send(down) }); n > 0 {
		t.Errorf("sending to a client allocates %v times", n)
	}
	c.discard.Store(true)
	up := packet(c.account.Endpoint.Client, netip.MustParseAddr("2001:db8::5"), 17, make([]byte, 1000))
	ping := echo(128, c.account.Endpoint.Client, c.account.Endpoint.Broker)
	for _, b := range [][]byte{up, ping} {
		if n := testing.AllocsPerRun(1000, func() { s.Datagram(b, c.attachment.From, c.attachment.At) }); n > 0 {
			t.Errorf("receiving a packet of %d bytes allocates %v times", len(b), n)
		}
	}
}
