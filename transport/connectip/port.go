package connectip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport"
	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

var _ transport.SessionPort = (*Port)(nil)

// Port is a transport.SessionPort for CONNECT-IP.
type Port struct {
	queue.Arriving
	config  Config
	local   netip.AddrPort
	sockets *netsock.Sockets
	server  *server // nil: the port does not listen

	routes routes
	door   *door

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // all goroutines
	times   times

	mu    sync.Mutex
	peers map[any]*peer // by ID; nil after Close
}

// times are those that tests shorten.
type times struct {
	handshake   time.Duration // for a peer that connects to us, until it has presented a secret
	udpWait     time.Duration // for HTTP/3, before HTTP/1.1 is tried
	tcpWait     time.Duration // for TCP, TLS and the answer
	firstPause  time.Duration // between attempts to connect; it is doubled each time
	firstBetter time.Duration // between attempts to use HTTP/3 again; also doubled
	silence     time.Duration // of a peer over HTTP/3 that does not answer any more
	drain       time.Duration // of a connection after another one has replaced it
	settle      time.Duration // until packets of a peer that has moved are from its present address
}

var normalTimes = times{
	handshake: 5 * time.Second, udpWait: 2 * time.Second, tcpWait: 10 * time.Second,
	firstPause: time.Second, firstBetter: 10 * time.Second, silence: 1500 * time.Millisecond, drain: 2 * time.Second,
	settle: 2 * time.Second,
}

// Listen opens a port. Its sockets, also later ones, are opened in the network namespace of
// the calling thread.
func Listen(c Config, o transport.Options) (*Port, error) { return listen(c, o, normalTimes) }

func listen(c Config, o transport.Options, t times) (*Port, error) {
	if c.Over == "" {
		c.Over = Auto
	}
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 256
	}
	switch {
	case c.Plain && c.Over == UDP:
		return nil, errors.New("HTTP/3 over UDP is always encrypted: set Over to TCP, or Plain to false")
	case c.Over != Auto && c.Over != UDP && c.Over != TCP:
		return nil, fmt.Errorf("over %q: it is auto, udp or tcp", c.Over)
	}
	s, err := netsock.New(o)
	if err != nil {
		return nil, err
	}
	p := &Port{
		config: c, local: c.Local, sockets: s, Arriving: queue.Arriving{In: queue.NewInbox()},
		routes: routes{at: make(map[netip.AddrPort]*peer)}, door: newDoor(), peers: make(map[any]*peer), times: t,
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if c.Certificate == nil && !c.Plain {
		return p, nil
	}
	if err := p.listen(); err != nil {
		p.cancel()
		s.Close()
		return nil, fmt.Errorf("listen at %v: %w", c.Local, err)
	}
	return p, nil
}

// Local returns the address and port of the port.
func (p *Port) Local() netip.AddrPort { return p.local }

// SetPeers implements transport.SessionPort. Settings of the peers are of type *Settings. If
// one of the peers is not valid, nothing changes.
func (p *Port) SetPeers(peers []transport.SessionPeer) error {
	if err := p.check(peers); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers == nil {
		return net.ErrClosed
	}
	list := make(map[any]*peer, len(peers))
	for _, s := range peers {
		if old := p.peers[s.ID]; old != nil && old.SessionPeer == s {
			list[s.ID] = old
			continue
		}
		list[s.ID] = &peer{SessionPeer: s, settings: s.Settings.(*Settings), port: p, stop: func() {}}
	}
	former := p.peers
	p.peers = list
	p.door.set(list)
	for id, old := range former {
		if list[id] != old {
			old.remove()
		}
	}
	for id, now := range list {
		if former[id] != now && now.Remote.IsValid() {
			ctx, cancel := context.WithCancel(p.ctx)
			now.stop = cancel
			p.running.Go(func() { now.connect(ctx) })
		}
	}
	return nil
}

// State returns the state of the connection to a peer. Ok is false if there is none.
func (p *Port) State(id any) (s State, ok bool) {
	p.mu.Lock()
	of := p.peers[id]
	p.mu.Unlock()
	if of == nil {
		return State{}, false
	}
	return of.describe()
}

// Close ends all connections, and waits until all goroutines have ended.
func (p *Port) Close() error {
	p.mu.Lock()
	peers := p.peers
	p.peers = nil
	p.mu.Unlock()
	if peers == nil {
		return nil
	}
	p.door.set(nil)
	p.cancel()
	for _, peer := range peers {
		peer.remove()
	}
	var err error
	if p.server != nil {
		err = p.server.close()
	}
	p.In.Close()
	p.running.Wait()
	p.sockets.Close()
	return err
}

// Sender implements transport.Port. Send returns at once. The error for a packet wraps
// ENOTCONN if there is no connection to its destination, EMSGSIZE if it does not fit into a
// QUIC datagram (see TooLargeError), and EINVAL if it does not begin with the headers of a
// UDP packet.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) {
	if own := p.sockets.Options(); o.Mark != own.Mark || o.Device != own.Device {
		return nil, fmt.Errorf("send from %v with mark %d and device %d: its sockets have mark %d and device %d", p.local, o.Mark, o.Device, own.Mark, own.Device)
	}
	if p.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	return queue.NewSender(p.ctx.Done(), p.send), nil
}

var errNotConnected = fmt.Errorf("there is no connection with the peer: %w", unix.ENOTCONN)

// send removes the headers of a packet, and lets the rest wait in the connection with their
// destination.
func (p *Port) send(head, body []byte, now time.Time) error {
	to, n, ok := queue.Destination(head)
	if !ok {
		return queue.ErrNotUDP
	}
	of := p.routes.find(to)
	if of == nil {
		return errNotConnected
	}
	c := of.current.Load()
	if c == nil {
		return errNotConnected
	}
	return c.queue(head[n:], body, now)
}
