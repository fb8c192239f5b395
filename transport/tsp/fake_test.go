package tsp_test

import (
	"context"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sixfour/encap/drop"
	"sixfour/transport/access"
)

// The main thread is for the main goroutine: its namespace is the process's.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is a broker of a test. Account number n has 2001:db8:ff:n::/64 between the ends, and
// the prefix 2001:db8:100:n00::/56.
type authority struct {
	mu       sync.Mutex
	accounts map[string]access.Account
	clients  map[string]*attached
	refusals []access.Reason
	asked    []string // names
	bits     int      // of the last client
	limit    int      // how many more attempts are allowed; negative: all
	fails    error    // of Attach
	waits    chan struct{}
	news     chan *attached
	left     chan string
}

func newAuthority() *authority {
	return &authority{accounts: map[string]access.Account{}, clients: map[string]*attached{}, limit: -1, news: make(chan *attached, 1000), left: make(chan string, 1000)}
}

// add adds an account.
func (a *authority) add(name, secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := uint64(len(a.accounts) + 1)
	e := access.Endpoint{Broker: number("2001:db8:ff::1", 7, byte(n)), Client: number("2001:db8:ff::2", 7, byte(n))}
	a.accounts[name] = access.Account{Name: name, Secret: secret, Number: n, Endpoint: e, MTU: 1280}
}

// number returns an address with a byte replaced.
func number(s string, at int, b byte) netip.Addr {
	a := netip.MustParseAddr(s).As16()
	a[at] = b
	return netip.AddrFrom16(a)
}

func (a *authority) Named(name string) (access.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, name)
	if acc, ok := a.accounts[name]; ok {
		return acc, nil
	}
	return access.Account{}, access.Refuse(access.UnknownAccount, "there is no account %q", name)
}

func (a *authority) At(netip.Addr) (access.Account, error) {
	return access.Account{}, access.Refuse(access.UnknownAccount, "not asked for")
}

func (a *authority) Attach(_ context.Context, acc access.Account, c access.Attachment) (access.Client, error) {
	if a.waits != nil {
		<-a.waits
	}
	a.mu.Lock()
	a.bits = c.Bits
	if a.fails != nil {
		defer a.mu.Unlock()
		return nil, a.fails
	}
	before := a.clients[acc.Name]
	n := &attached{authority: a, account: acc, attachment: c, got: make(chan []byte, 1000), heard: make(chan netip.AddrPort, 1000)}
	a.clients[acc.Name] = n
	a.mu.Unlock()
	if before != nil {
		before.attachment.Link.End(access.Refuse(access.Elsewhere, "came back"))
	}
	a.news <- n
	return n, nil
}

func (a *authority) Refuse(_ string, _ netip.AddrPort, _ string, why *access.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusals = append(a.refusals, why.Reason)
}

func (a *authority) refused() []access.Reason {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]access.Reason(nil), a.refusals...)
}

func (a *authority) Allow(netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.limit > 0 {
		a.limit--
	}
	return a.limit != 0
}

// next returns the next client that is attached.
func (a *authority) next(t testing.TB) *attached {
	t.Helper()
	select {
	case c := <-a.news:
		return c
	case <-time.After(soon):
		t.Fatal("no client is attached")
		return nil
	}
}

// attached is a client of the authority.
type attached struct {
	authority  *authority
	account    access.Account
	attachment access.Attachment
	got        chan []byte
	heard      chan netip.AddrPort
	discard    atomic.Bool
}

func (c *attached) Lease() access.Lease {
	p, _ := number("2001:db8:100::", 6, byte(c.account.Number)).Prefix(56)
	return access.Lease{Account: c.account.Name, Prefix: p, Endpoint: c.account.Endpoint, MTU: c.account.MTU}
}

func (c *attached) Receive(packet []byte) drop.Reason {
	if !c.discard.Load() {
		c.got <- append([]byte(nil), packet...)
	}
	return drop.None
}

func (c *attached) Heard(from, _ netip.AddrPort) {
	select {
	case c.heard <- from:
	default:
	}
}
func (c *attached) Leave(why string) {
	c.authority.mu.Lock()
	if c.authority.clients[c.account.Name] == c {
		delete(c.authority.clients, c.account.Name)
	}
	c.authority.mu.Unlock()
	if !c.discard.Load() {
		c.authority.left <- why
	}
}
