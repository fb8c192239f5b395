package tsp

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/transport"
	"sixfour/transport/access"
)

// ServerConfig is the configuration of a Server.
type ServerConfig struct {
	Authority access.Authority

	// Local is the address and port of the sockets: UDP and TCP, unless one is switched off.
	// The address is IPv4, and may be unspecified. If the port is 0, the kernel chooses one.
	Local        netip.AddrPort
	NoUDP, NoTCP bool
	Options      transport.Options // Mark and Device are used

	// Open says that ANONYMOUS is offered. The name of the account of such a client is
	// AnonymousName of its addresses.
	Open bool

	Realm     string        // of DIGEST-MD5; "": sixfour
	Keepalive time.Duration // between the signs of life of a client; 0: 30 s
	DNS       []netip.Addr  // resolvers that clients are told; none: the broker's end of the tunnel

	// Raw returns a link that sends packets to an outer address as protocol 41, for an
	// attachment with this address and the port 0. Who returns it receives the packets of the
	// client, and ends the client if it is silent. Nil: tunnels of the type v6v4 are not offered.
	Raw func(outer netip.Addr) access.Link
}

// AnonymousName returns the name of the account of an anonymous client at an outer address,
// which has announced another address of its own if there is a NAT.
func AnonymousName(outer, announced netip.Addr) string {
	if announced.IsValid() && announced != outer && announced.IsPrivate() {
		return "anonymous-" + outer.String() + "-" + announced.String()
	}
	return "anonymous-" + outer.String()
}

// Server is a broker's end of the protocol.
type Server struct{}

// NewServer opens the sockets, in the network namespace of the calling thread, and serves
// until Close.
func NewServer(c ServerConfig) (*Server, error) { return nil, errors.New("not implemented") }

// Local returns the address and port of the sockets.
func (s *Server) Local() netip.AddrPort { return netip.AddrPort{} }

// Close ends all clients of the server, and returns when no goroutine of it runs any more.
func (s *Server) Close() error { return nil }
