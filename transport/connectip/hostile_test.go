package connectip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"sixfour/transport"
)

// hostilePort is a server with two peers: one that is connected, and one whose secret is
// known to a hostile program.
type hostilePort struct {
	a              *authority
	server, client *end
	number         int // of packets that works has sent
}

func newHostilePort(t *testing.T, c Config, over Over) *hostilePort {
	a := newAuthority(t)
	c.Certificate = a.certificate(name, time.Now().Add(time.Hour))
	h := &hostilePort{a: a, server: open(t, c)}
	if err := h.server.SetPeers([]transport.SessionPeer{
		{ID: "client", Settings: &Settings{Path: "/", Secret: []byte(secret)}},
		{ID: "hostile", Settings: &Settings{Path: "/hostile", Secret: []byte(secret)}},
	}); err != nil {
		t.Fatal(err)
	}
	h.connect(t, over)
	h.server.up("client")
	return h
}

// connect connects the client, again if it is connected already.
func (h *hostilePort) connect(t *testing.T, over Over) {
	t.Helper()
	h.client = open(t, Config{})
	settings := &Settings{Path: "/", Secret: []byte(secret), ServerName: name, Roots: h.a.pool(), Over: over}
	if err := h.client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: h.server.Local(), Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	h.client.up("server")
	h.works()
}

// works checks that packets from the client arrive at the server, and vice versa. Some may be
// lost on the way, and the client may have to connect again, because a flood fills sockets.
func (h *hostilePort) works() {
	h.client.t.Helper()
	h.arrives(h.client, "server", h.server)
	h.arrives(h.server, "client", h.client)
}

func (h *hostilePort) arrives(a *end, peer any, b *end) {
	a.t.Helper()
	h.number++
	want := inner(500+h.number, 0)
	until(a.t, "the arrival of a packet", func() bool {
		if s, ok := a.State(peer); ok {
			a.sender.SendOne(to(s.At, a.Local(), want))
		}
		again := time.After(50 * time.Millisecond)
		for {
			select {
			case got := <-b.packets:
				if bytes.Equal(got[28:], want) {
					return true
				}
			case <-again:
				return false
			}
		}
	})
}

// hostileStreams are streams of capsules for which a connection ends, with the error.
var hostileStreams = []struct {
	name   string
	stream []byte
	want   string
}{
	{"a DATAGRAM that is too long", appendVarint([]byte{0}, maxDatagram+1), "more than"},
	{"an unknown type without end", appendVarint([]byte{0x29}, 1<<62-1), "more than"},
	{"an assignment that is no prefix", []byte{1, 7, 0, 4, 10, 0, 0, 1, 8}, "ADDRESS_ASSIGN"},
	{"an assignment of IPv5", []byte{1, 2, 0, 5}, "ADDRESS_ASSIGN"},
	{"a truncated request", []byte{2, 3, 1, 4, 0}, "ADDRESS_REQUEST"},
	{"a request with the number 0", []byte{2, 7, 0, 4, 0, 0, 0, 0, 32}, "ADDRESS_REQUEST"},
	{"an empty request", []byte{2, 0}, "ADDRESS_REQUEST"},
	{"a route that ends before it begins", []byte{3, 10, 4, 10, 0, 0, 1, 10, 0, 0, 0, 0}, "ROUTE_ADVERTISEMENT"},
}

// What one peer sends ends its connection, with an error that names the reason, and does not
// concern others.
func TestHostileStreams(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		h := newHostilePort(t, Config{}, TCP)
		for _, c := range hostileStreams {
			s, err := upgraded(t, h.a, h.server, "/hostile", secret)
			if err != nil {
				t.Fatal(err)
			}
			h.server.up("hostile")
			if _, err := s.Write(c.stream); err != nil {
				t.Fatal(err)
			}
			if err := h.server.down("hostile"); !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			s.Close()
		}
		s, err := upgraded(t, h.a, h.server, "/hostile", secret)
		if err != nil {
			t.Fatal(err)
		}
		h.server.up("hostile")
		if _, err := s.Write(appendVarint([]byte{0}, 1000)); err != nil { // and nothing more
			t.Fatal(err)
		}
		h.works()
		s.Close()
		if err := h.server.down("hostile"); !errors.Is(err, errTruncated) {
			t.Error(err)
		}
	})
	t.Run("udp", func(t *testing.T) {
		h := newHostilePort(t, Config{}, UDP)
		for _, c := range hostileStreams {
			q, s := h.request(t, "/hostile", secret)
			h.server.up("hostile")
			if _, err := s.Write(c.stream); err != nil {
				t.Fatal(err)
			}
			if err := h.server.down("hostile"); !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			q.CloseWithError(0, "")
		}
		q, s := h.request(t, "/hostile", secret)
		h.server.up("hostile")
		for _, b := range [][]byte{nil, {0}, {0x40}, {0xff}, {2, 1, 2}, make([]byte, 1200)} { // only the last one is a packet
			if err := s.SendDatagram(b); err != nil {
				t.Fatal(err)
			}
		}
		if got := wait(t, h.server.packets, "the packet"); len(got) != 28+1199 {
			t.Errorf("a packet has %d bytes", len(got)-28)
		}
		h.works()
		q.CloseWithError(0, "")
		h.server.down("hostile")
	})
}

// dial connects over QUIC.
func (h *hostilePort) dial(t *testing.T) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	q, err := quic.DialAddr(ctx, h.server.Local().String(), h.tls(), &quic.Config{EnableDatagrams: true, InitialPacketSize: packetSize})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (h *hostilePort) tls() *tls.Config {
	return &tls.Config{RootCAs: h.a.pool(), ServerName: name, NextProtos: []string{http3.NextProtoH3}}
}

// request asks for CONNECT-IP over HTTP/3, which must be granted.
func (h *hostilePort) request(t *testing.T, path, token string) (*quic.Conn, *http3.RequestStream) {
	t.Helper()
	p := &peer{port: new(Port), settings: &Settings{Path: path, Secret: []byte(token), ServerName: name}}
	q := h.dial(t)
	s, err := p.request3(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return q, s
}

// Requests in one connection over HTTP/3 after the first one are refused.
func TestSecondRequest(t *testing.T) {
	h := newHostilePort(t, Config{}, UDP)
	q, _ := h.request(t, "/hostile", secret)
	h.server.up("hostile")
	p := &peer{port: new(Port), settings: &Settings{Path: "/", Secret: []byte(secret), ServerName: name}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := p.request3(ctx, q); err == nil {
		t.Error("a second request is granted")
	}
	h.works()
	q.CloseWithError(0, "")
	h.server.down("hostile")
}

// A thousand TLS handshakes over TCP that do not go on keep nobody out, and what they
// occupy is bounded.
func TestSlowHandshakesTCP(t *testing.T) {
	const limit = 32
	h := newHostilePort(t, Config{MaxHandshakes: limit}, TCP)
	before := runtime.NumGoroutine()
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for i := range 1000 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := d.Dial("tcp4", h.server.Local().String())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		switch i % 3 {
		case 1:
			c.Write([]byte{22, 3, 1}) // the begin of a ClientHello
		case 2:
			c.Write([]byte("GET / HTTP/1.1\r\n"))
		}
	}
	h.works()
	h.client.close()
	h.connect(t, TCP)
	s := h.server.server
	s.open.mu.Lock()
	if n := len(s.open.all); n > limit {
		t.Errorf("%d connections are open", n)
	}
	s.open.mu.Unlock()
	until(t, "the end of the others", func() bool { return runtime.NumGoroutine() < before+2*limit })
}

// deaf is a socket that receives nothing.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom([]byte) (int, net.Addr, error) {
	_, _, err := d.PacketConn.ReadFrom(nil)
	for err == nil {
		_, _, err = d.PacketConn.ReadFrom(make([]byte, 2048))
	}
	return 0, nil, err
}

// A thousand handshakes over QUIC that do not go on, as if their addresses were forged, do not
// occupy the places of others: those only need one round trip more.
func TestSlowHandshakesUDP(t *testing.T) {
	const limit = 32
	h := newHostilePort(t, Config{MaxHandshakes: limit}, UDP)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	started := make(chan struct{}, 1000)
	for range 1000 {
		socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			defer socket.Close()
			tr := &quic.Transport{Conn: deaf{socket}}
			defer tr.Close()
			started <- struct{}{}
			tr.Dial(ctx, net.UDPAddrFromAddrPort(h.server.Local()), h.tls(), &quic.Config{EnableDatagrams: true})
		})
	}
	for range 1000 {
		<-started
	}
	h.works()
	h.client.close()
	h.connect(t, UDP)
	if n := h.server.server.udp.strangers.number(); n > limit/4+1 {
		t.Errorf("%d connections are open", n)
	}
}

// Complete handshakes over QUIC without a request end soon, and those from one address do not
// occupy the places of others.
func TestSilentClientsUDP(t *testing.T) {
	const limit = 32
	h := newHostilePort(t, Config{MaxHandshakes: limit}, UDP)
	var running sync.WaitGroup
	for range 4 * limit {
		running.Go(func() {
			socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
			if err != nil {
				t.Error(err)
				return
			}
			defer socket.Close()
			tr := &quic.Transport{Conn: socket}
			defer tr.Close()
			q, err := tr.Dial(t.Context(), net.UDPAddrFromAddrPort(h.server.Local()), h.tls(), &quic.Config{EnableDatagrams: true})
			if err == nil {
				<-q.Context().Done()
			}
		})
	}
	h.client.close()
	h.connect(t, UDP)
	running.Wait() // ended by the server
	until(t, "the end of the others", func() bool { return h.server.server.udp.strangers.number() == 0 })
}

func TestStrangers(t *testing.T) {
	s := strangers{max: 3}
	conn := func(from string) *fakeConn { return &fakeConn{from: net.ParseIP(from)} }
	hostile := []*fakeConn{conn("192.0.2.1"), conn("192.0.2.1"), conn("192.0.2.1")}
	other, first := conn("192.0.2.2"), s.add(hostile[0])
	for _, c := range append(hostile[1:], other, conn("2001:db8::1"), conn("2001:db8::2")) {
		s.add(c)
	}
	if !hostile[0].closed || !hostile[1].closed || hostile[2].closed || other.closed {
		t.Errorf("closed: %v %v %v, %v", hostile[0].closed, hostile[1].closed, hostile[2].closed, other.closed)
	}
	if n := len(s.all); n != 3 || s.all[2].from != netip.MustParseAddr("2001:db8::") {
		t.Errorf("%d connections: %v", n, s.all)
	}
	if err := s.remove(first); !errors.Is(err, errTooMany) {
		t.Error(err)
	}
}

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   net.IP
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.from} }

func (c *fakeConn) Close() error {
	c.closed = true
	return nil
}

func TestNewcomers(t *testing.T) {
	var n newcomers
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	enter := func(from netip.Addr, want bool) func() {
		t.Helper()
		leave, ok := n.enter(from, 8)
		if ok != want {
			t.Errorf("from %v: %v", from, ok)
		}
		return leave
	}
	leave := enter(a, true)
	enter(a, true)
	enter(a, false)
	enter(b, true)
	for range 5 {
		enter(netip.Addr{}, true)
	}
	enter(b, false)
	leave()
	leave()
	enter(b, true)
	if n.number() != 8 {
		t.Errorf("there are %d", n.number())
	}
}
