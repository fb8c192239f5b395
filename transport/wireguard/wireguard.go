// Package wireguard is a port whose packets travel as WireGuard's: encrypted, authenticated,
// and replayed by nobody. Any implementation of WireGuard can be the peer. The protocol is
// that of golang.zx2c4.com/wireguard, in this process; there is no interface in the kernel.
//
//	Sender ──▶ queue ──▶ device: encrypts ──▶ UDP socket ──▶ peer
//	Receive ◀── queue ◀── device: decrypts ◀── UDP socket ◀── peer
//
// A packet of the port has the headers of a UDP packet, and then the inner packet, as
// transport.SessionPort says. WireGuard adds Overhead bytes to the IP and UDP headers, and
// padding:
//
//	| IPv4 20, IPv6 40 | UDP 8 | type, receiver, counter 16 | inner packet | padding 0 to 15 | tag 16 |
//
// so MaxInner is the largest inner packet for a path MTU: 1440 over IPv4 and 1420 over IPv6
// for an MTU of 1500. Padding to a multiple of 16 hides the exact length. It must not make a
// packet larger than the path MTU, which the port does not know. So it only pads packets up to
// a length that fits all paths with an MTU of 1280, and larger ones have none. SetPadding
// changes that.
//
// Where a peer is, and that there is a session, is known from authenticated packets only: a
// session begins with a handshake, and moves with each packet that was decrypted and is no
// replay. The port starts handshakes with peers whose address it knows, and renews sessions
// that nobody uses, so that a session only ends when the peer does not answer any more.
package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"

	"sixfour/encap/header"
	"sixfour/transport"
)

// Overhead is how many bytes WireGuard adds to an inner packet, without padding: the header
// of a transport message and the tag of the authenticated encryption.
const Overhead = device.MessageTransportSize

// MaxInner returns the largest inner packet for a path MTU, between addresses of the IP
// version of a.
func MaxInner(pathMTU int, a netip.Addr) int { return pathMTU - header.HeadersLen(a) - Overhead }

// batchSize is how many packets pass at a time between the port, the device and the socket.
// The device reserves two buffers of 64 KiB for each, of which packets touch the first and
// the last page: an idle port needs 1 MB of memory, a busy one some 10 MB. A port has 10
// goroutines and 3 for each processor, and a peer has 2.
const batchSize = 64

// DefaultQueue is how many packets wait in each direction between the device and those who
// use the port, unless Config.Queue says otherwise.
const DefaultQueue = 512

// Config is the configuration of a port.
type Config struct {
	PrivateKey Secret

	// Local is the address and port of the socket. The address may be unspecified: then
	// packets leave from the address to which the peer sent last, and at first from that of
	// the route to the peer. If the port is 0, the kernel chooses one.
	Local netip.AddrPort

	Connected transport.Connected // may be nil

	// Queue is how many packets may wait in each direction, each in a buffer of its own;
	// 0: DefaultQueue.
	Queue int
}

// Port is a transport.SessionPort over WireGuard.
type Port struct {
	public    PublicKey
	connected transport.Connected
	options   transport.Options
	bind      *bind
	tunnel    *tunnel
	device    *device.Device

	mu    sync.Mutex // held while peers change or are looked at
	peers atomic.Pointer[table]

	known   atomic.Pointer[map[netip.AddrPort]struct{}] // addresses of peers with a session
	kick    chan struct{}                               // has a value if something may have changed
	closed  chan struct{}
	close   sync.Once
	watcher sync.WaitGroup
}

var _ transport.SessionPort = (*Port)(nil)

// Listen opens a port without peers, in the network namespace of the calling thread. Of the
// options, Mark and Device are used.
func Listen(c Config, o transport.Options) (*Port, error) {
	return listen(c, o, usualTiming)
}

func listen(c Config, o transport.Options, t timing) (*Port, error) {
	op := fmt.Sprintf("open WireGuard port at %v", c.Local)
	if c.PrivateKey == (Secret{}) {
		return nil, fmt.Errorf("%s: there is no private key", op)
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	if c.Queue < 1 {
		return nil, fmt.Errorf("%s: a queue has room for at least one packet, not %d", op, c.Queue)
	}
	p := &Port{
		public: c.PrivateKey.Public(), connected: c.Connected,
		options: transport.Options{Mark: o.Mark, Device: o.Device},
		kick:    make(chan struct{}, 1), closed: make(chan struct{}),
	}
	p.peers.Store(&table{})
	var err error
	if p.bind, err = newBind(c.Local, p.options, p.arrived); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	p.tunnel = newTunnel(c.Queue, &p.peers, p.Local())
	quiet := func(string, ...any) {}
	p.device = device.NewDevice(p.tunnel, p.bind, &device.Logger{Verbosef: quiet, Errorf: quiet})
	err = p.configure(fmt.Sprintf("private_key=%x\n", [32]byte(c.PrivateKey)))
	if err == nil {
		err = p.device.Up()
	}
	if err != nil {
		p.device.Close()
		return nil, fmt.Errorf("%s: %w", op, errors.Join(err, p.bind.port.Close()))
	}
	p.watcher.Go(func() { p.watch(t) })
	return p, nil
}

// Local returns the address and port of the socket.
func (p *Port) Local() netip.AddrPort { return p.bind.port.Local() }

// PublicKey returns the public key that the peers need.
func (p *Port) PublicKey() PublicKey { return p.public }

// SetPadding changes up to which length inner packets are padded: to a multiple of 16, but
// not beyond the length. It may be called concurrently with all other methods.
func (p *Port) SetPadding(length int) { p.tunnel.padding.Store(int64(length)) }

// Receive implements transport.Receiver. The addresses in the headers of a packet are that of
// the peer and the one to which the peer sent the packet; TOS and TTL are those with which it
// arrived.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	return p.tunnel.in.take(min(len(bufs), len(meta)), func(i int, s *slot) {
		meta[i] = transport.Meta{Segment: transport.Single}
		if len(s.b) <= len(bufs[i]) {
			meta[i].Size = copy(bufs[i], s.b)
		}
	})
}

// Lost implements transport.Receiver. It counts the packets that nobody received in time, but
// not those for which the socket had no room.
func (p *Port) Lost() (n uint32, ok bool) { return p.tunnel.lost.Load(), true }

// KernelHeaders implements transport.Port.
func (p *Port) KernelHeaders() int { return 0 }

// Streams implements transport.Port.
func (p *Port) Streams() bool { return false }

// Close implements transport.Port. It waits until the port calls Connected no more.
func (p *Port) Close() error {
	err := net.ErrClosed
	p.close.Do(func() {
		close(p.closed)
		err = p.tunnel.Close() // ends all that waits in a queue
		p.watcher.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, w := range p.peers.Load().peers {
			w.remove()
		}
		p.device.Close()
		err = errors.Join(err, p.bind.port.Close())
	})
	return err
}
