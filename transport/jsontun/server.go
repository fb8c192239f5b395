package jsontun

import (
	"net/netip"

	"sixfour/transport"
)

// Server accepts clients, and attaches them to an Authority. Their packets come from and go to
// the Authority's Clients and our Links.
type Server struct{ local netip.AddrPort }

// NewServer opens a server, in the network namespace of the calling thread.
func NewServer(c ServerConfig, o transport.Options) (*Server, error) { return nil, errLater }

// Local returns the address and port at which the server listens.
func (s *Server) Local() netip.AddrPort { return s.local }

// Close ends all connections, and waits until all goroutines have ended.
func (s *Server) Close() error { return nil }
