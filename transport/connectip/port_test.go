package connectip

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	defaultPath = "/.well-known/masque/ip/*/*/"
	secret      = "0123456789abcdef"
	name        = "gw.example"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// testTimes are short, so that tests need not wait.
var testTimes = times{
	handshake: 2 * time.Second, udpWait: 500 * time.Millisecond, tcpWait: time.Hour,
	firstPause: 20 * time.Millisecond, firstBetter: 50 * time.Millisecond, silence: time.Second, drain: 200 * time.Millisecond,
}

// authority signs certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// certificate returns one for a name or an address, which is valid until a time.
func (a *authority) certificate(name string, until time.Time) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.t.Helper()
	c := a.make(name, until)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, nil }
}

func (a *authority) make(name string, until time.Time) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// event is a call of Connected or Refused.
type event struct {
	id  any
	at  netip.AddrPort
	why error
}

// end is a port whose events and packets a test waits for.
type end struct {
	*Port
	t        testing.TB
	events   chan event
	refusals chan event
	packets  chan []byte
	sender   transport.Sender
	received sync.WaitGroup
}

func open(t testing.TB, c Config) *end {
	t.Helper()
	return openWith(t, c, testTimes)
}

func openWith(t testing.TB, c Config, of times) *end {
	t.Helper()
	e := &end{t: t, events: make(chan event, 1000), refusals: make(chan event, 10000), packets: make(chan []byte, 10000)}
	c.Connected = func(id any, at netip.AddrPort, why error) { e.events <- event{id, at, why} }
	c.Refused = func(from netip.AddrPort, why error) {
		select {
		case e.refusals <- event{nil, from, why}:
		default:
		}
	}
	if !c.Local.IsValid() {
		c.Local = loopback
	}
	var err error
	if e.Port, err = listen(c, transport.Options{}, of); err != nil {
		t.Fatal(err)
	}
	if e.sender, err = e.Sender(transport.Options{}); err != nil {
		t.Fatal(err)
	}
	e.received.Go(e.receive)
	t.Cleanup(e.close)
	return e
}

func (e *end) close() {
	if err := e.Port.Close(); err != nil {
		e.t.Error(err)
	}
	e.received.Wait()
}

func (e *end) receive() {
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := e.Receive(bufs, meta)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				e.t.Error(err)
			}
			return
		}
		for i := range n {
			select {
			case e.packets <- bytes.Clone(bufs[i][:meta[i].Size]):
			default:
			}
		}
	}
}

func wait[T any](t testing.TB, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come", what)
	}
	return v
}

// up waits until a peer is connected.
func (e *end) up(id any) netip.AddrPort {
	e.t.Helper()
	for {
		switch v := wait(e.t, e.events, fmt.Sprintf("the connection with %v", id)); {
		case v.id != id:
			e.t.Fatalf("an event of %v: %v", v.id, v.why)
		case v.why == nil:
			return v.at
		default:
			e.t.Logf("%v: %v", id, v.why)
		}
	}
}

// down waits until a peer is not connected, and returns the reason.
func (e *end) down(id any) error {
	e.t.Helper()
	v := wait(e.t, e.events, fmt.Sprintf("the end of the connection with %v", id))
	if v.id != id || v.why == nil {
		e.t.Fatalf("%v is connected from %v", v.id, v.at)
	}
	return v.why
}

// inner returns an IPv6 packet with a length and a number.
func inner(size, number int) []byte {
	b := make([]byte, size)
	b[0], b[6], b[7] = 0x60, 59, 64
	b[4], b[5] = byte((size-40)>>8), byte(size-40)
	copy(b[8:], netip.MustParseAddr("2001:db8:a::1").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8:b::1").AsSlice())
	for i := 40; i < size; i++ {
		b[i] = byte(i * (number + 1))
	}
	return b
}

// to returns a packet for the sender of a port.
func to(at, from netip.AddrPort, payload []byte) []byte {
	b := make([]byte, header.HeadersLen(at.Addr())+len(payload))
	copy(b[len(b)-len(payload):], payload)
	header.PutHeaders(b, &header.Outer{From: from, At: at})
	return b
}

// exchange sends a packet through a port and waits for it at another one, which gets it from
// an address.
func exchange(a *end, at netip.AddrPort, b *end, from netip.AddrPort, payload []byte) {
	a.t.Helper()
	if err := a.sender.SendOne(to(at, a.Local(), payload)); err != nil {
		a.t.Fatal(err)
	}
	got := wait(a.t, b.packets, fmt.Sprintf("the packet of %d bytes", len(payload)))
	ip := header.IPv4(got)
	source, dest := header.Ports(got[header.IPv4Len:])
	if ip.Src() != from.Addr() || source != from.Port() || ip.Dst() != b.Local().Addr() || dest != b.Local().Port() {
		a.t.Errorf("the packet is from %v, port %d, to %v, port %d; want from %v to %v", ip.Src(), source, ip.Dst(), dest, from, b.Local())
	}
	if !bytes.Equal(got[header.IPv4Len+header.UDPLen:], payload) {
		a.t.Errorf("the packet has changed")
	}
}

// pair is a server with one peer, and a client of it.
type pair struct {
	server, client *end
	a              *authority
	from           netip.AddrPort // the client's address at the server
}

// newPair connects a client to a server.
func newPair(t testing.TB, over Over, changes ...func(c *Config, s, client *Settings)) *pair {
	t.Helper()
	return newPairWith(t, over, testTimes, changes...)
}

// newPairWith is newPair with other times at the server.
func newPairWith(t testing.TB, over Over, of times, changes ...func(c *Config, s, client *Settings)) *pair {
	t.Helper()
	a := newAuthority(t)
	c := Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))}
	s := &Settings{Path: defaultPath, Secret: []byte(secret)}
	cs := &Settings{Path: defaultPath, Secret: []byte(secret), ServerName: name, Roots: a.pool(), Over: over}
	for _, change := range changes {
		change(&c, s, cs)
	}
	p := &pair{a: a, server: openWith(t, c, of)}
	if err := p.server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: s}}); err != nil {
		t.Fatal(err)
	}
	p.client = open(t, Config{Local: netip.MustParseAddrPort("127.0.0.1:7")})
	if err := p.client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: p.server.Local(), Settings: cs}}); err != nil {
		t.Fatal(err)
	}
	if at := p.client.up("server"); at != p.server.Local() {
		t.Fatalf("the server is at %v", at)
	}
	p.from = p.server.up("client")
	return p
}

func TestBothWays(t *testing.T) {
	for _, over := range []Over{UDP, TCP, Auto} {
		t.Run(string(over), func(t *testing.T) {
			p := newPair(t, over)
			want := over
			if over == Auto {
				want = UDP
			}
			if s, ok := p.client.State("server"); !ok || s.Over != want || s.At != p.server.Local() {
				t.Errorf("the state is %+v, %v", s, ok)
			}
			for _, size := range []int{40, 64, 1280} {
				exchange(p.client, p.server.Local(), p.server, p.from, inner(size, 1))
				exchange(p.server, p.from, p.client, p.server.Local(), inner(size, 2))
			}
			err := p.client.sender.SendOne(to(p.server.Local(), p.client.Local(), inner(1500, 3)))
			if want == TCP {
				if err != nil {
					t.Fatal(err)
				}
				if got := wait(t, p.server.packets, "the packet of 1500 bytes"); len(got) != 1528 {
					t.Errorf("the packet has %d bytes", len(got))
				}
				exchange(p.server, p.from, p.client, p.server.Local(), inner(65400, 4))
				return
			}
			var e *TooLargeError
			if !errors.Is(err, unix.EMSGSIZE) || !errors.As(err, &e) || e.Size != 1500 || e.MTU < 1280 || e.MTU > 1452 {
				t.Errorf("a packet of 1500 bytes: %v", err)
			}
		})
	}
}

func TestSendErrors(t *testing.T) {
	p := newPair(t, TCP)
	good := to(p.server.Local(), p.client.Local(), inner(100, 0))
	n, err := p.client.sender.Send([]transport.Packet{
		{Head: good[:28], Body: good[28:]}, {Head: good}, {Head: to(p.client.Local(), p.client.Local(), nil)}, {Head: good},
	})
	if n != 2 || !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("%d packets, %v", n, err)
	}
	for range 2 {
		if got := wait(t, p.server.packets, "a packet"); !bytes.Equal(got[28:], good[28:]) {
			t.Error("the packet has changed")
		}
	}
	for _, c := range []struct {
		name string
		at   int
		to   byte
	}{{"options", 0, 0x46}, {"a fragment", 7, 1}, {"more fragments", 6, 0x20}, {"TCP", 9, 6}, {"IPv6", 0, 0x60}} {
		b := bytes.Clone(good)
		b[c.at] = c.to
		if err := p.client.sender.SendOne(b); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := p.client.sender.SendOne(good[:27]); !errors.Is(err, unix.EINVAL) {
		t.Errorf("half a header: %v", err)
	}
	if err := p.client.sender.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.client.sender.SendOne(good); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := p.client.Sender(transport.Options{Mark: 5}); err == nil {
		t.Error("a sender with another mark")
	}
}

// Both ends are told when a connection ends, and the client connects again.
func TestReconnect(t *testing.T) {
	for _, over := range []Over{UDP, TCP} {
		t.Run(string(over), func(t *testing.T) {
			p := newPair(t, over)
			settings := p.server.peers["client"].Settings
			if err := p.server.SetPeers(nil); err != nil {
				t.Fatal(err)
			}
			t.Log(p.client.down("server"))
			if err := p.client.sender.SendOne(to(p.server.Local(), p.client.Local(), inner(100, 0))); !errors.Is(err, unix.ENOTCONN) {
				t.Errorf("without a connection: %v", err)
			}
			if err := p.client.down("server"); !strings.Contains(err.Error(), "404") { // no peer has this path
				t.Error(err)
			}
			if err := p.server.SetPeers([]transport.SessionPeer{{ID: "other", Settings: settings}}); err != nil {
				t.Fatal(err)
			}
			p.client.up("server")
			exchange(p.client, p.server.Local(), p.server, p.server.up("other"), inner(100, 0))
		})
	}
}

// Peers that stay keep their connections.
func TestSetPeersKeeps(t *testing.T) {
	p := newPair(t, TCP)
	before, _ := p.server.State("client")
	same := p.server.peers["client"].SessionPeer
	if err := p.server.SetPeers([]transport.SessionPeer{same, {ID: "more", Settings: &Settings{Path: defaultPath, Secret: []byte("another")}}}); err != nil {
		t.Fatal(err)
	}
	exchange(p.client, p.server.Local(), p.server, p.from, inner(100, 0))
	if after, ok := p.server.State("client"); !ok || after.Since != before.Since {
		t.Error("the connection is another one")
	}
	if len(p.server.events) != 0 {
		t.Error("there is an event")
	}
}

// Several peers at one port have paths and secrets of their own.
func TestSeveralPeers(t *testing.T) {
	a := newAuthority(t)
	server := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	keys := []*Settings{
		{Path: defaultPath, Secret: []byte("secret-of-a-0000")}, {Path: defaultPath, Secret: []byte("secret-of-b-0000")},
		{Path: "/vpn?t=*&i=*", Secret: []byte("secret-of-a-0000")},
	}
	var peers []transport.SessionPeer
	for i, s := range keys {
		peers = append(peers, transport.SessionPeer{ID: i, Settings: s})
	}
	if err := server.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	for i, s := range keys {
		for _, over := range []Over{UDP, TCP} {
			client := open(t, Config{})
			settings := *s
			settings.ServerName, settings.Roots, settings.Over = name, a.pool(), over
			settings.Path = strings.ReplaceAll(settings.Path, "*", "%2A")
			if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: server.Local(), Settings: &settings}}); err != nil {
				t.Fatal(err)
			}
			client.up("server")
			from := server.up(i)
			exchange(server, from, client, server.Local(), inner(100, i))
			exchange(client, server.Local(), server, from, inner(100, i))
			client.close()
			server.down(i)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	p := newPair(t, UDP)
	for range 2 {
		if err := p.server.Port.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.server.SetPeers(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := p.server.Sender(transport.Options{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
