package tsp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/tsp"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/netsock"
)

// Protocol is the name of the protocol in access.Attachment and in refusals.
const Protocol = "tsp"

// ServerConfig is the configuration of a Server.
type ServerConfig struct {
	Authority access.Authority

	// Local is the address and port of the sockets: UDP and TCP, unless one is switched off.
	// The address is IPv4, and may be unspecified. If the port is 0, the kernel chooses one.
	Local        netip.AddrPort
	NoUDP, NoTCP bool

	// Open says that ANONYMOUS is offered. The name of the account of such a client is
	// AnonymousName of its addresses.
	Open bool

	Realm string       // of DIGEST-MD5; "": sixfour
	DNS   []netip.Addr // resolvers that clients are told; empty: none

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
type Server struct {
	config  ServerConfig
	offer   tsp.Offer
	timing  timing
	local   netip.AddrPort
	port    *transport.UDPPort // nil: switched off
	sender  transport.Sender
	tcp     *net.TCPListener // nil: switched off
	clients table
	dialogs dialogs

	ctx     context.Context // ends with the server
	stop    context.CancelFunc
	working chan struct{} // has a value for each dialogue that asks the Authority
	running sync.WaitGroup
	decoy   string // the secret of unknown users
}

// timing is how long things take. Tests have other values.
type timing struct {
	sweep   time.Duration // between two looks for what is too old
	forget  time.Duration // a dialogue without a message
	restart time.Duration // after which a dialogue may begin again with the same message
	attach  time.Duration // for the Authority to attach a client
	pause   time.Duration // between two messages of ours over TCP
	step    time.Duration // for the next message of a client over TCP
	whole   time.Duration // for a dialogue over TCP
	often   int           // the shortest keepalive interval, in seconds
	silent  int           // after so many keepalive intervals without a packet a client is dead
	silence time.Duration // the same for a client that wants no keepalive
}

var usualTiming = timing{
	sweep: 5 * time.Second, forget: time.Minute, restart: 5 * time.Second, attach: 10 * time.Second,
	pause: 200 * time.Millisecond, step: 30 * time.Second, whole: 2 * time.Minute,
	often: minKeepalive, silent: 3, silence: time.Hour,
}

// maxWorking is how many dialogues may ask the Authority at the same time.
const maxWorking = 64

// NewServer opens the sockets, in the network namespace of the calling thread, and serves
// until Close. Of the options, Mark and Device are used.
func NewServer(c ServerConfig, o transport.Options) (*Server, error) {
	return newServer(c, o, usualTiming)
}

func newServer(c ServerConfig, o transport.Options, t timing) (*Server, error) {
	op := fmt.Sprintf("serve TSP at %v", c.Local)
	if c.Realm == "" {
		c.Realm = "sixfour"
	}
	switch {
	case !c.Local.Addr().Is4():
		return nil, fmt.Errorf("%s: the address must be IPv4: the tunnels carry IPv6 in IPv4", op)
	case c.NoUDP && c.NoTCP:
		return nil, fmt.Errorf("%s: both UDP and TCP are switched off", op)
	case c.NoUDP && c.Raw == nil:
		return nil, fmt.Errorf("%s: without UDP there is no type of tunnel to offer", op)
	}
	s := &Server{config: c, timing: t, local: c.Local, working: make(chan struct{}, maxWorking), decoy: nonce()}
	s.offer = tsp.Offer{Realm: c.Realm, Capability: capability(&c)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.clients.init()
	s.dialogs.init()
	if err := s.listen(transport.Options{Mark: o.Mark, Device: o.Device}); err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w", op, errors.Join(err, s.closeSockets()))
	}
	if s.port != nil {
		s.running.Go(s.receive)
	}
	if s.tcp != nil {
		s.running.Go(s.accept)
	}
	s.running.Go(s.sweep)
	return s, nil
}

// capability is what a server with a configuration offers.
func capability(c *ServerConfig) (offer tsp.Capability) {
	if c.Raw != nil {
		offer.Tunnels = append(offer.Tunnels, tsp.V6V4)
	}
	if !c.NoUDP {
		offer.Tunnels = append(offer.Tunnels, tsp.V6UDPV4)
	}
	if c.Open {
		offer.Auths = append(offer.Auths, tsp.Anonymous)
	}
	offer.Auths = append(offer.Auths, tsp.Plain, tsp.DigestMD5)
	return offer
}

// listen opens the sockets. If the kernel chooses a port for UDP, another socket may have it for
// TCP; then it chooses once more.
func (s *Server) listen(o transport.Options) (err error) {
	const attempts = 20
	for range attempts {
		err = s.listenOnce(o)
		if !errors.Is(err, unix.EADDRINUSE) || s.config.Local.Port() != 0 || s.port == nil {
			break
		}
		err = errors.Join(err, s.port.Close())
		s.local = s.config.Local
	}
	return err
}

func (s *Server) listenOnce(o transport.Options) (err error) {
	if !s.config.NoUDP {
		if s.port, err = transport.ListenUDP(s.local, transport.Shard{}, o); err != nil {
			return err
		}
		s.local = s.port.Local()
		if s.sender, err = s.port.Sender(o); err != nil {
			return err
		}
	}
	if s.config.NoTCP {
		return nil
	}
	sockets, err := netsock.New(o)
	if err != nil {
		return err
	}
	defer sockets.Close()
	if s.tcp, err = sockets.ListenTCP(s.local); err != nil {
		return err
	}
	s.local = netip.AddrPortFrom(s.local.Addr(), s.tcp.Addr().(*net.TCPAddr).AddrPort().Port())
	return nil
}

func (s *Server) closeSockets() (err error) {
	if s.port != nil {
		err = s.port.Close()
	}
	if s.tcp != nil {
		err = errors.Join(err, s.tcp.Close())
	}
	return err
}

// Local returns the address and port of the sockets.
func (s *Server) Local() netip.AddrPort { return s.local }

// Close ends all clients of the server, and returns when no goroutine of it runs any more.
func (s *Server) Close() error {
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	s.stop()
	err := s.closeSockets()
	s.running.Wait()
	for _, c := range s.clients.all() {
		s.clients.remove(c)
		c.leave("the server ends")
	}
	return err
}

// sweep looks for what is too old, until the server ends.
func (s *Server) sweep() {
	t := time.NewTicker(s.timing.sweep)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-t.C:
			s.dialogs.forget(now.Add(-s.timing.forget))
			for _, c := range s.clients.silent(now) {
				s.clients.remove(c)
				c.leave(fmt.Sprintf("nothing has come from it for %v", c.patience))
			}
		}
	}
}

// nonce returns a random word.
func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
