// Package leases keeps who may use a broker and what each was given: accounts, prefixes of the
// pool, and by which server a client is served. All of it is in memory for those who ask, and in
// a store before anyone is told.
package leases

import (
	"context"
	"net/netip"
	"time"

	"sixfour/internal/store"
	"sixfour/transport/access"
)

// Config says what there is to give.
type Config struct {
	Store store.Store
	// Server is the name of this server, which differs from those of others that use the
	// same store.
	Server string

	Pool            []netip.Prefix
	PrefixLength    int          // of a lease, if the client asks for none
	MaxPrefixLength int          // the shortest prefix that a client may ask for, as its length
	Endpoints       netip.Prefix // a /64 in it for each account
	MTU             int          // of tunnels, in bytes

	// Open gives a lease to names without an account, which get one without a secret.
	Open bool
	// Notify is called when something changes that clients which are connected must know.
	// Calls come one after the other. It must return soon, and must not call Assign or a
	// method that changes an account.
	Notify func(Event)
}

// Account is a customer of the broker. It is a value.
type Account struct {
	Name    string // of valid UTF-8, without NUL
	Number  uint64 // from 1; never another account's, even after this one is removed
	Secret  string // "": anyone may use the name (see Config.Open)
	Type    string // what TIC offers: ayiya, heartbeat or 6in4
	Enabled bool
	Fixed   netip.Prefix // always this prefix; the zero Prefix: one of the pool
	Limits  Limits
	Created time.Time
}

// Limits are what an account may use. 0 stands for the broker's own limit.
type Limits struct {
	PrefixLength int    // the shortest prefix that it may ask for, as its length
	MTU          int    // of its tunnel, in bytes
	Rate         uint64 // bits per second in each direction; 0: any
}

// MaxName is how many bytes a name may have.
const MaxName = 255

// Holding is how a server serves a client.
type Holding struct {
	Server   string
	Protocol string
	Outer    netip.AddrPort // the client's
	Since    time.Time
}

// Lease is what an account has been given.
type Lease struct {
	Account  string
	Number   uint64
	Prefix   netip.Prefix
	Endpoint access.Endpoint
	Granted  time.Time
	Last     Holding   // the zero value: never connected
	Until    time.Time // when it left; zero while it is connected
}

// Kind is what an Event is about.
type Kind int

// The kinds of events.
const (
	// Moved: another server, Event.Server, serves the account's client now.
	Moved Kind = iota
	// Changed: the account was disabled or removed, has another secret or other limits, or
	// its lease was released. A client that is connected must be ended, unless what Base.Account
	// and Base.Lease say is still true for it.
	Changed
	// Silent: this server has been cut off from the store for so long that others may serve
	// its clients. Those that were not heard after Event.Before may be elsewhere and must be ended;
	// one that was heard is still here. It comes again and again while that lasts.
	Silent
	// Away: the store does not answer (Event.Err). Known leases go on.
	Away
	// Back: the store answers again.
	Back
)

// Event is a change.
type Event struct {
	Kind    Kind
	Account string
	Server  string
	Before  time.Time // with a monotonic reading
	Err     error
}

// Base has all accounts and leases in memory. Its methods may be called concurrently; those
// without a context never wait for the store.
type Base struct{ config Config }

// Open reads the store.
func Open(ctx context.Context, c Config) (*Base, error) { return &Base{c}, nil }

// Close writes what is not yet written, and ends. It does not close the store.
func (b *Base) Close() error { return nil }

// Account returns the account with a name. With Config.Open, one that is not known has an
// account without a secret and number, which Assign makes.
func (b *Base) Account(name string) (Account, bool) { return Account{}, false }

// At returns the account of the client whose end of the tunnel has an address.
func (b *Base) At(endpoint netip.Addr) (Account, bool) { return Account{}, false }

// Endpoint returns the ends of an account's tunnel; zero if its number is 0, or too large for
// Config.Endpoints.
func (b *Base) Endpoint(number uint64) access.Endpoint { return access.Endpoint{} }

// Lease returns the lease of an account, if it has one.
func (b *Base) Lease(name string) (Lease, bool) { return Lease{}, false }

// Assign returns the lease of an account. One that has none gets its fixed prefix or the
// lowest free one with a length of bits (0: Config.PrefixLength), which is in the store before
// Assign returns. An account keeps its prefix, whatever length is asked for later. The error is
// an *access.Refusal.
func (b *Base) Assign(ctx context.Context, name string, bits int) (Lease, error) {
	return Lease{}, access.Refuse(access.Unavailable, "not written yet")
}

// Hold says that this server serves the client of an account from now on. Other servers that
// did are told (Moved). It does not wait for the store.
func (b *Base) Hold(name, protocol string, outer netip.AddrPort) {}

// Move says that a client that this server holds has another outer address. It may be called for
// each packet that shows one: what is in the store follows after a while.
func (b *Base) Move(name string, outer netip.AddrPort) {}

// Release says that this server does not serve the client of an account any more.
func (b *Base) Release(name string) {}

// Leases calls each with all leases, in the order of prefixes, until it returns false.
func (b *Base) Leases(each func(Lease) bool) {}

// Sizes says how many accounts and leases there are, and how many leases are still free, at
// Config.PrefixLength.
func (b *Base) Sizes() (accounts, leases int, free uint64) { return 0, 0, 0 }
