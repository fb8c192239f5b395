// Package broker decides about the clients of a broker: who they are, what they are given, and
// how many of their attempts are served. It runs the servers of their protocols, and puts the
// prefixes of those that are attached into the kernel's routing table.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/events"
	"sixfour/internal/leases"
	"sixfour/internal/text"
	"sixfour/transport/access"
)

// Base has accounts and leases: a *leases.Base, which says what its methods do.
type Base interface {
	Account(name string) (leases.Account, bool)
	At(endpoint netip.Addr) (leases.Account, bool)
	Endpoint(number uint64) access.Endpoint
	Lease(name string) (leases.Lease, bool)
	Assign(ctx context.Context, name string, bits int) (leases.Lease, error)
	Hold(name, protocol string, outer netip.AddrPort)
	Move(name string, outer netip.AddrPort)
	Release(name string)
	Sizes() (accounts, leases int, free uint64)
}

// Router has the routes of attached clients.
type Router interface {
	// Add and Remove never wait. A route that is removed and added again stays.
	Add(Route)
	Remove(Route)
}

// Route is what is routed to a client.
type Route struct {
	Prefix   netip.Prefix
	Endpoint access.Endpoint // without addresses: the client has none
}

// Config is what an Authority needs.
type Config struct {
	Interface string // of the tunnel, for events
	Clients   *access.Clients
	Router    Router
	Events    *events.Log
	Log       *zap.Logger
	Now       func() time.Time // nil: time.Now
}

// Settings are what a reload can change.
type Settings struct {
	MTU int // of tunnels, in bytes
	// Networks are those of clients. A client whose outer address is in one of them would be
	// reached through its own tunnel.
	Networks []netip.Prefix
}

// Authority is an access.Authority: it decides by what a Base has.
type Authority struct {
	config   Config
	settings atomic.Pointer[Settings]
	base     atomic.Pointer[Base]
	refusals refusals
	rates    rates
	begun    time.Time

	mu       sync.Mutex // it guards the following; nothing of a server is called while it is held
	attached map[string]*client
	protocol map[string]int // how many of these there are
	closed   bool
	told     limiter
}

// New returns an Authority. It refuses all clients until Use.
func New(c Config) *Authority {
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &Authority{config: c, begun: c.Now(), attached: map[string]*client{}, protocol: map[string]int{}}
	a.Set(Settings{MTU: 1280})
	a.refusals.counts = map[refusal]uint64{}
	return a
}

// Set sets other settings for clients that are attached from now on.
func (a *Authority) Set(s Settings) { a.settings.Store(&s) }

// Use sets the accounts and leases. Their changes are for Notify.
func (a *Authority) Use(b Base) { a.base.Store(&b) }

var errNoBase = access.Refuse(access.Unavailable, "the accounts are not available at the moment: try again later")

// Named implements access.Authority.
func (a *Authority) Named(name string) (access.Account, error) {
	return a.find(func(b Base) (leases.Account, bool) { return b.Account(name) })
}

// At implements access.Authority.
func (a *Authority) At(endpoint netip.Addr) (access.Account, error) {
	return a.find(func(b Base) (leases.Account, bool) { return b.At(endpoint) })
}

// leases returns the Base, when there is one.
func (a *Authority) leases() Base { return *a.base.Load() }

func (a *Authority) find(look func(Base) (leases.Account, bool)) (access.Account, error) {
	b := a.base.Load()
	if b == nil {
		return access.Account{}, errNoBase
	}
	found, ok := look(*b)
	switch {
	case !ok:
		return access.Account{}, access.Refuse(access.UnknownAccount, "there is no such account")
	case !found.Enabled:
		return access.Account{}, access.Refuse(access.Disabled, "the account is disabled")
	}
	mtu := a.settings.Load().MTU
	if found.Limits.MTU != 0 {
		mtu = min(mtu, found.Limits.MTU)
	}
	return access.Account{Name: found.Name, Secret: found.Secret, Number: found.Number, Type: found.Type, Endpoint: (*b).Endpoint(found.Number), MTU: mtu}, nil
}

// Attach implements access.Authority.
func (a *Authority) Attach(ctx context.Context, of access.Account, at access.Attachment) (access.Client, error) {
	b := a.base.Load()
	if b == nil {
		return nil, errNoBase
	}
	s := a.settings.Load()
	from := at.From.Addr().Unmap()
	if slices.ContainsFunc(s.Networks, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return nil, access.Refuse(access.WrongAddress, "%v is an address inside the tunnels: connect from another one", from)
	}
	lease, err := (*b).Assign(ctx, of.Name, at.Bits)
	if err != nil {
		if errors.As(err, new(*access.Refusal)) {
			return nil, err
		}
		return nil, access.Refuse(access.Unavailable, "%v", err)
	}
	now, _ := (*b).Account(of.Name)
	if !now.Enabled {
		return nil, access.Refuse(access.Disabled, "the account is disabled")
	}
	c := &client{authority: a, account: of.Name, secret: of.Secret, protocol: at.Protocol, link: at.Link, since: a.config.Now()}
	c.lease = access.Lease{Account: of.Name, Prefix: lease.Prefix, Endpoint: lease.Endpoint, MTU: of.MTU}
	if c.lease.MTU == 0 {
		c.lease.MTU = s.MTU
	}
	c.limit(now.Limits.Rate)
	outer := netip.AddrPortFrom(from, at.From.Port())
	c.outer.Store(&outer)
	c.heard.Store(int64(a.elapsed()))
	if err := a.add(c); err != nil {
		return nil, err
	}
	a.rates.giveBack(from)
	if l, ok := at.Link.(access.Follower); ok {
		l.Attached(c)
	}
	a.report(api.EventGranted, c, "%v by %s from %s", lease.Prefix, c.protocol, text.Outer(outer))
	return c, nil
}

// add attaches a client, and ends another one of the same account.
func (a *Authority) add(c *client) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return access.Refuse(access.Stopping, "the service is being stopped: try again")
	}
	old := a.attached[c.account]
	if old != nil {
		a.drop(old)
	}
	var err error
	if c.attached, err = a.config.Clients.Attach(c.lease.Prefix, c.lease.Endpoint.Client, c.toLink()); err == nil {
		a.attached[c.account] = c
		a.protocol[c.protocol]++
		a.config.Router.Add(c.route())
		a.leases().Hold(c.account, c.protocol, *c.outer.Load())
	}
	a.mu.Unlock()
	if old != nil {
		old.link.End(access.Refuse(access.Elsewhere, "the account is used by another connection, from %v", *c.outer.Load()))
	}
	if err != nil {
		return access.Refuse(access.Unavailable, "%v", err)
	}
	return nil
}

// drop removes a client that is attached. The caller holds mu.
func (a *Authority) drop(c *client) {
	c.gone.Store(true)
	c.attached.Detach()
	delete(a.attached, c.account)
	if a.protocol[c.protocol]--; a.protocol[c.protocol] == 0 {
		delete(a.protocol, c.protocol)
	}
	a.config.Router.Remove(c.route())
}

// remove removes a client, unless it has gone already, and says that this server does not
// serve it any more.
func (a *Authority) remove(c *client, release bool) bool {
	a.mu.Lock()
	if a.attached[c.account] != c {
		a.mu.Unlock()
		return false
	}
	a.drop(c)
	if release { // before another client of the account can be attached
		a.leases().Release(c.account)
	}
	a.mu.Unlock()
	return true
}

// end ends a client that is attached, and tells it why.
func (a *Authority) end(c *client, release bool, why *access.Refusal) {
	if !a.remove(c, release) {
		return
	}
	c.link.End(why)
	a.report(api.EventLeft, c, "%s: %s", why.Reason, why.Text)
}

// clientOf returns the client of an account that is attached; nil: there is none.
func (a *Authority) clientOf(account string) *client {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attached[account]
}

// all returns all clients that are attached.
func (a *Authority) all() []*client {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*client, 0, len(a.attached))
	for _, c := range a.attached {
		list = append(list, c)
	}
	return list
}

// Notify takes note of an event of the Base. It does not wait for the store.
func (a *Authority) Notify(e leases.Event) {
	switch e.Kind {
	case leases.Moved:
		if c := a.clientOf(e.Account); c != nil {
			a.end(c, false, access.Refuse(access.Elsewhere, "the account is used at another server, %s", e.Server))
			a.report(api.EventMoved, c, "to the server %s", e.Server)
		}
	case leases.Changed:
		if c := a.clientOf(e.Account); c != nil {
			if why := c.changed(); why != nil {
				a.end(c, true, why)
			}
		}
	case leases.Silent:
		before := e.Before.Sub(a.begun)
		for _, c := range a.all() {
			if time.Duration(c.heard.Load()) < before {
				a.end(c, true, access.Refuse(access.Silent, "nothing was heard of the client while this server cannot reach the other ones"))
			}
		}
	case leases.Away:
		a.config.Log.Error("the broker's store does not answer: known leases go on, and new ones wait", zap.Error(e.Err))
		a.event(api.EventError, "", "the broker's store does not answer: known leases go on, and new ones wait: "+e.Err.Error())
	case leases.Back:
		a.config.Log.Info("the broker's store answers again")
		a.event(api.EventRepair, "", "the broker's store answers again")
	case leases.Doubt:
		a.askSilent(e.Before)
	case leases.Failed:
		a.config.Log.Error("the broker gives no new leases, because they cannot be stored", zap.Error(e.Err))
		a.event(api.EventError, "", "no new leases, because they cannot be stored: "+e.Err.Error())
	case leases.Unreadable:
		a.config.Log.Error("a record in the broker's store cannot be read, and is ignored", zap.Error(e.Err))
		a.event(api.EventError, "", "a record in the broker's store cannot be read, and is ignored: "+e.Err.Error())
	}
}

// Close ends all clients, and refuses others from now on.
func (a *Authority) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	for _, c := range a.all() {
		if a.remove(c, true) {
			c.link.End(access.Refuse(access.Stopping, "the service is being stopped"))
		}
	}
}

// elapsed is the time since the Authority was made.
func (a *Authority) elapsed() time.Duration { return a.config.Now().Sub(a.begun) }

// report adds an event about a client, and logs it.
func (a *Authority) report(kind string, c *client, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	a.event(kind, c.account, text)
	if more, ok := a.told.allow(a.config.Now()); ok {
		a.config.Log.Info("broker: "+kind, zap.String("account", c.account), zap.String("what", text), zap.Int("others", more))
	}
}

func (a *Authority) event(kind, account, text string) {
	a.config.Events.Add(api.Event{At: a.config.Now(), Tunnel: a.config.Interface, Peer: account, Kind: kind, Text: text})
}
