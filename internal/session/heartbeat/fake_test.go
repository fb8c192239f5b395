package heartbeat

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sixfour/encap/drop"
	"sixfour/transport/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is an Authority with accounts by their ends of tunnels.
type authority struct {
	mu       sync.Mutex
	accounts map[netip.Addr]access.Account
	failure  error                    // of Attach
	hold     chan struct{}            // Attach waits for it; nil: it does not
	limited  bool                     // Allow refuses
	clients  []*client                // that were attached
	attached chan *client             // each of them
	refused  []access.Reason          // in order
	refusals chan access.Reason       // each of them
	named    map[access.Reason]string // the account of the last refusal for a reason
}

func newAuthority() *authority {
	return &authority{accounts: make(map[netip.Addr]access.Account), attached: make(chan *client, 1000), refusals: make(chan access.Reason, 1000), named: make(map[access.Reason]string)}
}

// add adds an account, whose tunnel is a /64 with our end ::1.
func (a *authority) add(name, secret, inner string) access.Account {
	end := netip.MustParseAddr(inner)
	account := access.Account{Name: name, Secret: secret, Type: "heartbeat", Endpoint: access.Endpoint{Client: end}, MTU: 1480}
	a.accounts[end] = account
	return account
}

func (a *authority) Named(name string) (access.Account, error) {
	return access.Account{}, access.Refuse(access.UnknownAccount, "no account %s", name)
}

func (a *authority) At(end netip.Addr) (access.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if account, ok := a.accounts[end]; ok {
		return account, nil
	}
	return access.Account{}, access.Refuse(access.UnknownAccount, "no account has %v", end)
}

func (a *authority) Attach(ctx context.Context, account access.Account, c access.Attachment) (access.Client, error) {
	if a.hold != nil {
		select {
		case <-a.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return nil, a.failure
	}
	l := &client{attachment: c, lease: access.Lease{Account: account.Name, Endpoint: account.Endpoint, Prefix: netip.PrefixFrom(account.Endpoint.Client, 64).Masked()}, heard: make(chan netip.AddrPort, 1000), left: make(chan string, 10)}
	a.clients = append(a.clients, l)
	a.attached <- l
	return l, nil
}

func (a *authority) Refuse(p string, from netip.AddrPort, account string, why *access.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p != protocol || !from.IsValid() || why.Text == "" {
		panic("a refusal without a protocol, a source or a text")
	}
	a.refused = append(a.refused, why.Reason)
	a.named[why.Reason] = account
	a.refusals <- why.Reason
}

func (a *authority) Allow(netip.Addr) bool { return !a.limited }

// client is a client that is attached.
type client struct {
	attachment access.Attachment
	lease      access.Lease
	heard      chan netip.AddrPort
	left       chan string

	mu      sync.Mutex
	packets int
}

func (c *client) Lease() access.Lease { return c.lease }

func (c *client) Receive(packet []byte) drop.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets++
	return drop.None
}

func (c *client) Heard(from, at netip.AddrPort) { c.heard <- from }
func (c *client) Leave(why string)              { c.left <- why }

// next returns the next value of a channel.
func next[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited too long: %s", what)
	}
	return v
}

// none reports an error if a channel has a value.
func none[T any](t *testing.T, from <-chan T, what string) {
	t.Helper()
	select {
	case v := <-from:
		t.Errorf("%s: %v", what, v)
	default:
	}
}
