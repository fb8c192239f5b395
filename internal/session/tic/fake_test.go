package tic

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	wire "sixfour/encap/tic"
	"sixfour/internal/rig"
	"sixfour/transport/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "tic.example"

// authority is an Authority with accounts by their names.
type authority struct {
	mu       sync.Mutex
	accounts map[string]access.Account
	failure  error // of Named
	refused  []access.Reason
	denied   atomic.Bool // Allow refuses
	allowed  atomic.Int64
}

func (a *authority) Named(name string) (access.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return access.Account{}, a.failure
	}
	if account, ok := a.accounts[name]; ok {
		return account, nil
	}
	return access.Account{}, access.Refuse(access.UnknownAccount, "no account %s", name)
}

func (a *authority) At(netip.Addr) (access.Account, error) { panic("not for TIC") }

func (a *authority) Attach(context.Context, access.Account, access.Attachment) (access.Client, error) {
	panic("not for TIC")
}

func (a *authority) Refuse(p string, from netip.AddrPort, account string, why *access.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p != protocol || !from.IsValid() || why.Text == "" || strings.Contains(why.Text, "secret") {
		panic(fmt.Sprintf("refused %q %v %q", p, from, why.Text))
	}
	a.refused = append(a.refused, why.Reason)
}

func (a *authority) Allow(netip.Addr) bool {
	a.allowed.Add(1)
	return !a.denied.Load()
}

// reasons returns, and forgets, why clients were refused.
func (a *authority) reasons() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.refused = nil }()
	return fmt.Sprint(a.refused)
}

// account returns the account of the recorded dialogue, with one secret for everything.
func account() access.Account {
	return access.Account{Name: "ABC1-SIXXS", Secret: "secret", Number: 5072, Type: "ayiya", MTU: 1280,
		Endpoint: access.Endpoint{Broker: netip.MustParseAddr("2001:db8:2ff:1::1"), Client: netip.MustParseAddr("2001:db8:2ff:1::2")}}
}

// bench is a Server with one account.
type bench struct {
	*Server
	authority *authority
}

func newBench(t *testing.T, change func(*Config)) bench {
	t.Helper()
	a := &authority{accounts: map[string]access.Account{"ABC1-SIXXS": account()}}
	c := Config{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0"), Plain: true, Name: "fake.example", Now: func() time.Time { return time.Unix(1796032883, 0) },
		POP: wire.POP{ID: "chtst01", City: "Testville", IPv4: netip.MustParseAddr("198.51.100.2")}}
	if change != nil {
		change(&c)
	}
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return bench{s, a}
}

// caller is a client that sends what a test wants.
type caller struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
}

func (b bench) call(t *testing.T) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &caller{conn, t, bufio.NewReader(conn)}
}

// line returns the next line; "": the connection has ended.
func (c *caller) line() string {
	c.t.Helper()
	l, err := c.lines.ReadString('\n')
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("waited too long for a line")
	}
	return strings.TrimSuffix(l, "\n")
}

// expect reads lines.
func (c *caller) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.line(); got != w && (!strings.HasSuffix(w, "*") || !strings.HasPrefix(got, strings.TrimSuffix(w, "*"))) {
			c.t.Errorf("the server says %q, want %q", got, w)
		}
	}
}

// say sends a line, and reads the answer.
func (c *caller) say(line string, want ...string) {
	c.t.Helper()
	fmt.Fprintf(c, "%s\n", line)
	c.expect(want...)
}

const (
	greeting = "200 SixXS TIC Service on fake.example ready *"
	choose   = "200 Choose your authentication challenge please"
)

// logIn logs in with md5.
func (c *caller) logIn() {
	c.t.Helper()
	c.expect(greeting)
	c.say("username ABC1-SIXXS", choose)
	c.say("authenticate md5 "+wire.MD5.Answer(c.challenge("md5"), "secret"), "200 Successfully logged in using md5 as ABC1-SIXXS from 127.0.0.1")
}

// challenge returns the challenge of a method.
func (c *caller) challenge(method string) string {
	c.t.Helper()
	fmt.Fprintf(c, "challenge %s\n", method)
	l := c.line()
	text, ok := strings.CutPrefix(l, "200 ")
	if !ok || len(text) != 32 {
		c.t.Fatalf("challenge %s: %q", method, l)
	}
	return text
}

// certificate returns what a server and a client need for TLS.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	c, err := rig.NewCertificate(host)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CA)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, pool
}
