package ayiya

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
)

const password = "f3d47c2de40fb698e1ab15d757a09bfc"

// patience is how long tests wait for what must happen.
const patience = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// endpoint returns the ends of the tunnel of client n.
func endpoint(n int) access.Endpoint {
	a := netip.MustParseAddr("2001:db8:ff::").As16()
	binary.BigEndian.PutUint32(a[4:], uint32(n)) // 2001:db8:hi:lo::
	var e access.Endpoint
	a[15] = 1
	e.Broker = netip.AddrFrom16(a)
	a[15] = 2
	e.Client = netip.AddrFrom16(a)
	return e
}

// broker is an Authority for tests. Client n has the account "n" and the usual password.
type broker struct {
	mu       sync.Mutex
	accounts map[netip.Addr]access.Account
	clients  map[string]*attached // by account
	refused  []access.Reason
	quiet    bool // keeps no packets and no refusals

	attach func(access.Account) error // nil: no error
	allow  func(netip.Addr) bool      // nil: always
}

func newBroker(clients int) *broker {
	b := &broker{accounts: map[netip.Addr]access.Account{}, clients: map[string]*attached{}}
	for n := range clients {
		e := endpoint(n)
		b.accounts[e.Client] = access.Account{Name: fmt.Sprint(n), Secret: password, Endpoint: e, MTU: 1280}
	}
	return b
}

func (b *broker) Named(string) (access.Account, error) {
	return access.Account{}, errors.New("not by name")
}

func (b *broker) At(a netip.Addr) (access.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	account, ok := b.accounts[a]
	if !ok {
		return access.Account{}, access.Refuse(access.UnknownAccount, "no account")
	}
	return account, nil
}

func (b *broker) Attach(_ context.Context, account access.Account, c access.Attachment) (access.Client, error) {
	if b.attach != nil {
		if err := b.attach(account); err != nil {
			return nil, err
		}
	}
	a := &attached{Attachment: c, broker: b, account: account}
	if !b.quiet {
		a.packets = make(chan []byte, 1000)
	}
	a.place.Store(&place{c.From, c.At})
	b.mu.Lock()
	old := b.clients[account.Name]
	b.clients[account.Name] = a
	b.mu.Unlock()
	if old != nil {
		old.Link.End(access.Refuse(access.Elsewhere, "came back"))
	}
	return a, nil
}

func (b *broker) Refuse(protocol string, from netip.AddrPort, account string, why *access.Refusal) {
	if b.quiet {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = append(b.refused, why.Reason)
}

func (b *broker) Allow(a netip.Addr) bool { return b.allow == nil || b.allow(a) }

// client returns a client that is attached, or nil.
func (b *broker) client(account string) *attached {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clients[account]
}

// reasons returns why clients were refused, and forgets it.
func (b *broker) reasons() []access.Reason {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.refused
	b.refused = nil
	return r
}

// attached is a client of a broker.
type attached struct {
	access.Attachment
	broker  *broker
	account access.Account
	packets chan []byte
	place   atomic.Pointer[place]
	heard   atomic.Int64
	left    atomic.Pointer[string]
}

func (a *attached) Lease() access.Lease { return access.Lease{Account: a.account.Name} }

func (a *attached) Receive(packet []byte) drop.Reason {
	if a.broker.quiet {
		return drop.None
	}
	select {
	case a.packets <- slices.Clone(packet):
	default:
	}
	return drop.None
}

func (a *attached) Heard(from, at netip.AddrPort) {
	a.heard.Add(1)
	a.place.Store(&place{from, at})
}

func (a *attached) Leave(why string) {
	a.left.Store(&why)
	a.broker.mu.Lock()
	defer a.broker.mu.Unlock()
	if a.broker.clients[a.account.Name] == a {
		delete(a.broker.clients, a.account.Name)
	}
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

// serve opens a server on the loopback device.
func serve(t testing.TB, c ServerConfig) *Server {
	t.Helper()
	if !c.Local.IsValid() {
		c.Local = netip.MustParseAddrPort("127.0.0.1:0")
	}
	if c.reports == 0 {
		c.reports = time.Nanosecond
	}
	s, err := NewServer(c, transport.Options{})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// foreign is a client that sends what a test says.
type foreign struct {
	t      testing.TB
	conn   *net.UDPConn
	server netip.AddrPort
	id     netip.Addr
	key    ayiya.Key
	epoch  uint32 // 0: now
}

func newForeign(t testing.TB, s *Server, n int) *foreign {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: s.Local().Addr().AsSlice()})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return &foreign{t: t, conn: c, server: s.Local(), id: endpoint(n).Client, key: ayiya.NewKey(ayiya.SHA1, password)}
}

func (f *foreign) at() netip.AddrPort { return f.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// packet returns a signed packet.
func (f *foreign) packet(op ayiya.OpCode, next byte, payload []byte) []byte {
	epoch := f.epoch
	if epoch == 0 {
		epoch = ayiya.Epoch(time.Now())
	}
	b := append(make([]byte, f.key.Hash().HeaderLen()), payload...)
	ayiya.Sign(b, &ayiya.Header{Op: op, Next: next, Epoch: epoch, Identity: ayiya.Identity(f.id)}, &f.key)
	return b
}

func (f *foreign) send(b []byte) {
	f.t.Helper()
	if _, err := f.conn.WriteToUDPAddrPort(b, f.server); err != nil {
		f.t.Fatal(err)
	}
}

// receive returns the next message of the server.
func (f *foreign) receive() ayiya.Message {
	f.t.Helper()
	b := make([]byte, 65536)
	must(f.t, f.conn.SetReadDeadline(time.Now().Add(patience)))
	n, _, err := f.conn.ReadFromUDPAddrPort(b)
	must(f.t, err)
	m, err := ayiya.Parse(b[:n])
	must(f.t, err)
	if !m.Verify(&f.key) {
		f.t.Fatal("the server's signature is wrong")
	}
	return m
}

// silent fails if the server sends anything.
func (f *foreign) silent(what string) {
	f.t.Helper()
	must(f.t, f.conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if n, _, err := f.conn.ReadFromUDPAddrPort(make([]byte, 65536)); err == nil {
		f.t.Errorf("%s: the server has sent %d bytes", what, n)
	}
}

// echo makes sure that the server has dealt with all that was sent before.
func (f *foreign) echo() {
	f.t.Helper()
	text := fmt.Append(nil, time.Now().UnixNano())
	f.send(f.packet(ayiya.EchoRequest, ayiya.NextNone, text))
	for {
		m := f.receive()
		if m.Op == ayiya.EchoResponse && string(m.Payload) == string(text) {
			return
		}
	}
}

// arrive makes the broker attach the client.
func (f *foreign) arrive(b *broker, account string) *attached {
	f.t.Helper()
	f.send(f.packet(ayiya.EchoRequest, ayiya.NextNone, fmt.Append(nil, time.Now().UnixNano())))
	eventually(f.t, "the attachment of client "+account, func() bool { a := b.client(account); return a != nil && a.From == f.at() })
	f.echo()
	return b.client(account)
}

// inner returns an inner packet of a client, whose payload is text.
func inner(from, to netip.Addr, text string) []byte {
	b := make([]byte, header.IPv6Len+len(text))
	b[0], b[6], b[7] = 0x60, 59, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(text)))
	copy(header.IPv6(b).Source(), from.AsSlice())
	copy(header.IPv6(b).Dest(), to.AsSlice())
	copy(b[header.IPv6Len:], text)
	return b
}

var internet = netip.MustParseAddr("2001:db8:1::1")
