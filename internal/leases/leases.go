// Package leases keeps who may use a broker and what each was given: accounts, prefixes of the
// pool, and by which server a client is served. All of it is in memory for those who ask, and in
// a store before anyone is told.
package leases

import (
	"net/netip"
	"time"

	"sixfour/internal/store"
	"sixfour/transport/access"
)

// Config says what there is to give.
type Config struct {
	Store store.Store
	// Server is the name of this server, which differs from those of others that use the
	// same store; "" if it serves no clients.
	Server string

	Pool            []netip.Prefix
	PrefixLength    int          // of a lease, if the client asks for none
	MaxPrefixLength int          // the shortest prefix that a client may ask for, as its length
	Endpoints       netip.Prefix // a /64 in it for each account
	MTU             int          // of tunnels, in bytes

	// MaxAccounts limits how many accounts Open makes; 0: DefaultMaxAccounts.
	MaxAccounts int
	// Silence is how long a client of this server may be silent while this server is cut off from a
	// store that others use; 0: DefaultSilence. See Silent.
	Silence time.Duration

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

// DefaultMaxAccounts limits the accounts of an open broker, each of which takes memory.
const DefaultMaxAccounts = 250_000

// DefaultSilence leaves time for some requests for a sign of life (Doubt).
const DefaultSilence = 15 * time.Second

// Types are what an account's Type can be.
var Types = []string{"ayiya", "heartbeat", "6in4"}

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
	// one that was heard is still here. It comes again and again while that lasts. Before lies
	// Config.Silence in the past.
	Silent
	// Away: the store does not answer (Event.Err). Known leases go on.
	Away
	// Back: the store answers again.
	Back
	// Failed: a new lease could not be stored (Event.Err), such as on a full disk. It comes once
	// a minute at most.
	Failed
	// Doubt: this server is cut off from the store, and Silent may follow. Clients that were not heard
	// after Event.Before must be asked for a sign of life. It comes again and again while that lasts.
	Doubt
	// Unreadable: a record in the store is not what sixfour writes (Event.Err). It is ignored.
	Unreadable
)

// Event is a change.
type Event struct {
	Kind    Kind
	Account string
	Server  string
	Before  time.Time // with a monotonic reading
	Err     error
}
