package ayiya

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/transport"
	"sixfour/transport/access"
)

// ServerConfig is the configuration of a server.
type ServerConfig struct {
	Authority access.Authority

	// Local is where the server receives. The address may be unspecified: then packets to a
	// client leave from the address to which the client sent last. If the port is 0, the
	// kernel chooses one.
	Local netip.AddrPort

	// Shards is how many sockets and goroutines receive; 0: one for each processor, but at
	// most 4.
	Shards int

	Hashes []ayiya.Hash // that clients may use; nil: SHA1 and MD5, as the draft has them

	Window  time.Duration // by how much the clocks may differ; 0: ayiya.DefaultWindow
	Silence time.Duration // after which a client has left; 0: DefaultSilence

	// Notice is sent to a client that is attached; nil: none.
	Notice *ayiya.Notice
}

// DefaultSilence is after which time without a packet a client has left.
const DefaultSilence = 120 * time.Second

// Server serves the clients of a broker.
type Server struct{}

// NewServer opens a server, in the network namespace of the calling thread. Of the options,
// Mark and Device are used.
func NewServer(c ServerConfig, o transport.Options) (*Server, error) {
	return nil, errors.ErrUnsupported
}

// Local returns the address and port at which the server receives.
func (s *Server) Local() netip.AddrPort { return netip.AddrPort{} }

// Close ends the server. Its clients leave.
func (s *Server) Close() error { return nil }
