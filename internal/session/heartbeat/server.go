// Package heartbeat runs the two ends of the SixXS heartbeat protocol: a server, which learns
// from authenticated messages at which outer address a client is, and a client, which sends
// them. The packets of the tunnel travel in protocol 41, which is not the business of this
// package: the server is given a function that sends them, and is handed those that arrive.
package heartbeat

import (
	"net/netip"
	"time"

	"sixfour/encap/drop"
	wire "sixfour/encap/heartbeat"
	"sixfour/transport/access"
)

// Config is what a Server needs.
type Config struct {
	Authority access.Authority
	// Local is where messages arrive. The address must not be the unspecified one: it is
	// that of the packets in protocol 41, too.
	Local netip.AddrPort
	// Send sends an inner packet in protocol 41 from Local to an outer address. The rules are
	// those of Link.Send of package access.
	Send func(outer netip.Addr, packet []byte) error
	// Beat is called for each message that is accepted; nil: for none.
	Beat func(account string, m wire.Message, from netip.AddrPort)
	// Digest is accepted beside MD5; MD5: no other one is.
	Digest wire.Digest

	// Window is how far the client's clock may be from ours; 0: two minutes.
	Window time.Duration
	// Timeout is the time without a message after which a client has gone; 0: five minutes.
	Timeout time.Duration
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

// Server receives heartbeats, and attaches the clients that send them.
type Server struct{}

// NewServer opens the port and begins to serve.
func NewServer(c Config) (*Server, error) { return &Server{}, nil }

// Close ends the service: every client leaves, and the port is closed.
func (s *Server) Close() error { return nil }

// Addr returns the address and port at which messages arrive.
func (s *Server) Addr() netip.AddrPort { return netip.AddrPort{} }

// Receive hands over an inner packet that arrived in protocol 41 from an outer address. It
// does not retain the packet, allocates no memory, and may be called concurrently. The reason
// is drop.ForeignSource if no client is at that address.
func (s *Server) Receive(outer netip.Addr, packet []byte) drop.Reason { return drop.None }
