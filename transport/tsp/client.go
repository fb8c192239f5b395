package tsp

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/tsp"
	"sixfour/transport"
)

// Config is the configuration of a client's port.
type Config struct {
	// Local is the address and port of the socket. If the port is 0, the kernel chooses one.
	// The address is IPv4, and may be unspecified.
	Local netip.AddrPort

	// Connected is called with the address and port of the server when there is a tunnel of the
	// type v6udpv4, after Settings.Granted, and with the reason when it has ended. May be nil.
	Connected transport.Connected
}

// Transport is how the dialogue travels.
type Transport int

// The transports. Auto is UDP, and then TCP if no answer has come and the tunnel does not
// need UDP.
const (
	Auto Transport = iota
	UDP
	TCP
)

// Settings are the settings of a peer, which is a server: the type of SessionPeer.Settings is
// *Settings. They must not change. Its functions may be called by any goroutine. They must not
// block, nor call the port.
type Settings struct {
	User, Password string
	Auth           tsp.Auth      // Auto: the best one that the server offers
	Want           tsp.Type      // "": V6AnyV4
	PrefixLength   int           // of the prefix to ask for; 0: none
	Keepalive      time.Duration // to ask for; 0: 30 s
	Transport      Transport

	// Lookup returns the addresses of a server with a name, to which another server has sent
	// us; nil: only addresses are followed.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

	Granted func(Grant) // what the server has granted; may be nil
	Failed  func(error) // an attempt failed, with what the server said (*Refused); may be nil
}

// Grant is what a server has granted.
type Grant struct {
	Type   tsp.Type       // V6V4 or V6UDPV4
	Server netip.AddrPort // with which the dialogue was
	Remote netip.Addr     // the server's outer address for packets of the tunnel
	Local  netip.Addr     // our outer address in the dialogue

	Inner, ServerInner netip.Addr    // our address and the server's, inside the tunnel
	Prefix             netip.Prefix  // routed to us; the zero value: none
	Name               string        // our domain name; may be ""
	DNS                []netip.Addr  // resolvers
	Keepalive          time.Duration // 0: none
	KeepaliveTo        netip.Addr
	Lifetime           time.Duration // 0: no end
}

// Refused is the error of a server that has refused us.
type Refused struct {
	Server netip.AddrPort
	Code   int
	Text   string // what the server said
}

// Error says what the code means, and what the server said.
func (r *Refused) Error() string { return r.Text }

// Port is a transport.SessionPort whose peers are servers. It carries packets of tunnels of the
// type v6udpv4. If a server grants a tunnel of the type v6v4, the port has nothing to carry: it
// calls Granted, and does no more for this peer.
type Port struct {
	transport.SessionPort
}

// Listen opens a port without peers, in the network namespace of the calling thread. Of the
// options, Mark and Device are used.
func Listen(c Config, o transport.Options) (*Port, error) {
	return nil, errors.New("not implemented")
}

// Negotiate asks a server for a tunnel of the type v6v4 without a port. It tries once, with the
// repetitions of the protocol.
func Negotiate(ctx context.Context, server netip.AddrPort, s *Settings, o transport.Options) (Grant, error) {
	return Grant{}, errors.New("not implemented")
}
