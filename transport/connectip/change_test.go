package connectip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/netsock"
)

// relay is a router on which UDP can be filtered, and a NAT that can forget its entries. It
// passes TCP and UDP at one port on to a server.
type relay struct {
	t       testing.TB
	at, to  netip.AddrPort
	udp     *net.UDPConn
	tcp     *net.TCPListener
	filter  atomic.Bool
	running sync.WaitGroup

	mu    sync.Mutex
	nat   map[netip.AddrPort]*net.UDPConn // by the client's address
	conns []net.Conn
}

func newRelay(t testing.TB, to netip.AddrPort) *relay {
	r := &relay{t: t, to: to, nat: make(map[netip.AddrPort]*net.UDPConn)}
	var err error
	if r.tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(loopback)); err != nil {
		t.Fatal(err)
	}
	r.at = netsock.AddrPort(r.tcp.Addr())
	if r.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(r.at)); err != nil {
		t.Fatal(err)
	}
	r.running.Go(r.passUDP)
	r.running.Go(r.passTCP)
	t.Cleanup(func() {
		r.udp.Close()
		r.tcp.Close()
		r.forget()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.running.Wait()
	})
	return r
}

// forget removes all entries of the NAT.
func (r *relay) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.nat {
		c.Close()
	}
	clear(r.nat)
}

func (r *relay) passUDP() {
	b := make([]byte, 65536)
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if r.filter.Load() {
			continue
		}
		r.mu.Lock()
		c := r.nat[from]
		if c == nil {
			if c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.to)); err != nil {
				r.t.Error(err)
				r.mu.Unlock()
				return
			}
			r.nat[from] = c
			r.running.Go(func() {
				b := make([]byte, 65536)
				for {
					n, err := c.Read(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil && !r.filter.Load() {
						r.udp.WriteToUDPAddrPort(b[:n], from)
					}
				}
			})
		}
		r.mu.Unlock()
		c.Write(b[:n])
	}
}

func (r *relay) passTCP() {
	for {
		a, err := r.tcp.Accept()
		if err != nil {
			return
		}
		b, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(r.to))
		if err != nil {
			a.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, a, b)
		r.mu.Unlock()
		pass := func(from, to net.Conn) {
			io.Copy(to, from)
			from.Close()
			to.Close()
		}
		r.running.Go(func() { pass(a, b) })
		r.running.Go(func() { pass(b, a) })
	}
}

// throughRelay returns a server and a client that connects to it through a relay.
func throughRelay(t *testing.T, over Over, filtered bool) (server, client *end, r *relay) {
	a := newAuthority(t)
	server = open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	r = newRelay(t, server.Local())
	r.filter.Store(filtered)
	client = open(t, Config{})
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: defaultPath, Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	settings := &Settings{Path: defaultPath, Secret: []byte(secret), ServerName: name, Roots: a.pool(), Over: over}
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: r.at, Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	client.up("server")
	return server, client, r
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

// Where UDP is filtered, the client connects over TCP. When the filter is gone, it changes
// to UDP, and no packet is lost. When the filter is back, it changes to TCP.
func TestFallback(t *testing.T) {
	server, client, r := throughRelay(t, Auto, true)
	from := server.up("client")
	if s, _ := client.State("server"); s.Over != TCP {
		t.Fatalf("the connection is over %s", s.Over)
	}
	exchange(server, from, client, r.at, inner(100, 0))

	r.filter.Store(false)
	var last atomic.Bool
	sent := 0
	over := func() Over {
		s, _ := client.State("server")
		return s.Over
	}
	until(t, "the change to UDP", func() bool {
		if err := client.sender.SendOne(to(r.at, client.Local(), inner(100, sent))); err != nil {
			t.Fatal(err)
		}
		s, _ := server.State("client")
		if err := server.sender.SendOne(to(s.At, server.Local(), inner(100, sent))); err != nil {
			t.Fatal(err)
		}
		sent++
		changed := over() == UDP
		return last.Swap(changed) && changed && sent > 50
	})
	for i := range sent {
		wait(t, server.packets, "a packet at the server")
		got := wait(t, client.packets, "a packet at the client")
		if i == sent-1 && len(got) != 128 {
			t.Errorf("a packet has %d bytes", len(got))
		}
	}
	if at := server.up("client"); at == from {
		t.Errorf("the server still has the address %v", at)
	}
	if len(client.events) != 0 {
		t.Error("the client had another address or no connection")
	}
	if n, _ := server.Lost(); n != 0 {
		t.Errorf("%d packets lost", n)
	}

	r.filter.Store(true)
	until(t, "the change to TCP", func() bool {
		client.sender.SendOne(to(r.at, client.Local(), inner(100, 0)))
		return over() == TCP
	})
}

// A NAT that has forgotten the connection gives the client another port, and the server
// follows.
func TestRebinding(t *testing.T) {
	server, client, r := throughRelay(t, UDP, false)
	from := server.up("client")
	exchange(client, r.at, server, from, inner(100, 0))
	exchange(server, from, client, r.at, inner(100, 0))
	r.forget()
	until(t, "the change of the address", func() bool {
		client.sender.SendOne(to(r.at, client.Local(), inner(100, 1)))
		return len(server.events) > 0
	})
	now := server.up("client")
	if now == from {
		t.Fatal("the address is the same")
	}
	for len(server.packets) > 0 {
		<-server.packets
	}
	exchange(server, now, client, r.at, inner(100, 2))
	if s, _ := server.State("client"); s.At != now || s.Over != UDP {
		t.Errorf("the state is %+v", s)
	}
	if len(client.events) != 0 {
		t.Error("the client has noticed")
	}
}

// A peer that connects again replaces its former connection. Packets that arrive in that one
// are still delivered, from the present address.
func TestReplacement(t *testing.T) {
	p := newPair(t, TCP)
	second, now := p.replace(t)
	exchange(p.server, now, second, p.server.Local(), inner(100, 0))
	exchange(second, p.server.Local(), p.server, now, inner(100, 0))
	exchange(p.client, p.server.Local(), p.server, now, inner(100, 0))
	exchange(p.server, p.from, second, p.server.Local(), inner(100, 0)) // to the former address
	p.client.down("server")
}

// Packets of a peer that has moved are from its former address, until those who receive them
// have had the time to learn of the present one.
func TestSettling(t *testing.T) {
	of := testTimes
	of.settle = time.Hour
	p := newPairWith(t, TCP, of)
	second, now := p.replace(t)
	exchange(second, p.server.Local(), p.server, p.from, inner(100, 0))
	exchange(p.client, p.server.Local(), p.server, p.from, inner(100, 0))
	exchange(p.server, now, second, p.server.Local(), inner(100, 0))

	of.settle = time.Millisecond
	p = newPairWith(t, TCP, of)
	second, now = p.replace(t)
	until(t, "a packet from the present address", func() bool {
		if err := second.sender.SendOne(to(p.server.Local(), second.Local(), inner(100, 0))); err != nil {
			t.Fatal(err)
		}
		got := wait(t, p.server.packets, "the packet")
		source, _ := header.Ports(got[header.IPv4Len:])
		return source == now.Port()
	})
}

// replace makes a second client connect as the same peer, and returns it with the address from
// which it has connected.
func (p *pair) replace(t *testing.T) (second *end, now netip.AddrPort) {
	t.Helper()
	second = open(t, Config{})
	settings := *p.client.peers["server"].settings
	settings.Over = UDP
	if err := second.SetPeers([]transport.SessionPeer{{ID: "server", Remote: p.server.Local(), Settings: &settings}}); err != nil {
		t.Fatal(err)
	}
	second.up("server")
	if now = p.server.up("client"); now == p.from {
		t.Fatal("the address is the same")
	}
	return second, now
}

func TestNothingListens(t *testing.T) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	at := netsock.AddrPort(l.Addr())
	l.Close()
	client := open(t, Config{})
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: &Settings{Path: "/", Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		t.Log(client.down("server"))
	}
}

// A server that does not answer does not keep a client from being closed.
func TestCloseWhileConnecting(t *testing.T) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(loopback)) // accepts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := open(t, Config{})
	settings := &Settings{Path: "/", Secret: []byte(secret), Over: TCP}
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: netsock.AddrPort(l.Addr()), Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client.close() // otherwise this would wait for tcpWait
}

// When HTTP/3 does not pass, or its connections do not last, the time until it is tried again
// is doubled. A connection that lasted resets it.
func TestAttempts(t *testing.T) {
	tm := testTimes
	tm.firstBetter = 10 * time.Second
	a := &attempts{peer: &peer{settings: &Settings{}, port: &Port{times: tm}}}
	short := func(over Over, why error) *conn { return &conn{over: over, since: time.Now(), why: why} }
	long := func(over Over, why error) *conn {
		return &conn{over: over, since: time.Now().Add(-longEnough), why: why}
	}
	silent := fmt.Errorf("%w for long", errSilent)
	for i, c := range []struct {
		do   func()
		want time.Duration
	}{
		{func() { a.worse(lastBetter) }, 10 * time.Second},
		{func() { a.worse(lastBetter) }, 20 * time.Second},
		{func() { a.worse(lastBetter) }, 40 * time.Second},
		{func() { a.worse(lastBetter) }, lastBetter},
		{func() { a.ended(long(TCP, silent)) }, lastBetter},
		{func() { a.ended(short(UDP, errClosedByPeer)) }, lastBetter},
		{func() { a.ended(short(UDP, silent)) }, 2 * lastBetter},
		{func() { a.worse(max(a.wait, lastBetter)) }, 2 * lastBetter},
		{func() { a.ended(long(UDP, &quic.IdleTimeoutError{})) }, 10 * time.Second},
		{func() { a.ended(long(UDP, errClosedByPeer)) }, 0},
	} {
		if c.do(); a.wait != c.want {
			t.Errorf("after step %d the wait is %v, want %v", i, a.wait, c.want)
		}
	}
}
