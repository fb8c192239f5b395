package heartbeat

import (
	"context"
	"net/netip"
	"syscall"
	"time"

	wire "sixfour/encap/heartbeat"
)

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// Server returns where messages go, or that it is not known at the moment.
	Server func() (at netip.AddrPort, ok bool)
	// Local is our outer address; the zero Addr: that from which the kernel sends to the server.
	Local    netip.Addr
	Identity netip.Addr // our end of the tunnel
	Secret   string
	Digest   wire.Digest
	// Sender says that there is a NAT, though the outer address looks like a public one.
	// Otherwise a message names a public address, and says "sender" instead of others.
	Sender bool
	// Control is called for each socket before it is used, as by net.Dialer, for a mark or
	// an interface; nil: nothing is called.
	Control func(network, address string, c syscall.RawConn) error
	// Every is the time between two messages; 0: a minute.
	Every time.Duration
	// Sent is called after each message, with the outer address that it was sent from, and
	// what went wrong; nil: nothing is called.
	Sent func(from netip.Addr, err error)
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

// Client sends heartbeats.
type Client struct{}

// NewClient returns a Client, which sends nothing before Run.
func NewClient(c ClientConfig) *Client { return &Client{} }

// Run sends messages until ctx ends: one at once, and others at intervals, when our outer
// address has changed, and after Wake. The last one says that the tunnel is not used any more.
func (c *Client) Run(ctx context.Context) {}

// Wake makes the client send a message now.
func (c *Client) Wake() {}
