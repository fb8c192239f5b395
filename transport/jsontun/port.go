package jsontun

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/jsontun"
	"sixfour/transport"
	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

var _ transport.SessionPort = (*Port)(nil)

// Port is a transport.SessionPort for connections to servers. Settings of its peers are of
// type *Settings; each has another Remote. It connects to each peer, and again when a
// connection has ended.
type Port struct {
	queue.Arriving
	config  Config
	times   portTimes
	sockets *netsock.Sockets
	routes  atomic.Pointer[map[netip.AddrPort]*peer]

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // all goroutines

	mu    sync.Mutex
	peers map[any]*peer // by ID; nil after Close
}

// portTimes are those that tests shorten.
type portTimes struct {
	connect    time.Duration // for TCP and TLS
	answer     time.Duration // for each message of the server
	firstPause time.Duration // between attempts to connect; it is doubled each time
	lastPause  time.Duration
	longEnough time.Duration // a connection that was up for so long was good
}

var normalPortTimes = portTimes{
	connect: 10 * time.Second, answer: 10 * time.Second,
	firstPause: 2 * time.Second, lastPause: 30 * time.Second, longEnough: 30 * time.Second,
}

// Listen opens a port. Its sockets are opened in the network namespace of the calling thread.
func Listen(c Config, o transport.Options) (*Port, error) { return listen(c, o, normalPortTimes) }

func listen(c Config, o transport.Options, t portTimes) (*Port, error) {
	s, err := netsock.New(o)
	if err != nil {
		return nil, err
	}
	p := &Port{config: c, times: t, sockets: s, Arriving: queue.Arriving{In: queue.NewInbox()}, peers: make(map[any]*peer)}
	p.routes.Store(new(map[netip.AddrPort]*peer))
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Local returns the address and port of the port.
func (p *Port) Local() netip.AddrPort { return p.config.Local }

// SetPeers implements transport.SessionPort. If one of the peers is not valid, nothing changes.
func (p *Port) SetPeers(peers []transport.SessionPeer) error {
	at := make(map[netip.AddrPort]bool)
	for _, s := range peers {
		settings, ok := s.Settings.(*Settings)
		if !ok || settings == nil {
			return fmt.Errorf("peer %v: its settings are of type %T", s.ID, s.Settings)
		}
		if err := jsontun.CheckID(settings.ID); err != nil {
			return fmt.Errorf("peer %v: %w", s.ID, err)
		}
		if !s.Remote.IsValid() || at[s.Remote] {
			return fmt.Errorf("peer %v: it needs an address and port of its own to connect to", s.ID)
		}
		at[s.Remote] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers == nil {
		return net.ErrClosed
	}
	former := p.peers
	p.peers = make(map[any]*peer, len(peers))
	routes := make(map[netip.AddrPort]*peer, len(peers))
	var started []*peer
	for _, s := range peers {
		of := former[s.ID]
		if of == nil || of.SessionPeer != s {
			of = &peer{SessionPeer: s, settings: s.Settings.(*Settings), port: p}
			started = append(started, of)
		}
		p.peers[s.ID], routes[s.Remote] = of, of
	}
	p.routes.Store(&routes)
	for id, old := range former {
		if p.peers[id] != old {
			old.remove()
		}
	}
	for _, of := range started {
		ctx, cancel := context.WithCancel(p.ctx)
		of.stop = cancel
		p.running.Go(func() { of.connect(ctx) })
	}
	return nil
}

// State is what is known of the connection to a peer.
type State struct {
	Since   time.Time
	Grant   Grant
	Dropped uint64 // packets to the peer that were dropped because they waited too long, or were too many
}

// State returns the state of the connection to a peer. Ok is false if there is none.
func (p *Port) State(id any) (s State, ok bool) {
	p.mu.Lock()
	of := p.peers[id]
	p.mu.Unlock()
	if of == nil {
		return State{}, false
	}
	c := of.current.Load()
	if c == nil {
		return State{Dropped: of.dropped.Load()}, false
	}
	return State{Since: c.since, Grant: c.grant, Dropped: of.dropped.Load() + c.out.Dropped()}, true
}

// Sender implements transport.Port. Send returns at once. The error for a packet wraps
// ENOTCONN if there is no connection to its destination, and EINVAL if it is not an IPv6
// packet behind the headers of a UDP packet.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) {
	if own := p.sockets.Options(); o.Mark != own.Mark || o.Device != own.Device {
		return nil, fmt.Errorf("send with mark %d and device %d: the port's sockets have mark %d and device %d", o.Mark, o.Device, own.Mark, own.Device)
	}
	if p.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	return queue.NewSender(p.ctx.Done(), p.send), nil
}

// send removes the headers of a packet, and lets the rest wait in the connection with their
// destination.
func (p *Port) send(head, body []byte, now time.Time) error {
	to, n, ok := queue.Destination(head)
	if !ok {
		return queue.ErrNotUDP
	}
	of := (*p.routes.Load())[to]
	if of == nil {
		return errNotConnected
	}
	c := of.current.Load()
	if c == nil {
		return errNotConnected
	}
	pkt := queue.New(len(head) - n + len(body))
	copy(pkt.B[copy(pkt.B, head[n:]):], body)
	if !whole(pkt.B) {
		pkt.Free()
		return errNotIPv6
	}
	pkt.Since = now
	c.out.Put(pkt)
	return nil
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
	p.cancel()
	for _, of := range peers {
		of.remove()
	}
	p.In.Close()
	p.running.Wait()
	p.sockets.Close()
	return nil
}

// errRemoved is the reason for which the connection to a peer ends that was removed.
var errRemoved = errors.New("the peer was removed")
