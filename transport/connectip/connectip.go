// Package connectip carries whole IP packets inside HTTP connections, as CONNECT-IP (RFC
// 9484) describes: in QUIC datagrams of HTTP/3 over UDP, or in DATAGRAM capsules (RFC 9297)
// after an HTTP/1.1 upgrade over TLS and TCP, which passes where UDP does not.
//
// A Port is server and client at once. A peer of a server is found by the path of its
// request and by a bearer secret. A client connects to its peer, and connects again when
// the connection ends.
//
// Packets are neither checked nor changed. github.com/quic-go/connect-ip-go, which only has
// HTTP/3, decrements the hop limit of every packet, drops packets from and to addresses that
// were not assigned or advertised by capsules, and copies each packet more than once.
// Therefore this package uses quic-go's HTTP/3 directly; the tests use connect-ip-go as the
// other end.
package connectip

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport"
)

// Over is what carries a connection.
type Over string

// The values of Over. Auto is UDP, or TCP where UDP does not pass.
const (
	Auto Over = "auto"
	UDP  Over = "udp" // HTTP/3
	TCP  Over = "tcp" // HTTP/1.1
)

// Config is what all peers of a port have in common.
type Config struct {
	// Local is where the port listens, and the source address of its connections to peers;
	// that may be unspecified. If the port does not listen, the number of Local's port is
	// only written into the headers of packets.
	Local netip.AddrPort

	// Certificate returns the certificate for a connection from a peer; it is called for
	// each, by several goroutines. If it is nil, the port does not listen unless Plain is
	// set.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Plain means that the port listens for HTTP/1.1 without TLS, behind a reverse proxy on
	// this host that removes TLS and passes the upgrade.
	Plain bool

	// Over is which connections the port accepts: Auto (or "") for both on the same port
	// number. Plain has TCP only.
	Over Over

	// MaxHandshakes is how many connections that have not presented a valid secret there
	// may be over TCP, and how many over UDP; 0: 256. When there are more over TCP, the
	// oldest one of the source with the most is closed; over UDP the new one is refused,
	// also when its source has a quarter of them.
	MaxHandshakes int

	// Connected is called as transport.Connected says, and with an error also when an
	// attempt to connect to a peer has failed. It is not called any more for a peer that
	// was removed.
	Connected transport.Connected

	// Using, if not nil, is called when packets to a peer begin to use UDP or TCP. The rules
	// of Connected hold.
	Using func(id any, over Over)

	// Refused, if not nil, is called for a connection to us that ends without having
	// presented a valid secret. It may be called by any goroutine, often if somebody
	// attacks, and must not block.
	Refused func(from netip.AddrPort, why error)
}

// Settings are the settings of a peer: the value that SessionPeer.Settings points to. They
// must not change.
type Settings struct {
	// Path is the path of the URL, with a query if there is one: at a peer that connects to
	// us, which path it must ask for; otherwise which path we ask for.
	Path string

	// Secret is sent as bearer token (RFC 6750). It consists of visible ASCII characters.
	// Peers that connect to us differ in Path or Secret.
	Secret []byte

	// The following are for peers to which we connect. ServerName is the name that the
	// peer's certificate must have; "": the address. Host is the authority of the URL; "":
	// the server name, or the address. Roots are the certificates that may sign the peer's;
	// nil: those of the system.
	ServerName, Host string
	Roots            *x509.CertPool

	// Over is how to connect; "" means Auto. Proxy is the URL of an HTTP proxy through which
	// to connect over TCP: "http://[user:password@]host:port"; nil: none.
	Over  Over
	Proxy *url.URL

	// Assign are prefixes that the peer gets: they are sent to it at once, and when it asks
	// for addresses. Routes are advertised to it: what it may send to us. Request are the
	// prefixes for which to ask the peer; an unspecified address asks for any prefix of that
	// length.
	Assign, Routes, Request []netip.Prefix

	// Keepalive is after how long a connection without packets gets a message, so that NATs
	// and proxies keep it; 0: 10 s.
	Keepalive time.Duration
}

// Route is a range of addresses to which a peer accepts packets.
type Route struct {
	From, To netip.Addr
	Protocol byte // 0: all
}

// State is what is known of the connection to a peer.
type State struct {
	At    netip.AddrPort // the peer's address and port
	Over  Over           // UDP or TCP
	Since time.Time

	// MTU is the length of the largest packet that the connection takes at present; 0: any.
	MTU int

	// Dropped counts packets to the peer that were dropped because they waited too long, or
	// were too many; of all its connections.
	Dropped uint64

	// What the peer has assigned and advertised most recently, and how often it has refused
	// a prefix.
	Assigned []netip.Prefix
	Routes   []Route
	Refused  int
}

// TooLargeError is the error for a packet that does not fit into a QUIC datagram. It wraps
// EMSGSIZE.
type TooLargeError struct {
	Size int // of the packet that is carried
	MTU  int // of the largest one that fits
}

// Error returns both sizes.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a packet of %d bytes does not fit into a QUIC datagram on this path: %d bytes fit", e.Size, e.MTU)
}

// Unwrap returns EMSGSIZE.
func (e *TooLargeError) Unwrap() error { return unix.EMSGSIZE }

// Reasons for which a connection to us is refused.
var (
	ErrPath   = errors.New("no peer has this path")
	ErrSecret = errors.New("no peer has this secret")
)
