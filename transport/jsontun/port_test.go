package jsontun

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/jsontun"
	"sixfour/internal/vectors"
	"sixfour/transport"
	"sixfour/transport/access"
)

// end is a port with what it has reported.
type end struct {
	*Port
	sender transport.Sender

	mu     sync.Mutex
	at     netip.AddrPort // connected; the zero value: not
	why    []string       // why connections have ended or failed
	grants []Grant
}

// openPort opens a port with one peer.
func openPort(t testing.TB, remote netip.AddrPort, s Settings, times portTimes) *end {
	t.Helper()
	e := new(end)
	s.Granted = func(g Grant) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.grants = append(e.grants, g)
	}
	c := Config{Local: netip.MustParseAddrPort("0.0.0.0:7"), Connected: func(id any, at netip.AddrPort, why error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.at = at; why != nil {
			e.why = append(e.why, why.Error())
		}
	}}
	var err error
	if e.Port, err = listen(c, transport.Options{}, times); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if e.sender, err = e.Sender(transport.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := e.SetPeers([]transport.SessionPeer{{ID: "broker", Remote: remote, Settings: &s}}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *end) connected() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at.IsValid()
}

func (e *end) reasons() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.why)
}

// to returns a packet for the sender of a port.
func to(remote netip.AddrPort, packet []byte) []byte {
	o := header.Outer{From: remote, At: netip.MustParseAddrPort("127.0.0.1:7"), TTL: 64}
	b := make([]byte, 28+len(packet))
	copy(b[28:], packet)
	header.PutHeaders(b, &header.Outer{From: o.At, At: o.From, TTL: 64})
	return b
}

// receive returns the next packet that has arrived at a port, after checking its headers.
func (e *end) receive(t testing.TB, from netip.AddrPort) []byte {
	t.Helper()
	bufs, meta := [][]byte{make([]byte, transport.MaxPacket)}, make([]transport.Meta, 1)
	if n, err := e.Receive(bufs, meta); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	o, payload, ok := header.OpenUDP(bufs[0][:meta[0].Size])
	if !ok || o.From != from || o.At != netip.MustParseAddrPort("127.0.0.1:7") {
		t.Errorf("the headers are %+v, %v", o, ok)
	}
	return payload
}

// Both ends of ours, with a secret and without, with TLS and without.
func TestBothEnds(t *testing.T) {
	config, trust := secured(t)
	for _, c := range []struct {
		name     string
		settings Settings
		bits     int // of the prefix that the client gets
	}{
		{"plain", Settings{ID: "open"}, 64},
		{"a secret that is not asked for", Settings{ID: "open", Secret: []byte("x")}, 64},
		{"secret", Settings{ID: "laptop", Secret: []byte("open sesame")}, 56},
		{"TLS", Settings{ID: "open", TLS: trust}, 64},
		{"TLS and secret", Settings{ID: "laptop", Secret: []byte("open sesame"), TLS: trust}, 56},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			b.bits = 56
			s := serve(t, b, func(s *ServerConfig, _ *serverTimes) { s.TLS = config })
			e := openPort(t, s.Local(), c.settings, testPortTimes)
			until(t, "the connection", e.connected)
			e.mu.Lock()
			g := e.grants[0]
			e.mu.Unlock()
			if g.Prefix.String() != "2001:db8:77:500::/"+map[int]string{56: "56", 64: "64"}[c.bits] || g.Server != s.Local() || !g.Local.IsValid() || g.Proved != (c.bits == 56) || g.TLS != (c.settings.TLS != nil) {
				t.Errorf("granted %+v", g)
			}
			if s, ok := e.State("broker"); !ok || s.Grant != g {
				t.Errorf("the state is %+v, %v", s, ok)
			}
			of := b.of(c.settings.ID)
			for i := range 50 {
				if n, err := e.sender.Send([]transport.Packet{{Head: to(s.Local(), inner(44+i, i))[:40], Body: inner(44+i, i)[12:]}}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				if err := of.attachment.Link.Send(inner(44+20*i, i)); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "packets", func() bool { return len(of.packets()) == 50 })
			for i, p := range of.packets() {
				if !bytes.Equal(p, inner(44+i, i)) {
					t.Errorf("packet %d is %x", i, p)
				}
			}
			for i := range 50 {
				if p := e.receive(t, s.Local()); !bytes.Equal(p, inner(44+20*i, i)) {
					t.Errorf("packet %d is %x", i, p)
				}
			}
			// The connection is lost, and comes back.
			if err := of.attachment.Link.Send(inner(44, 0)); err != nil {
				t.Error(err)
			}
			of.end(access.Refuse(access.Silent, "test"))
			until(t, "the end", func() bool { return len(e.reasons()) > 0 })
			until(t, "another connection", func() bool { now := b.of(c.settings.ID); return now != nil && now != of && e.connected() })
			e.Close()
			until(t, "the end", func() bool { return b.of(c.settings.ID) == nil })
		})
	}
}

// originalServer is a server of the original program, as far as its clients notice: it takes
// what one read returns for one message or packet, and writes each packet at once.
func originalServer(t *testing.T, answer string, packets [][]byte) (at netip.AddrPort, reads chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reads = make(chan string, 100)
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			for i := 0; ; i++ {
				n, err := c.Read(b)
				if err != nil {
					break
				}
				reads <- string(b[:n])
				if i == 0 {
					io.WriteString(c, answer)
					for _, p := range packets {
						c.Write(p)
					}
				}
			}
			c.Close()
		}
	})
	return netip.MustParseAddrPort(l.Addr().String()), reads
}

// A server of the original program: our hello is that of the vectors, and each of our packets
// is one read.
func TestOriginalServer(t *testing.T) {
	all := vectors.Read(t)
	for _, answer := range []string{string(all["JSON-2"]), string(all["JSON-2"]) + "\n"} {
		at, reads := originalServer(t, answer, [][]byte{all["JSON-3"], all["JSON-6"]})
		e := openPort(t, at, Settings{ID: "00:11:22:aa:bb:cc", Secret: []byte("not asked for")}, testPortTimes)
		if got := <-reads; got != string(all["JSON-1"]) {
			t.Errorf("the hello is %q", got)
		}
		until(t, "the connection", e.connected)
		e.mu.Lock()
		if g := e.grants[0]; g.Prefix.String() != "2001:db8:77:5::/64" || g.Proved {
			t.Errorf("granted %+v", g)
		}
		e.mu.Unlock()
		for i, want := range [][]byte{all["JSON-3"][:56], all["JSON-3"][56:], all["JSON-6"]} {
			if got := e.receive(t, at); !bytes.Equal(got, want) {
				t.Errorf("packet %d is %x", i, got)
			}
		}
		for i := range 20 {
			pkt := inner(100+i, i)
			if err := e.sender.SendOne(to(at, pkt)); err != nil {
				t.Fatal(err)
			}
			if got := <-reads; got != string(pkt) {
				t.Fatalf("read %d has %d bytes, want %d", i, len(got), len(pkt))
			}
		}
		e.Close()
	}
}

// A server that refuses, or that does not speak the protocol: the reason is in words, and the
// client tries again.
func TestBadServer(t *testing.T) {
	all := vectors.Read(t)
	for _, c := range []struct {
		name, answer, want string
		settings           Settings
	}{
		{"out of prefixes", string(all["JSON-7"]), "the server says: out of prefixes", Settings{}},
		{"words with control characters", `{"Error":"\u001b[2Jgone` + strings.Repeat("x", 1000) + `"}`, "the server says: ?[2Jgone", Settings{}},
		{"a nonce without a secret", `{"Nonce":"abc"}`, "asks for a secret", Settings{}},
		{"only nonces", `{"Nonce":"abc"}{"Nonce":"abc"}`, "has no Prefix", Settings{Secret: []byte("x")}},
		{"nothing in it", `{}`, "has no Prefix", Settings{}},
		{"no prefix", `{"Prefix":"fe80::/64"}`, "fe80::/64", Settings{}},
		{"the whole Internet", `{"Prefix":"::/0"}`, "::/0", Settings{}},
		{"IPv4", `{"Prefix":"10.0.0.0/8"}`, "10.0.0.0/8", Settings{}},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "does not begin with {", Settings{}},
		{"endless", `{"Prefix":"` + strings.Repeat("2", 1<<16), "more than 4096 bytes", Settings{}},
		{"deep", strings.Repeat(`{"a":`, 100), "levels", Settings{}},
		{"an IPv4 packet", string(all["JSON-2"]) + "\x45\x00", "0x45", Settings{}},
		{"a long packet", string(all["JSON-2"]) + "\x60\x00\x00\x00\xff\xff" + strings.Repeat("a", 34), "65575 bytes", Settings{}},
		{"last words", string(all["JSON-2"]) + string(all["JSON-6"]) + `{"Error":"the other one has it"}`, "the server says: the other one has it", Settings{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, _ := originalServer(t, c.answer, nil)
			c.settings.ID = "a"
			e := openPort(t, at, c.settings, testPortTimes)
			until(t, "two attempts", func() bool { return len(e.reasons()) >= 2 })
			for _, why := range e.reasons() {
				if !strings.Contains(why, c.want) || len(why) > 300 {
					t.Errorf("%q, want %q", why, c.want)
				}
			}
		})
	}
}

// A server that is away, that does not answer, or that goes without an answer.
func TestServerAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	times := testPortTimes
	times.answer = 20 * time.Millisecond
	e := openPort(t, at, Settings{ID: "a"}, times) // the kernel accepts
	until(t, "a failure", func() bool { return slices.Contains(e.reasons(), "the server has not answered in 20ms") })
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	until(t, "a failure", func() bool { return slices.Contains(e.reasons(), "the server closes the connection without an answer") })
	l.Close()
	running.Wait()
	until(t, "a failure", func() bool {
		return slices.ContainsFunc(e.reasons(), func(s string) bool { return strings.HasSuffix(s, "connection refused") })
	})
	if err := e.sender.SendOne(to(at, inner(56, 0))); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("Send: %v", err)
	}
	serve(t, newBroker(), func(c *ServerConfig, _ *serverTimes) { c.Local = at })
	if err := e.SetPeers([]transport.SessionPeer{{ID: "broker", Remote: at, Settings: &Settings{ID: "open"}}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the connection", e.connected)
}

// The server's certificate must be for the name.
func TestWrongCertificate(t *testing.T) {
	config, trust := secured(t)
	s := serve(t, newBroker(), func(c *ServerConfig, _ *serverTimes) { c.TLS = config })
	trust.ServerName = "other.example"
	e := openPort(t, s.Local(), Settings{ID: "open", TLS: trust}, testPortTimes)
	until(t, "a failure", func() bool { return len(e.reasons()) > 0 })
	if why := e.reasons()[0]; !strings.Contains(why, "TLS: ") || !strings.Contains(why, "gw.example") {
		t.Error(why)
	}
}

// What SetPeers refuses, and what it leaves as it is.
func TestSetPeers(t *testing.T) {
	b := newBroker()
	s := serve(t, b, nil)
	e := openPort(t, s.Local(), Settings{ID: "open"}, testPortTimes)
	until(t, "the connection", e.connected)
	other := netip.MustParseAddrPort("127.0.0.1:1")
	for _, bad := range [][]transport.SessionPeer{
		{{ID: 1, Remote: other}},
		{{ID: 1, Remote: other, Settings: (*Settings)(nil)}},
		{{ID: 1, Remote: other, Settings: &Settings{}}},
		{{ID: 1, Settings: &Settings{ID: "a"}}},
		{{ID: 1, Remote: other, Settings: &Settings{ID: "a"}}, {ID: 2, Remote: other, Settings: &Settings{ID: "b"}}},
	} {
		if e.SetPeers(bad) == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
	e.Port.mu.Lock()
	same := e.peers["broker"].SessionPeer
	e.Port.mu.Unlock()
	if err := e.SetPeers([]transport.SessionPeer{same}); err != nil {
		t.Fatal(err)
	}
	if _, ok := e.State("broker"); !ok {
		t.Error("the connection has not stayed")
	}
	for _, p := range [][]byte{inner(56, 0), to(other, inner(56, 0)), to(s.Local(), make([]byte, 56)), to(s.Local(), append(inner(56, 0), 1))} {
		if err := e.sender.SendOne(p); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%x: %v", p, err)
		}
	}
	if err := e.SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the end", func() bool { return s.Connections() == 0 })
	if _, ok := e.State("broker"); ok || len(e.reasons()) != 0 {
		t.Errorf("a removed peer is reported: %v", e.reasons())
	}
}

// A connection whose server reads nothing drops the oldest packets.
func TestBlockedServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	e := openPort(t, at, Settings{ID: "a"}, testPortTimes)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Read(make([]byte, 100))
	c.Write(jsontun.Message{Prefix: "2001:db8:1::/64"}.Append(nil))
	until(t, "the connection", e.connected)
	dropped := func() uint64 { s, _ := e.State("broker"); return s.Dropped }
	for sent := 0; dropped() < 1000; sent++ {
		if err := e.sender.SendOne(to(at, inner(1000, sent))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Close() }()
	select {
	case <-ctx.Done():
		t.Error("Close waits for the server")
		c.Close()
		<-done
	case <-done:
	}
}
