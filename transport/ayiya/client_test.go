package ayiya

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// quick is a timing for tests.
var quick = timing{
	interval: 100 * time.Millisecond, first: 20 * time.Millisecond, firsts: 3, patience: 60 * time.Millisecond, lost: 3, pause: 500 * time.Millisecond,
}

// client is a port whose peer is one server, and what it reports and receives.
type client struct {
	*Port
	reports chan string // "up id address", "down id error", "said id text"
	got     chan []byte // packets, each with headers of its own
	local   netip.AddrPort
	tx      transport.Sender
}

func connect(t testing.TB, n int, server netip.AddrPort, tm timing, change ...func(*Settings)) *client {
	t.Helper()
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	if server.Addr().Is6() {
		local = netip.AddrPortFrom(netip.MustParseAddr("::1"), 0)
	}
	c := newClient(t, local, tm)
	must(t, c.SetPeers([]transport.SessionPeer{{ID: n, Remote: server, Settings: settings(n, change...)}}))
	return c
}

// newClient opens a port without a server, in the network namespace of the calling thread.
func newClient(t testing.TB, local netip.AddrPort, tm timing) *client {
	t.Helper()
	c := &client{reports: make(chan string, 100), got: make(chan []byte, 2000)}
	var err error
	c.Port, err = listen(Config{
		Local: local,
		Connected: func(id any, at netip.AddrPort, why error) {
			if why != nil {
				c.reports <- fmt.Sprintf("down %v %v", id, why)
				return
			}
			c.reports <- fmt.Sprintf("up %v %v", id, at)
		},
		Said: func(id any, text string) { c.reports <- fmt.Sprintf("said %v %s", id, text) },
	}, transport.Options{}, tm)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	c.local = c.Local()
	c.tx, err = c.Sender(transport.Options{})
	must(t, err)
	go c.receive(t)
	return c
}

func settings(n int, change ...func(*Settings)) *Settings {
	s := &Settings{Client: endpoint(n).Client, Server: endpoint(n).Broker, Secret: password}
	for _, f := range change {
		f(s)
	}
	return s
}

// receive receives packets, and takes those of one buffer apart.
func (c *client) receive(t testing.TB) {
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := c.Port.Receive(bufs, meta)
		if err != nil {
			return
		}
		for i, m := range meta[:n] {
			front := header.HeadersLen(c.local.Addr())
			each := m.Each
			if each == 0 {
				each = m.Size - front
			}
			if o, payload, ok := header.OpenUDP(bufs[i][:front+each]); !ok || len(payload) != each || o.At.Port() != c.local.Port() {
				t.Errorf("a packet with the headers %x", bufs[i][:front])
			}
			for at := front; at < m.Size; at += each {
				c.got <- bytes.Clone(bufs[i][at:min(m.Size, at+each)])
			}
		}
	}
}

// expect waits for a report that begins so.
func (c *client) expect(t testing.TB, want string) {
	t.Helper()
	select {
	case got := <-c.reports:
		if !strings.HasPrefix(got, want) {
			t.Fatalf("the port reports %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("the port does not report %q", want)
	}
}

// packet returns an inner packet as the port takes it.
func (c *client) packet(to netip.AddrPort, in []byte) []byte {
	n := header.HeadersLen(to.Addr())
	b := append(make([]byte, n), in...)
	header.PutHeaders(b, &header.Outer{From: c.local, At: to, TTL: 64})
	return b
}

// Both ends of ours, over IPv4 and IPv6, with each hash: packets in both directions.
func TestBothEnds(t *testing.T) {
	for _, local := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, h := range []ayiya.Hash{0, ayiya.MD5, ayiya.SHA256} {
			t.Run(fmt.Sprintf("%v %v", local, h), func(t *testing.T) {
				b := newBroker(3)
				s := serve(t, ServerConfig{Authority: b, Local: netip.MustParseAddrPort(local), Hashes: []ayiya.Hash{ayiya.SHA1, ayiya.MD5, ayiya.SHA256}})
				c := connect(t, 1, s.Local(), usualTiming, func(s *Settings) { s.Hash = h })
				c.expect(t, fmt.Sprintf("up 1 %v", s.Local()))
				at := b.client("1")
				id := endpoint(1).Client

				var pkts []transport.Packet
				for i := range 300 { // of two lengths, some in two pieces, and some equal
					whole := c.packet(s.Local(), inner(id, internet, fmt.Sprint(i/2*2)+strings.Repeat("x", i%3/2*100)))
					cut := len(whole) - i%2*10
					pkts = append(pkts, transport.Packet{Head: whole[:cut], Body: whole[cut:]})
				}
				for len(pkts) > 0 {
					n := min(len(pkts), 50)
					sent, err := c.tx.Send(pkts[:n])
					must(t, err)
					for _, p := range pkts[:sent] {
						at.expect(t, append(p.Head[header.HeadersLen(s.Local().Addr()):len(p.Head):len(p.Head)], p.Body...))
					}
					pkts = pkts[sent:]
				}
				must(t, c.tx.SendOne(c.packet(s.Local(), inner(id, internet, "one"))))
				at.expect(t, inner(id, internet, "one"))

				for i := range 300 {
					in := inner(internet, id, fmt.Sprint(i/2*2)+strings.Repeat("y", i%50/49*100))
					must(t, at.Link.Send(in))
					if i%50 != 49 {
						continue
					}
					for k := i - 49; k <= i; k++ {
						want := inner(internet, id, fmt.Sprint(k/2*2)+strings.Repeat("y", k%50/49*100))
						select {
						case got := <-c.got:
							if !bytes.Equal(got, want) {
								t.Fatalf("packet %d arrives as\n%x, want\n%x", k, got, want)
							}
						case <-time.After(patience):
							t.Fatalf("packet %d does not arrive", k)
						}
					}
				}
				if r := b.reasons(); len(r) > 0 {
					t.Errorf("refused: %v", r)
				}
			})
		}
	}
}

// The server goes away and comes back.
func TestClientServerRestarts(t *testing.T) {
	b := newBroker(3)
	s := serve(t, ServerConfig{Authority: b, Shards: 1})
	at := s.Local()
	c := connect(t, 1, at, quick)
	c.expect(t, "up 1")
	must(t, s.Close())
	c.expect(t, fmt.Sprintf("down 1 the AYIYA server %v has not answered for ", at))
	if err := c.tx.SendOne(c.packet(at, inner(endpoint(1).Client, internet, "x"))); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("sent to a server that is away: %v", err)
	}
	serve(t, ServerConfig{Authority: b, Shards: 1, Local: at})
	c.expect(t, "up 1")
}

// stub is a server that does what a test says.
type stub struct {
	t    testing.TB
	conn *net.UDPConn
	key  ayiya.Key
	id   netip.Addr
	from netip.AddrPort // of the last message
}

func newStub(t testing.TB) *stub {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return &stub{t: t, conn: c, key: ayiya.NewKey(ayiya.SHA1, password), id: endpoint(1).Broker}
}

func (s *stub) at() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// receive returns the next message with one of the operations.
func (s *stub) receive(ops ...ayiya.OpCode) ayiya.Message {
	s.t.Helper()
	b := make([]byte, 65536)
	must(s.t, s.conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			s.t.Fatalf("operation %d: %v", ops, err)
		}
		m, err := ayiya.Parse(b[:n])
		must(s.t, err)
		if !m.Verify(&s.key) {
			s.t.Fatal("the client's signature is wrong")
		}
		if s.from = from; slices.Contains(ops, m.Op) {
			return m
		}
	}
}

func (s *stub) packet(op ayiya.OpCode, next byte, payload []byte, skew time.Duration) []byte {
	b := append(make([]byte, s.key.Hash().HeaderLen()), payload...)
	ayiya.Sign(b, &ayiya.Header{Op: op, Next: next, Epoch: ayiya.Epoch(time.Now().Add(skew)), Identity: ayiya.Identity(s.id)}, &s.key)
	return b
}

func (s *stub) send(b []byte) {
	s.t.Helper()
	_, err := s.conn.WriteToUDPAddrPort(b, s.from)
	must(s.t, err)
}

// An old server answers no echo request, and is connected after a while. It stays so.
func TestClientOldServer(t *testing.T) {
	s := newStub(t)
	c := connect(t, 1, s.at(), quick)
	for range 3 {
		m := s.receive(ayiya.EchoRequest)
		s.receive(ayiya.Noop)
		if id, _ := m.Address(); netip.AddrFrom16(id) != endpoint(1).Client {
			t.Errorf("the client says that it is %v", netip.AddrFrom16(id))
		}
	}
	c.expect(t, fmt.Sprintf("up 1 %v", s.at()))
	for range 6 { // for much longer than a server that answers may be silent
		s.receive(ayiya.Noop)
	}
	select {
	case r := <-c.reports:
		t.Errorf("the port reports %s", r)
	default:
	}
	for _, d := range []time.Duration{2 * quick.interval, 4 * quick.interval} { // what is sent replaces heartbeats
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(quick.interval / 10) {
			must(t, c.tx.SendOne(c.packet(s.at(), inner(endpoint(1).Client, internet, "x"))))
		}
		must(t, s.conn.SetReadDeadline(time.Now().Add(quick.interval/10)))
		beats := 0
		for b := make([]byte, 2000); ; {
			n, err := s.conn.Read(b)
			if err != nil {
				break
			}
			if m, err := ayiya.Parse(b[:n]); err == nil && m.Op == ayiya.Noop {
				beats++
			}
		}
		if d > 3*quick.interval && beats > 2 { // at the ends
			t.Errorf("%d heartbeats within %v", beats, d)
		}
	}
}

// What a client does with the messages of a server.
func TestClientMessages(t *testing.T) {
	s := newStub(t)
	long := quick
	long.pause = 2 * time.Second // so that it has not ended before the test has looked
	c := connect(t, 1, s.at(), long, func(s *Settings) { s.Heartbeat = time.Minute })
	s.receive(ayiya.EchoRequest)
	s.send(s.packet(ayiya.EchoRequest, ayiya.NextNone, []byte("are you there"), 0))
	c.expect(t, "up 1")
	if m := s.receive(ayiya.EchoResponse); string(m.Payload) != "are you there" {
		t.Errorf("the client answers %q", m.Payload)
	}
	pkt := inner(internet, endpoint(1).Client, "hello")
	s.send(s.packet(ayiya.EchoForward, ayiya.NextIPv6, pkt, 0))
	if m := s.receive(ayiya.EchoResponse); !bytes.Equal(m.Payload, pkt) {
		t.Errorf("the client answers %q", m.Payload)
	}
	if got := <-c.got; !bytes.Equal(got, pkt) {
		t.Errorf("the client got %x", got)
	}
	for name, want := range map[string]string{"version": version, "hostname": "", "outer-endpoint": c.local.String()} {
		s.send(s.packet(ayiya.QueryRequest, ayiya.NextNone, ayiya.AppendQuery(nil, 7, name), 0))
		m := s.receive(ayiya.QueryResponse)
		if number, text, _ := m.Answer(); number != 7 || text != want {
			t.Errorf("query for %s: %d, %q", name, number, text)
		}
	}
	s.send(s.packet(ayiya.MOTD, ayiya.NextNone, []byte("1700000000\nMaintenance\nhttps://broker.example/\nTonight."), 0))
	c.expect(t, "said 1 Maintenance Tonight. https://broker.example/")

	// What is not the server's, is not taken.
	good := *s
	for name, bad := range map[string]func() []byte{
		"another password": func() []byte {
			s.key = ayiya.NewKey(ayiya.SHA1, "wrong")
			return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 0)
		},
		"another hash": func() []byte {
			s.key = ayiya.NewKey(ayiya.MD5, password)
			return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 0)
		},
		"another server": func() []byte {
			s.id = endpoint(2).Broker
			return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 0)
		},
		"our own identity": func() []byte {
			s.id = endpoint(1).Client
			return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 0)
		},
		"a clock ahead":  func() []byte { return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 3*time.Minute) },
		"a clock behind": func() []byte { return s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, -3*time.Minute) },
		"nothing":        func() []byte { return nil },
	} {
		b := bad()
		*s = good
		s.send(b)
		other := newStub(t)
		other.from = s.from
		other.send(s.packet(ayiya.Forward, ayiya.NextIPv6, pkt, 0)) // right, but from elsewhere
		last := s.packet(ayiya.Forward, ayiya.NextIPv6, inner(internet, endpoint(1).Client, name), 0)
		s.send(last)
		s.send(last) // a copy
		if got := <-c.got; !bytes.Equal(got, last[44:]) {
			t.Errorf("%s: the client got %x", name, got)
		}
	}

	began := time.Now()
	s.send(s.packet(ayiya.QueryRequest, ayiya.NextNone, ayiya.AppendQuery(nil, 1, "Shutdown"), 0))
	c.expect(t, "said 1 the server has shut the tunnel down")
	c.expect(t, "down 1 the AYIYA server "+s.at().String()+": the server has shut the tunnel down")
	s.receive(ayiya.QueryResponse)
	if err := c.tx.SendOne(c.packet(s.at(), pkt)); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("sent after a shutdown: %v", err)
	}
	s.send(s.packet(ayiya.EchoRequest, ayiya.NextNone, []byte("come back"), 0)) // does not shorten it
	s.receive(ayiya.Noop, ayiya.EchoResponse)                                   // the second if the request came only after the pause
	if d := time.Since(began); d < long.pause {
		t.Errorf("the client comes back after %v", d)
	}
	c.expect(t, "up 1")
}

// A clock that differs too much is reported in words.
func TestClientClock(t *testing.T) {
	s := newStub(t)
	slow := quick
	slow.patience = time.Minute
	c := connect(t, 1, s.at(), slow)
	s.receive(ayiya.Noop)
	s.send(s.packet(ayiya.EchoResponse, ayiya.NextNone, []byte("x"), -5*time.Minute))
	c.expect(t, "down 1 the clock of this host and that of the AYIYA server "+s.at().String()+" differ by 5m")
	s.send(s.packet(ayiya.EchoResponse, ayiya.NextNone, []byte("x"), 0))
	c.expect(t, "up 1")
}

// Datagrams that the kernel has merged, with messages and bad packets between them, come out
// as packets of one length.
func TestClientMerged(t *testing.T) {
	s := newStub(t)
	c := connect(t, 1, s.at(), usualTiming)
	s.receive(ayiya.Noop)
	peer := (*c.peers.Load())[s.at()]
	outer := header.Outer{From: s.at(), At: c.local, TTL: 64}
	front := header.IPv4Len + header.UDPLen
	id := endpoint(1).Client
	packet := func(text string) []byte {
		return s.packet(ayiya.Forward, ayiya.NextIPv6, inner(internet, id, text), 0)
	}
	bad := packet("bad")
	bad[30]++
	echo := s.packet(ayiya.EchoRequest, ayiya.NextNone, make([]byte, 43), 0) // as long as a packet
	for _, datagrams := range [][][]byte{
		{packet("one")},
		{packet("one"), packet("two")},
		{packet("one"), packet("two"), packet("s")},
		{bad, packet("two"), packet("s")},
		{packet("one"), bad, packet("s")},
		{echo, bad, packet("new")},
		{packet("one"), bad, echo},
		{bad, echo},
		{bad},
	} {
		peer.recent = ayiya.Recent{}
		b := make([]byte, front)
		var want []byte
		count := 0
		for _, d := range datagrams {
			b = append(b, d...)
			if m, err := ayiya.Parse(d); err == nil && m.Verify(&s.key) && m.Op == ayiya.Forward {
				want = append(want, m.Payload...)
				count++
			}
		}
		m := transport.Meta{Outer: outer, Size: len(b)}
		if len(datagrams) > 1 {
			m.Each = len(datagrams[0])
		}
		header.PutHeaders(b[:front+len(datagrams[0])], &outer)
		size, each := c.open(b, &m, time.Now())
		if count == 0 {
			if size != 0 {
				t.Errorf("%d bytes are left of what has no packet", size)
			}
			continue
		}
		if !bytes.Equal(b[front:size], want) || each != 0 != (count > 1) || each != 0 && each != 43 {
			t.Errorf("%d datagrams with %d packets: %d bytes, each %d", len(datagrams), count, size, each)
		}
		if n := int(binary.BigEndian.Uint16(b[2:])); each != 0 && n != front+each || each == 0 && n != size {
			t.Errorf("the length in the header is %d", n)
		}
	}
}
