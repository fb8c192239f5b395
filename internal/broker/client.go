package broker

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/internal/api"
	"sixfour/internal/text"
	"sixfour/transport/access"
)

// client is a client that is attached.
type client struct {
	authority *Authority
	account   string
	secret    string // of the account when it was attached
	protocol  string
	lease     access.Lease
	link      access.Link
	attached  *access.Attached
	since     time.Time
	outer     atomic.Pointer[netip.AddrPort]
	heard     atomic.Int64 // when something last came from it, since Authority.begun
	gone      atomic.Bool
	rates     *[2]bucket // to the client, and from it; nil: any
}

// Lease implements access.Client.
func (c *client) Lease() access.Lease { return c.lease }

// Receive implements access.Client.
func (c *client) Receive(packet []byte) drop.Reason {
	switch {
	case c.gone.Load():
		return drop.NoPeer
	case c.rates != nil && !c.rates[1].take(len(packet), c.authority.elapsed()):
		return drop.Limited
	}
	return c.attached.Receive(packet)
}

// Heard implements access.Client.
func (c *client) Heard(from, at netip.AddrPort) {
	c.heard.Store(int64(c.authority.elapsed()))
	if old := c.outer.Load(); from != *old && !c.gone.Load() {
		c.moved(old, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}

// moved notes that the client has moved, unless that is known.
func (c *client) moved(old *netip.AddrPort, to netip.AddrPort) {
	if to == *old || !c.outer.CompareAndSwap(old, &to) {
		return
	}
	c.authority.leases().Move(c.account, to)
	c.authority.report(api.EventMoved, c, "from %s to %s", text.Outer(*old), text.Outer(to))
}

// Leave implements access.Client.
func (c *client) Leave(why string) {
	if c.authority.remove(c, true) {
		if l, ok := c.link.(access.Follower); ok {
			l.Left()
		}
		c.authority.report(api.EventLeft, c, "%s", why)
	}
}

// changed returns why the client must be ended, after something about its account has changed;
// nil: it need not.
func (c *client) changed() *access.Refusal {
	now, ok := c.authority.leases().Account(c.account)
	lease, has := c.authority.leases().Lease(c.account)
	switch {
	case !ok:
		return access.Refuse(access.UnknownAccount, "the account was removed")
	case !now.Enabled:
		return access.Refuse(access.Disabled, "the account was disabled")
	case now.Secret != c.secret:
		return access.Refuse(access.WrongSecret, "the account has another secret")
	case !has || lease.Prefix != c.lease.Prefix || lease.Endpoint != c.lease.Endpoint:
		return access.Refuse(access.NoPrefix, "the prefix was taken back: connect again")
	case now.Limits.Rate != 0 != (c.rates != nil) || c.rates != nil && c.rates[0].perSecond != now.Limits.Rate/8:
		return access.Refuse(access.TooMany, "the account has other limits: connect again")
	}
	return nil
}

func (c *client) route() Route { return Route{c.lease.Prefix, c.lease.Endpoint} }

// limit sets the rates, in bits per second; 0: any.
func (c *client) limit(rate uint64) {
	if rate != 0 {
		c.rates = &[2]bucket{{perSecond: max(rate/8, 1)}, {perSecond: max(rate/8, 1)}}
	}
}

// toLink returns the link of the client with its limit.
func (c *client) toLink() access.Link {
	if c.rates == nil {
		return c.link
	}
	return limited{c.link, c}
}

// limited is a link with a limited rate.
type limited struct {
	access.Link
	c *client
}

var errLimited = fmt.Errorf("the account's rate is used up: %w", unix.ENOBUFS)

func (l limited) Send(packet []byte) error {
	if !l.c.rates[0].take(len(packet), l.c.authority.elapsed()) {
		return errLimited
	}
	return l.Link.Send(packet)
}

// bucket limits the bytes in a second, by the time at which all that were taken have passed.
type bucket struct {
	perSecond uint64
	busy      atomic.Int64
}

// burst is how much may be taken at once, as the time for which it is the rate.
const burst = 250 * time.Millisecond

// take takes n bytes at a time, and reports whether the rate allows it.
func (b *bucket) take(n int, now time.Duration) bool {
	cost := int64(uint64(n) * uint64(time.Second) / b.perSecond)
	for {
		busy := b.busy.Load()
		next := max(busy, int64(now)) + cost
		if next > int64(now+burst)+cost { // at least one packet passes
			return false
		}
		if b.busy.CompareAndSwap(busy, next) {
			return true
		}
	}
}
