package jsontun

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
	"sixfour/transport/access"
)

// The main thread is for the main goroutine: its namespace is the process's.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// Times that are short, so that tests need not wait.
var (
	testServerTimes = serverTimes{dialogue: time.Hour, drain: time.Hour, packet: time.Hour, decision: time.Hour, tick: 10 * time.Millisecond, heard: 1 << 40}
	testPortTimes   = portTimes{connect: time.Hour, answer: time.Hour, firstPause: 10 * time.Millisecond, lastPause: 40 * time.Millisecond, longEnough: time.Hour}
)

// until waits until a condition holds.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// broker is an access.Authority with accounts and leases in memory. An unknown name that begins
// with "open" gets a lease, too.
type broker struct {
	mu       sync.Mutex
	secrets  map[string]string
	prefixes map[string]netip.Prefix
	bits     int // of new prefixes
	left     int // how many
	attached map[string]*attached
	refused  []*access.Refusal
	accounts []string // of refused
	deny     bool     // Allow returns false
	hold     chan struct{}
	ended    *access.Refusal // Attach ends the new client at once
	count    int
}

func newBroker() *broker {
	return &broker{
		secrets: map[string]string{"laptop": "open sesame"}, prefixes: make(map[string]netip.Prefix), bits: 64, left: 1 << 20,
		attached: make(map[string]*attached),
	}
}

func (b *broker) Named(name string) (access.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	secret, ok := b.secrets[name]
	if !ok && (len(name) < 4 || name[:4] != "open") && name != "00:11:22:aa:bb:cc" {
		return access.Account{}, access.Refuse(access.UnknownAccount, "there is no account with this name")
	}
	return access.Account{Name: name, Secret: secret}, nil
}

func (b *broker) At(netip.Addr) (access.Account, error) { panic("not used") }

func (b *broker) Attach(ctx context.Context, a access.Account, c access.Attachment) (access.Client, error) {
	b.mu.Lock()
	hold := b.hold
	b.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, fmt.Errorf("the store: %w", ctx.Err())
		}
	}
	b.mu.Lock()
	p, ok := b.prefixes[a.Name]
	if !ok {
		if b.left == 0 {
			b.mu.Unlock()
			return nil, access.Refuse(access.NoPrefix, "the pool 2001:db8:77::/48 is used up")
		}
		b.left--
		b.count++
		addr := netip.MustParseAddr("2001:db8:77::").As16()
		binary.BigEndian.PutUint16(addr[6:], uint16((4+b.count)<<(64-b.bits)))
		p = netip.PrefixFrom(netip.AddrFrom16(addr), b.bits)
		b.prefixes[a.Name] = p
	}
	now := &attached{broker: b, name: a.Name, attachment: c, lease: access.Lease{Account: a.Name, Prefix: p, MTU: 1280}}
	former := b.attached[a.Name]
	b.attached[a.Name] = now
	ended := b.ended
	b.mu.Unlock()
	if former != nil {
		former.end(access.Refuse(access.Elsewhere, "the account has come back by another connection"))
	}
	if ended != nil {
		now.end(ended)
	}
	return now, nil
}

func (b *broker) Refuse(_ string, _ netip.AddrPort, account string, why *access.Refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused, b.accounts = append(b.refused, why), append(b.accounts, account)
}

func (b *broker) Allow(netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.deny
}

// refusals returns the reasons of all refusals so far.
func (b *broker) refusals() (all []access.Reason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.refused {
		all = append(all, r.Reason)
	}
	return all
}

// of returns the client of an account; nil: it is not attached.
func (b *broker) of(name string) *attached {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attached[name]
}

// attached is a client of a broker.
type attached struct {
	broker     *broker
	name       string
	attachment access.Attachment
	lease      access.Lease

	mu       sync.Mutex
	received [][]byte
	heard    int
	over     bool // ended
	left     string
	after    int // calls after the end
}

func (a *attached) Lease() access.Lease { return a.lease }

func (a *attached) Receive(packet []byte) drop.Reason {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left != "" {
		a.after++
	}
	a.received = append(a.received, slices.Clone(packet))
	return drop.None
}

func (a *attached) Heard(_, _ netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard++
}

func (a *attached) Leave(why string) {
	a.mu.Lock()
	if a.left != "" || a.over {
		a.after++
	}
	a.left = why
	a.mu.Unlock()
	a.broker.mu.Lock()
	defer a.broker.mu.Unlock()
	if a.broker.attached[a.name] == a {
		delete(a.broker.attached, a.name)
	}
}

func (a *attached) end(why *access.Refusal) {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.attachment.Link.End(why)
}

func (a *attached) packets() [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.received)
}

func (a *attached) why() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}

// inner returns an IPv6 packet of a length, with a number in its payload.
func inner(length, number int) []byte {
	b := make([]byte, length)
	b[0], b[6], b[7] = 0x60, 59, 64
	binary.BigEndian.PutUint16(b[4:], uint16(length-header.IPv6Len))
	if length >= header.IPv6Len+4 {
		binary.BigEndian.PutUint32(b[header.IPv6Len:], uint32(number))
	}
	return b
}

func number(packet []byte) int { return int(binary.BigEndian.Uint32(packet[header.IPv6Len:])) }

// serve opens a server.
func serve(t testing.TB, b *broker, change func(*ServerConfig, *serverTimes)) *Server {
	t.Helper()
	c, times := ServerConfig{Authority: b, Local: loopback}, testServerTimes
	if change != nil {
		change(&c, &times)
	}
	s, err := newServer(c, transport.Options{}, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := s.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if n := s.waiting.Load(); n != 0 {
			t.Errorf("%d bytes wait", n)
		}
	})
	return s
}

// dial connects to a server.
func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Local().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// secured returns the configurations of TLS of a server and of its clients.
func secured(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	c, err := rig.NewCertificate("gw.example")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, &tls.Config{RootCAs: roots, ServerName: "gw.example"}
}
