package tsp

import (
	"context"
	"errors"
	"fmt"
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
// *Settings. They must not change. Its functions may be called by any goroutine, Lookup may
// wait, and the others must not block, nor call the port.
type Settings struct {
	Host           string // the server as the user names it; "": its address
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
	Failed  func(error) // an attempt failed: a *tsp.Refused, if the server said why; may be nil
}

// equal reports whether a peer with these settings can go on with others.
func (s *Settings) equal(o *Settings) bool {
	return s == o || s.Host == o.Host && s.User == o.User && s.Password == o.Password && s.Auth == o.Auth && s.Want == o.Want &&
		s.PrefixLength == o.PrefixLength && s.Keepalive == o.Keepalive && s.Transport == o.Transport
}

// check returns an error if the settings make no sense.
func (s *Settings) check() error {
	switch {
	case s.Want != "" && s.Want != tsp.V6V4 && s.Want != tsp.V6UDPV4 && s.Want != tsp.V6AnyV4:
		return fmt.Errorf("the type of tunnel %q is unknown", s.Want)
	case s.Auth != tsp.Auto && s.Auth != tsp.Anonymous && s.Auth != tsp.Plain && s.Auth != tsp.DigestMD5:
		return fmt.Errorf("the method of authentication %q is unknown", s.Auth)
	case s.User == "" && (s.Auth == tsp.Plain || s.Auth == tsp.DigestMD5):
		return fmt.Errorf("%s needs a user", s.Auth)
	case s.PrefixLength < 0 || s.PrefixLength > 128:
		return fmt.Errorf("a prefix has no length of %d", s.PrefixLength)
	case s.Want == tsp.V6UDPV4 && s.Transport == TCP:
		return errors.New("a tunnel in UDP cannot be asked for over TCP")
	case s.Keepalive < 0 || s.Keepalive > 0 && s.Keepalive < time.Second:
		return fmt.Errorf("keepalive %v: it is at least a second", s.Keepalive)
	}
	return nil
}

// Grant is what a server has granted.
type Grant struct {
	Type   tsp.Type       // V6V4 or V6UDPV4
	Server netip.AddrPort // with which the dialogue was
	Remote netip.Addr     // the server's outer address for packets of the tunnel
	Local  netip.Addr     // our outer address in the dialogue

	Inner, ServerInner netip.Addr    // our address and the server's, inside the tunnel
	Prefix             netip.Prefix  // routed to us; the zero value: none
	MTU                int           // in bytes; 0: not given
	Name               string        // our domain name; may be ""
	DNS                []netip.Addr  // resolvers
	Keepalive          time.Duration // 0: none
	KeepaliveTo        netip.Addr
	Lifetime           time.Duration // 0: no end. Some servers write seconds for minutes
}

// grantOf returns what a document grants.
func grantOf(t *tsp.Tunnel, server netip.AddrPort, local netip.Addr) Grant {
	g := Grant{
		Type: t.Type, Server: server, Remote: server.Addr(), Local: local,
		Inner: t.Client.IPv6, ServerInner: t.Server.IPv6, Prefix: t.Client.Prefix, MTU: t.MTU, Name: t.Client.Name, DNS: t.Client.DNS,
		Keepalive: time.Duration(t.Client.Keepalive) * time.Second, KeepaliveTo: t.Client.KeepaliveTo,
		Lifetime: time.Duration(t.Lifetime) * time.Minute,
	}
	if t.Type == tsp.V6V4 {
		g.Remote = t.Server.IPv4
	}
	if !g.KeepaliveTo.IsValid() {
		g.KeepaliveTo = g.ServerInner
	}
	return g
}

// ErrSilent is the error of a server that does not answer.
var ErrSilent = errors.New("there is no answer")

// Negotiate asks a server for a tunnel of the type v6v4 without a port, from a local address,
// which may be unspecified. It tries once, with the repetitions of the protocol, and follows
// the server's list of others. Options.Mark and Device are used. It must be called in the
// network namespace of its sockets.
func Negotiate(ctx context.Context, local netip.Addr, server netip.AddrPort, s *Settings, o transport.Options) (Grant, error) {
	own := *s
	if own.Want == "" {
		own.Want = tsp.V6V4
	}
	if err := own.check(); err != nil {
		return Grant{}, err
	}
	if own.Want == tsp.V6UDPV4 {
		return Grant{}, errors.New("a tunnel in UDP needs a port")
	}
	sockets, err := newSockets(o)
	if err != nil {
		return Grant{}, err
	}
	defer sockets.Close()
	n := negotiator{settings: &own, sockets: sockets, local: local, timing: usualAsking, udp: dialUDP(sockets, local)}
	return n.negotiate(ctx, server)
}
