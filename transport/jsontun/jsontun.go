// Package jsontun carries IPv6 packets in TCP connections that begin with a dialogue in JSON
// (package encap/jsontun), with or without TLS. A Port is the client's end: a server assigns
// a prefix to it. A Server is the other end, for a broker with very many clients.
package jsontun

import (
	"crypto/tls"
	"net/netip"

	"sixfour/transport"
	"sixfour/transport/access"
)

// Config is what all peers of a Port have in common.
type Config struct {
	// Local is the source address of connections, which may be unspecified. The number of its
	// port is only written into the headers of packets.
	Local netip.AddrPort

	// Connected is called as transport.Connected says, and with an error also when an attempt
	// to connect has failed: the error has the server's words, if it has said any.
	Connected transport.Connected
}

// Settings are the settings of a peer of a Port: the value that SessionPeer.Settings points
// to. They must not change.
type Settings struct {
	// ID is the name by which the server knows us. Secret proves it, if the server asks; nil:
	// there is none.
	ID     string
	Secret []byte

	// TLS is the configuration of TLS, with the name that the server's certificate must have;
	// nil: the connection is not encrypted.
	TLS *tls.Config

	// Granted, if not nil, is called before Connected, with what the server has assigned. It
	// may be called by any goroutine. It must not block, nor call the port.
	Granted func(Grant)
}

// Grant is what a server has assigned.
type Grant struct {
	Server, Local netip.AddrPort // the ends of the connection
	Prefix        netip.Prefix   // /48 to /120, of the Internet
	Proved        bool           // the server has asked for the secret
	TLS           bool
}

// ServerConfig is the configuration of a Server.
type ServerConfig struct {
	Authority access.Authority
	Local     netip.AddrPort // where to listen

	// TLS is the configuration for connections that begin with a TLS handshake; nil: there is
	// no TLS. Required means that other connections are refused.
	TLS      *tls.Config
	Required bool

	// MaxConnections is how many connections there may be; 0: 100,000. MaxPending is how many
	// of these may be without an identity, and MaxPendingSource how many of one source (of
	// IPv6 a network with prefix length 64); 0: 4096 and 1024. If there are more, the oldest
	// one of the source with the most is closed.
	MaxConnections, MaxPending, MaxPendingSource int
}
