package ayiya

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// Config is the configuration of a client's port.
type Config struct {
	// Local is the address and port of the socket. The address may be unspecified: then
	// packets leave from the address of the route to the server. If the port is 0, the
	// kernel chooses one.
	Local netip.AddrPort

	Connected transport.Connected // may be nil

	// Said is called with what a server says to people: its message of the day, and that it
	// shut the tunnel down. It must not block, nor call the port. It may be nil.
	Said func(id any, text string)
}

// Settings are the settings of a server, as the client has them: the type of
// SessionPeer.Settings is *Settings. They must not change.
type Settings struct {
	Client netip.Addr // our IPv6 address in the tunnel, which identifies us to the server
	Server netip.Addr // that of the server; the zero value: any identity, since the password proves it

	Secret string
	Hash   ayiya.Hash // 0: SHA1

	// Heartbeat is for how long nothing is sent before a heartbeat is, so that a NAT on the
	// way does not forget us; 0: DefaultHeartbeat. At most MaxHeartbeat.
	Heartbeat time.Duration

	// Window is by how much the clocks may differ; 0: ayiya.DefaultWindow.
	Window time.Duration
}

// Intervals of heartbeats. A server forgets a client that is silent for 120 s.
const (
	DefaultHeartbeat = 25 * time.Second
	MaxHeartbeat     = 60 * time.Second
)

// String returns the identity of the client, and not the secret.
func (s *Settings) String() string { return "client " + s.Client.String() }

// GoString returns the same.
func (s *Settings) GoString() string { return s.String() }

// Port is a transport.SessionPort of a client. Its peers are servers.
//
// AYIYA has no answer to a heartbeat. A server is connected with the first packet from it that
// is signed with the password. To get one, the port sends an echo request together with the
// first heartbeats. Servers of the original kind do not answer it, and some send nothing
// before the tunnel is used: so a server that has answered nothing within some seconds after
// the port could send to it is taken for connected, too. A server that has answered an
// echo request before, and then is silent for more than three intervals although the port
// asks again, is not connected any more until it answers.
type Port struct {
	udp     *transport.UDPPort
	tx      transport.Sender // for packets of the port itself
	options transport.Options
	config  Config
	timing  timing

	mu    sync.Mutex // held while servers change
	peers atomic.Pointer[map[netip.AddrPort]*peer]

	wake    chan struct{} // has a value if a server may need something
	closed  chan struct{}
	close   sync.Once
	running sync.WaitGroup
}

var _ transport.SessionPort = (*Port)(nil)

// Listen opens a port without servers, in the network namespace of the calling thread. Of the
// options, Mark and Device are used.
func Listen(c Config, o transport.Options) (*Port, error) { return listen(c, o, usualTiming) }

func listen(c Config, o transport.Options, t timing) (*Port, error) {
	op := fmt.Sprintf("open AYIYA port at %v", c.Local)
	p := &Port{
		config: c, timing: t, options: transport.Options{Mark: o.Mark, Device: o.Device},
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	p.peers.Store(&map[netip.AddrPort]*peer{})
	o = p.options
	o.Headers = true
	var err error
	if p.udp, err = transport.ListenUDP(c.Local, transport.Shard{}, o); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if p.tx, err = p.udp.Sender(p.options); err != nil {
		return nil, fmt.Errorf("%s: %w", op, errors.Join(err, p.udp.Close()))
	}
	p.running.Go(p.run)
	return p, nil
}

// Local returns the address and port of the socket.
func (p *Port) Local() netip.AddrPort { return p.udp.Local() }

// Lost implements transport.Receiver.
func (p *Port) Lost() (n uint32, ok bool) { return p.udp.Lost() }

// KernelHeaders implements transport.Port.
func (p *Port) KernelHeaders() int { return 0 }

// Streams implements transport.Port.
func (p *Port) Streams() bool { return false }

// Close implements transport.Port. It waits until the port calls Connected no more.
func (p *Port) Close() error {
	err := net.ErrClosed
	p.close.Do(func() {
		close(p.closed)
		p.running.Wait()
		p.mu.Lock()
		for _, s := range *p.peers.Load() {
			s.remove()
		}
		p.mu.Unlock()
		err = p.udp.Close()
	})
	return err
}

// SetPeers implements transport.SessionPort. Servers that stay the same, except for the ID, go
// on, and are reported with the new ID. Connected is not called for a server that is removed
// here, nor afterwards.
func (p *Port) SetPeers(list []transport.SessionPeer) error {
	if err := p.check(list); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return net.ErrClosed
	default:
	}
	old, now := *p.peers.Load(), make(map[netip.AddrPort]*peer, len(list))
	for _, l := range list {
		if had := old[l.Remote]; had != nil && *had.settings == *l.Settings.(*Settings) {
			had.rename(l.ID)
			now[l.Remote] = had
			continue
		}
		now[l.Remote] = newPeer(p, l)
	}
	for at, had := range old {
		if now[at] != had {
			had.remove()
		}
	}
	p.peers.Store(&now)
	p.signal()
	return nil
}

func (p *Port) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// check returns an error if the port cannot have these servers.
func (p *Port) check(list []transport.SessionPeer) error {
	at := map[netip.AddrPort]bool{}
	for i, l := range list {
		s, ok := l.Settings.(*Settings)
		if !ok || s == nil {
			return fmt.Errorf("server %d: its settings are of type %T, not *ayiya.Settings", i, l.Settings)
		}
		if err := p.checkOne(l.Remote, s); err != nil {
			return fmt.Errorf("server %v: %w", l.Remote, err)
		}
		if at[l.Remote] {
			return fmt.Errorf("two servers are at %v", l.Remote)
		}
		at[l.Remote] = true
	}
	return nil
}

func (p *Port) checkOne(remote netip.AddrPort, s *Settings) error {
	a := remote.Addr()
	switch {
	case !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || remote.Port() == 0:
		return errors.New("this is not an address and port to send to")
	case a.Is4() != p.Local().Addr().Is4():
		return fmt.Errorf("its address and ours, %v, are not of the same IP version", p.Local().Addr())
	case !isIdentity(s.Client):
		return fmt.Errorf("the identity %v is not an IPv6 address", s.Client)
	case s.Server.IsValid() && !isIdentity(s.Server):
		return fmt.Errorf("the server's identity %v is not an IPv6 address", s.Server)
	case s.Client == s.Server:
		return fmt.Errorf("both ends have the identity %v", s.Client)
	case s.Secret == "":
		return errors.New("there is no password")
	case s.Hash != 0 && s.Hash.Size() == 0:
		return fmt.Errorf("%v: choose md5, sha1 or sha256", s.Hash)
	case s.Heartbeat < 0 || s.Heartbeat > MaxHeartbeat:
		return fmt.Errorf("a heartbeat each %v: at least each %v", s.Heartbeat, MaxHeartbeat)
	case s.Window < 0 || s.Window > maxWindow:
		return fmt.Errorf("a difference of clocks of %v: at most %v", s.Window, maxWindow)
	}
	return nil
}

func isIdentity(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && !a.IsUnspecified() && a.Zone() == ""
}

// Receive implements transport.Receiver. The addresses in the headers of a packet are that of
// the server and the one to which the server sent the packet; TOS and TTL are those with
// which it arrived. Messages of the protocol are only handled while Receive is called.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	for {
		n, err := p.udp.Receive(bufs, meta)
		if err != nil {
			return 0, err
		}
		now, kept := time.Now(), 0
		for i := range n {
			size, each := p.open(bufs[i], &meta[i], now)
			if size == 0 {
				continue
			}
			if i != kept { // after a message that is no packet, which is rare
				size = copy(bufs[kept], bufs[i][:size])
			}
			meta[kept] = transport.Meta{Segment: transport.Single, Size: size, Each: each}
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// open removes the headers of AYIYA from the datagrams of a buffer, and whatever is no inner
// packet. It returns the size of what is left, and the length of each packet if there are
// several.
func (p *Port) open(b []byte, m *transport.Meta, now time.Time) (size, each int) {
	s := (*p.peers.Load())[m.Outer.From]
	front := header.HeadersLen(m.Outer.From.Addr())
	if s == nil || m.Size <= front {
		return 0, 0
	}
	step := m.Each
	if step == 0 {
		step = m.Size - front
	}
	first, packets, end := 0, 0, front
	for at := front; at < m.Size; at += step {
		to := min(at+step, m.Size)
		inner := s.open(b[at:to:to], &m.Outer, now)
		if len(inner) == 0 {
			continue
		}
		if packets == 0 {
			first = len(inner)
		}
		// All have the same length but the last one, because their headers have.
		end += copy(b[end:], inner)
		packets++
	}
	if packets == 0 {
		return 0, 0
	}
	if packets > 1 {
		each = first
	}
	header.PutHeaders(b[:front+first], &m.Outer)
	return end, each
}
