// Package tic runs the two ends of TIC, the tunnel information and control protocol of SixXS:
// a server, which tells the users of a broker how their tunnels are configured, and a client,
// which asks such a server.
package tic

import (
	"crypto/tls"
	"net/netip"
	"time"

	wire "sixfour/encap/tic"
	"sixfour/transport/access"
)

// Config is what a Server needs.
type Config struct {
	Authority access.Authority
	Local     netip.AddrPort // where clients connect
	TLS       *tls.Config    // for starttls; nil: there is no TLS
	// Plain allows users to log in, and to read the passwords of their tunnels, without TLS.
	Plain bool
	// SHA256 offers the challenge sha256 beside md5.
	SHA256 bool
	// Name is that of the service, in the greeting; "": the name of the host.
	Name string
	// POP is this server, as clients are told. Its IPv4 is where tunnels end.
	POP wire.POP
	// Interval is how often clients of heartbeat and AYIYA shall send a message; 0: a minute.
	Interval time.Duration
	// Outer returns the fixed outer address of a client of the type 6in4; nil, or the zero
	// Addr: there is none, and the tunnel is offered as one with heartbeats.
	Outer func(account string) netip.Addr
	// Prefix returns the prefix that is routed to an account, for "route list"; nil, or the zero
	// Prefix: it is not known yet.
	Prefix func(account string) netip.Prefix
	Limits Limits
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

// Limits bound what clients can cost. A field that is 0 has the value in parentheses.
type Limits struct {
	Connections int           // at a time (512); beyond it, the oldest one that has not logged in is closed
	PerSource   int           // connections of one IPv4 address, or one IPv6 /64 (16)
	Idle        time.Duration // without a line (30 s)
	Dialogue    time.Duration // of a connection (2 min)
	Lines       int           // of a connection (200)
}

// Server answers the users of a broker.
type Server struct{}

// NewServer opens the port and begins to serve.
func NewServer(c Config) (*Server, error) { return &Server{}, nil }

// Close ends the service and all its connections.
func (s *Server) Close() error { return nil }

// Addr returns the address and port at which clients connect.
func (s *Server) Addr() netip.AddrPort { return netip.AddrPort{} }
