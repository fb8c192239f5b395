package heartbeat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "sixfour/encap/heartbeat"
)

// socket is where a client's messages arrive.
func socket(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// read returns the next message.
func read(t *testing.T, conn *net.UDPConn) (wire.Received, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 2000)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.Parse(b[:n])
	if err != nil || !r.Verify(secret, wire.HMAC) || r.Inner != netip.MustParseAddr(inner) {
		t.Fatalf("%q: %v", b[:n], err)
	}
	return r, from
}

func start(c *Client) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	return func() { cancel(); <-done }
}

// At the start a message and a repetition are sent, each from a port of its own; then one at
// each interval, one after Wake, and one that ends it.
func TestClient(t *testing.T) {
	conn, at := socket(t)
	var now atomic.Int64
	now.Store(begun.Unix())
	sent := make(chan error, 100)
	c := NewClient(ClientConfig{Server: func() (netip.AddrPort, bool) { return at, true }, Identity: netip.MustParseAddr(inner), Secret: secret,
		Look: time.Millisecond, Now: func() time.Time { return time.Unix(now.Load(), 0) },
		Sent: func(from netip.Addr, err error) { sent <- err }})
	stop := start(c)
	defer stop()
	first, from := read(t, conn)
	second, again := read(t, conn)
	if first.Command != wire.Tunnel || first.Epoch != begun.Unix() || first.Outer.IsValid() || second.Message != first.Message {
		t.Errorf("first %+v, then %+v", first.Message, second.Message)
	}
	if from == again {
		t.Error("the same port")
	}
	now.Add(59)
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, _, err := conn.ReadFromUDPAddrPort(make([]byte, 1)); err == nil {
		t.Error("a message before it is due")
	}
	now.Add(1)
	if r, _ := read(t, conn); r.Epoch != begun.Unix()+60 {
		t.Errorf("after a minute: %+v", r.Message)
	}
	c.Wake()
	for range 2 {
		if r, _ := read(t, conn); r.Epoch != begun.Unix()+60 || r.Command != wire.Tunnel {
			t.Errorf("after Wake: %+v", r.Message)
		}
	}
	stop()
	if r, _ := read(t, conn); r.Command != wire.Disable || r.Epoch <= begun.Unix()+60 {
		t.Errorf("at the end: %+v", r.Message)
	}
	for range 5 {
		if err := next(t, sent, "Sent"); err != nil {
			t.Errorf("Sent with %v", err)
		}
	}
}

// A new outer address is told at once, with a later time, so that the server believes it.
func TestClientMoves(t *testing.T) {
	conn, at := socket(t)
	fixed := time.Unix(begun.Unix(), 0)
	c := NewClient(ClientConfig{Server: func() (netip.AddrPort, bool) { return at, true }, Identity: netip.MustParseAddr(inner), Secret: secret, Digest: wire.HMAC,
		Look: time.Millisecond, Now: func() time.Time { return fixed }})
	for i, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"} {
		c.config.Local = netip.MustParseAddr(local)
		c.look(t.Context(), false)
		if r, from := read(t, conn); from.Addr() != c.config.Local || r.Epoch != begun.Unix()+int64(i) {
			t.Errorf("from %v: %+v", from, r.Message)
		}
	}
	c.look(t.Context(), false)
	read(t, conn) // the repetition
	c.look(t.Context(), false)
	c.disable()
	if r, _ := read(t, conn); r.Command != wire.Disable {
		t.Errorf("%+v without a reason", r.Message)
	}
}

// A message names an address that is the same from outside.
func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{"203.0.113.7": true, "9.9.9.9": true, "10.1.2.3": false, "192.168.1.2": false, "172.31.0.1": false,
		"100.64.0.1": false, "100.128.0.1": true, "169.254.1.1": false, "127.0.0.1": false, "192.0.0.2": false, "0.0.0.0": false, "224.0.0.1": false} {
		if got := public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
	var sent []byte
	for _, sender := range []bool{false, true} {
		c := NewClient(ClientConfig{Identity: netip.MustParseAddr(inner), Secret: secret, Sender: sender})
		_ = c.send(recorder{b: &sent}, wire.Tunnel, netip.MustParseAddr("203.0.113.7"))
		if r, err := wire.Parse(sent); err != nil || r.Outer.IsValid() == sender {
			t.Errorf("Sender %v: %+v, %v", sender, r.Message, err)
		}
	}
}

type recorder struct {
	net.Conn
	b *[]byte
}

func (r recorder) Write(b []byte) (int, error) { *r.b = b; return len(b), nil }

// What goes wrong is reported, and the client goes on.
func TestClientErrors(t *testing.T) {
	conn, at := socket(t)
	conn.Close()
	known := false
	sent := make(chan error, 100)
	c := NewClient(ClientConfig{Server: func() (netip.AddrPort, bool) { return at, known }, Identity: netip.MustParseAddr(inner), Secret: secret,
		Sent: func(from netip.Addr, err error) { sent <- err }, Now: func() time.Time { return begun }})
	c.look(t.Context(), true)
	if err := next(t, sent, "an error"); err == nil {
		t.Error("sent to nowhere")
	}
	c.look(t.Context(), false)
	none(t, sent, "the same error at each look")
	known = true
	c.look(t.Context(), true)
	if err := next(t, sent, "the message"); err != nil {
		t.Error(err)
	}
	// The kernel's ICMP error follows within the call on the loopback interface.
	c.look(t.Context(), true)
	if err := next(t, sent, "an error"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody is at the port: %v", err)
	}
	c.close()
}

// Both ends of ours, with real ports: the client comes, moves and goes.
func TestBothEnds(t *testing.T) {
	a := newAuthority()
	a.add("alice", secret, inner)
	s, err := NewServer(Config{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0"), Digest: wire.HMAC, Send: func(netip.Addr, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cc := ClientConfig{Server: func() (netip.AddrPort, bool) { return s.Addr(), true }, Identity: netip.MustParseAddr(inner), Secret: secret, Digest: wire.HMAC, Local: netip.MustParseAddr("127.0.0.1")}
	client := NewClient(cc)
	stop := start(client)
	c := next(t, a.attached, "attached")
	for len(c.heard) == 0 { // until Attach has returned, a beat is not passed on
		client.Wake()
		time.Sleep(time.Millisecond)
	}
	stop()
	if why := next(t, c.left, "the client leaves"); why != "the client does not use the tunnel any more" {
		t.Errorf("left because %q", why)
	}
	none(t, a.refusals, "refused")
}
