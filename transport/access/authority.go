// Package access is the port at which the clients of a broker arrive, whatever their protocols
// are. Each protocol has a package with a server, which proves who a client is, and then
// attaches it. From then on the port carries packets between the clients and one tunnel.
package access

import (
	"context"
	"fmt"
	"net/netip"

	"sixfour/encap/drop"
)

// Authority decides about clients. The servers of the protocols ask it. Its methods may be
// called concurrently.
type Authority interface {
	// Named returns the account with a name: the user of TSP and TIC, the id of JSON.
	Named(name string) (Account, error)
	// At returns the account whose end of the tunnel has an address: the identity of AYIYA
	// and heartbeat.
	At(endpoint netip.Addr) (Account, error)
	// Attach connects a client of an account. It returns when the lease is on disk. A client of
	// the same account that is attached already is ended. The error of a client that gets
	// no lease is a *Refusal.
	Attach(ctx context.Context, a Account, c Attachment) (Client, error)
	// Refuse counts a client that a server refuses, and logs it. The account is "" if it is
	// not known.
	Refuse(protocol string, from netip.AddrPort, account string, why *Refusal)
	// Allow reports whether a source may make another attempt that costs work, such as a
	// connection or the check of a secret.
	Allow(from netip.Addr) bool
}

// Account is a customer of the broker, as the servers need it. It is a value: a change of the
// account is in the next one that the Authority returns.
type Account struct {
	Name     string
	Secret   string // "": anyone may use the name, because the broker is open
	Number   uint64 // in identifiers such as T17 of TIC; never another account's
	Type     string // what TIC offers: ayiya, heartbeat or 6in4
	Endpoint Endpoint
	MTU      int // of the tunnel, in bytes
}

// Endpoint are the ends of a client's tunnel, in a /64 of their own.
type Endpoint struct{ Broker, Client netip.Addr }

// Attachment is how a client arrived.
type Attachment struct {
	Protocol string         // json, ayiya, heartbeat, tsp
	From     netip.AddrPort // the client's outer address; the port is 0 with protocol 41
	At       netip.AddrPort // ours, at which it arrived
	Bits     int            // length of the prefix that it asks for; 0: any
	Link     Link
}

// Link carries packets to a client. Its methods may be called concurrently.
type Link interface {
	// Send sends an inner packet. It never waits: a packet for which there is no room
	// displaces an older one, or is refused with ENOBUFS. The buffer is the caller's again.
	Send(packet []byte) error
	// End says that the client is not attached any more. The server must not call the Client
	// again.
	End(why *Refusal)
}

// Follower is a Link that must know its Client, because the client's packets arrive there and
// not at the server that has called Attach.
type Follower interface {
	Link
	Attached(Client) // called when Attach returns
	Left()           // called instead of End when the client has left
}

// Client is a client that is attached. Its methods may be called concurrently.
type Client interface {
	Lease() Lease
	// Receive hands over an inner packet of the client, whose protocol has proved where it comes
	// from. A packet whose inner source is not the client's is refused. The buffer is the
	// caller's again.
	Receive(packet []byte) drop.Reason
	// Heard says that the client is there, at this outer address.
	Heard(from, at netip.AddrPort)
	// Leave says that the client has gone, and why.
	Leave(why string)
}

// Lease is what a client was given.
type Lease struct {
	Account  string
	Prefix   netip.Prefix // routed to the client: /48 to /64, or to /120 in a single /64
	Endpoint Endpoint
	MTU      int // in bytes
}

// Reason is why a client is refused: one word, the same in metrics, events and the log.
type Reason string

// The reasons.
const (
	UnknownAccount Reason = "unknown_account"
	WrongSecret    Reason = "wrong_secret"
	Disabled       Reason = "disabled"      // the account
	BadClock       Reason = "bad_clock"     // the client's clock differs too much
	Replay         Reason = "replay"        // a message was received before
	NoPrefix       Reason = "no_prefix"     // the pool is used up
	Unavailable    Reason = "unavailable"   // the store cannot be written at the moment
	TooMany        Reason = "too_many"      // a rate, or a limit of the account
	BadMessage     Reason = "bad_message"   // not the protocol
	Unsupported    Reason = "unsupported"   // a request that this server does not serve
	Unencrypted    Reason = "unencrypted"   // TLS is required
	WrongAddress   Reason = "wrong_address" // the message names another outer address
	Elsewhere      Reason = "elsewhere"     // the account has come back by another connection or server
	Silent         Reason = "silent"        // nothing has come from the client for too long
	Stopping       Reason = "stopping"      // the daemon ends
)

// Refusal is an error that a client gets to know, in the words of its protocol.
type Refusal struct {
	Reason Reason
	Text   string // for people; without secrets
}

// Refuse returns a Refusal with a text.
func Refuse(why Reason, format string, args ...any) *Refusal {
	return &Refusal{why, fmt.Sprintf(format, args...)}
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }
