package tic

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	wire "sixfour/encap/tic"
)

// StartTLS is whether a client uses TLS.
type StartTLS byte

// The values.
const (
	Auto    StartTLS = iota // if the server has it
	Require                 // the password is not used without it
	Off
)

// ClientConfig is what Learn needs.
type ClientConfig struct {
	Server   string // name or address, and port
	User     string
	Password string
	TunnelID string // "": the only one
	StartTLS StartTLS
	// Name is that in the server's certificate; "": that in Server.
	Name string
	// CA are the authorities that sign it; nil: those of the system.
	CA *x509.CertPool
	// SHA256 uses the challenge sha256 in place of md5.
	SHA256 bool
	// Dial connects to Server; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout is how long the dialogue may take; 0: 30 seconds.
	Timeout time.Duration
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

// Learn asks a server how a tunnel is configured. Its errors are for people.
func Learn(ctx context.Context, c ClientConfig) (wire.Tunnel, error) { return wire.Tunnel{}, nil }
