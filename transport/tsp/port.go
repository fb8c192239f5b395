package tsp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/tsp"
	"sixfour/transport"
	"sixfour/transport/netsock"
)

// Port is a transport.SessionPort whose peers are servers. It carries packets of tunnels of the
// type v6udpv4. If a server grants a tunnel of the type v6v4, the port has nothing to carry: it
// calls Granted, and does no more for this peer. The dialogue goes on while somebody receives
// from the port.
type Port struct {
	udp       *transport.UDPPort
	own       transport.Sender // for what the port itself sends
	sockets   *netsock.Sockets
	connected transport.Connected
	options   transport.Options
	timing    asking

	ctx     context.Context // ends with the port
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex // held while peers change
	peers atomic.Pointer[[]*peer]
}

var _ transport.SessionPort = (*Port)(nil)

// Listen opens a port without peers, in the network namespace of the calling thread. Of the
// options, Mark and Device are used.
func Listen(c Config, o transport.Options) (*Port, error) { return listen(c, o, usualAsking) }

func listen(c Config, o transport.Options, t asking) (*Port, error) {
	op := fmt.Sprintf("open TSP port at %v", c.Local)
	if !c.Local.Addr().Is4() {
		return nil, fmt.Errorf("%s: the address must be IPv4: the tunnels carry IPv6 in IPv4", op)
	}
	p := &Port{connected: c.Connected, options: transport.Options{Mark: o.Mark, Device: o.Device}, timing: t}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.peers.Store(new([]*peer))
	withHeaders := p.options
	withHeaders.Headers = true
	var err error
	if p.udp, err = transport.ListenUDP(c.Local, transport.Shard{}, withHeaders); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if p.own, err = p.udp.Sender(p.options); err == nil {
		p.sockets, err = newSockets(p.options)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", op, errors.Join(err, p.udp.Close()))
	}
	return p, nil
}

// Local returns the address and port of the socket.
func (p *Port) Local() netip.AddrPort { return p.udp.Local() }

// Receive implements transport.Receiver. Messages of dialogues and answers to signs of life are
// not returned.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	for {
		n, err := p.udp.Receive(bufs, meta)
		if err != nil {
			return 0, err
		}
		kept, peers := 0, *p.peers.Load()
		for i := range n {
			if !sift(peers, bufs[i], &meta[i]) {
				continue
			}
			if kept != i && meta[i].Size <= len(bufs[kept]) {
				copy(bufs[kept], bufs[i][:meta[i].Size])
				meta[kept] = meta[i]
			}
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// sift keeps what is a packet of a tunnel in a buffer that was received, and hands the other
// datagrams to the peer. It reports whether anything is left.
func sift(peers []*peer, b []byte, m *transport.Meta) bool {
	from := packed(m.Outer.From)
	var of *peer
	for _, p := range peers {
		if p.talks.Load() == from || p.at.Load() == from {
			of = p
			break
		}
	}
	if of == nil {
		return false
	}
	if m.Size < headers {
		return true // too large for its buffer, which the caller counts
	}
	if m.Each == 0 || m.Size-headers <= m.Each {
		return of.keeps(b[headers:m.Size], from)
	}
	return siftAll(of, b, m, from)
}

// siftAll is sift for a buffer with several datagrams, all but the last of the same size. Those
// that stay follow each other.
func siftAll(of *peer, b []byte, m *transport.Meta, from uint64) bool {
	end, first := headers, 0
	for at := headers; at < m.Size; at += m.Each {
		one := b[at:min(at+m.Each, m.Size)]
		if of.keeps(one, from) {
			if end == headers {
				first = len(one)
			}
			end += copy(b[end:], one)
		}
	}
	if end == m.Size {
		return true
	}
	if m.Size = end; end == headers {
		return false
	}
	if end-headers <= m.Each {
		m.Each = 0
	}
	header.PutHeaders(b[:headers+first], &m.Outer)
	return true
}

// Lost implements transport.Receiver.
func (p *Port) Lost() (n uint32, ok bool) { return p.udp.Lost() }

// KernelHeaders implements transport.Port.
func (p *Port) KernelHeaders() int { return 0 }

// Streams implements transport.Port.
func (p *Port) Streams() bool { return false }

// SetPeers implements transport.SessionPort. Tunnels with peers that stay go on, also if they
// have other functions in their settings: then Granted is called again.
func (p *Port) SetPeers(list []transport.SessionPeer) error {
	if err := checkPeers(list); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return net.ErrClosed
	}
	old := *p.peers.Load()
	var peers, fresh []*peer
	for _, l := range list {
		s := l.Settings.(*Settings)
		i := slices.IndexFunc(old, func(o *peer) bool { return o.remote == l.Remote && o.settings.Load().equal(s) })
		if i >= 0 {
			old[i].rename(l.ID, s)
			peers = append(peers, old[i])
			continue
		}
		n := newPeer(p, l.ID, l.Remote, s)
		peers, fresh = append(peers, n), append(fresh, n)
	}
	p.peers.Store(&peers)
	for _, o := range old {
		if !slices.Contains(peers, o) {
			o.remove()
		}
	}
	for _, n := range fresh {
		p.running.Go(n.run)
	}
	return nil
}

func checkPeers(list []transport.SessionPeer) error {
	seen := make(map[netip.AddrPort]bool)
	for i, l := range list {
		s, ok := l.Settings.(*Settings)
		if !ok || s == nil {
			return fmt.Errorf("server %d: its settings are of type %T, not *tsp.Settings", i, l.Settings)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("server %v: %w", l.Remote, err)
		}
		if a := l.Remote.Addr(); !a.Is4() || a.IsUnspecified() || a.IsMulticast() || l.Remote.Port() == 0 {
			return fmt.Errorf("server %v: it is not an IPv4 address and port to send to", l.Remote)
		}
		if seen[l.Remote] {
			return fmt.Errorf("server %v is there twice", l.Remote)
		}
		seen[l.Remote] = true
	}
	return nil
}

// Close implements transport.Port. It waits until the port calls no function any more.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.stop()
	for _, o := range *p.peers.Load() {
		o.remove()
	}
	p.mu.Unlock()
	err := p.udp.Close()
	p.running.Wait()
	p.sockets.Close()
	return err
}

// sender is a sender of a port.
type sender struct {
	transport.Sender
	port                   *Port
	malformed, unconnected error
}

// Sender implements transport.Port. The mark and the device must be those of the port. Send
// returns an error that wraps ENOTCONN if there is no tunnel with the packet's destination, and
// EINVAL if the packet does not begin with the headers of a UDP packet from the port.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) {
	tx, err := p.udp.Sender(o)
	if err != nil {
		return nil, err
	}
	local := p.Local()
	return &sender{
		Sender: tx, port: p,
		malformed:   fmt.Errorf("send from %v: the bytes do not begin with the headers of a UDP packet from this port: %w", local, unix.EINVAL),
		unconnected: fmt.Errorf("send from %v: there is no tunnel with the destination: %w", local, unix.ENOTCONN),
	}, nil
}

// Send implements transport.Sender.
func (s *sender) Send(pkts []transport.Packet) (sent int, err error) {
	peers := *s.port.peers.Load()
	for sent < len(pkts) {
		n := 0
		for _, p := range pkts[sent:] {
			if err = s.check(peers, p.Head); err != nil {
				break
			}
			n++
		}
		if n > 0 {
			done, failed := s.run(pkts[sent : sent+n])
			if sent += done; failed != nil {
				return sent, failed
			}
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// run sends packets that are checked. Those without a checksum get one, as all packets of UDP
// have from a socket, and are afterwards as they were.
func (s *sender) run(pkts []transport.Packet) (int, error) {
	for _, p := range pkts {
		markSum(p.Head, 0, 1)
	}
	n, err := s.Sender.Send(pkts)
	for _, p := range pkts {
		markSum(p.Head, 1, 0)
	}
	return n, err
}

// markSum replaces a UDP checksum. One that is not 0 is computed by the kernel.
func markSum(head []byte, before, after byte) {
	if head[headers-2] == 0 && head[headers-1] == before {
		head[headers-1] = after
	}
}

// check returns an error if a packet cannot be sent.
func (s *sender) check(peers []*peer, head []byte) error {
	if len(head) < headers || head[0] != 0x45 || header.IPv4(head).Protocol() != header.UDP ||
		binary.BigEndian.Uint16(head[header.IPv4Len:]) != s.port.Local().Port() {
		return s.malformed
	}
	to := uint64(binary.BigEndian.Uint32(head[16:]))<<16 | uint64(binary.BigEndian.Uint16(head[header.IPv4Len+2:]))
	for _, p := range peers {
		if p.at.Load() == to {
			return nil
		}
	}
	return s.unconnected
}

// SendOne implements transport.Sender.
func (s *sender) SendOne(pkt []byte) error {
	if err := s.check(*s.port.peers.Load(), pkt); err != nil {
		return err
	}
	markSum(pkt, 0, 1)
	err := s.Sender.SendOne(pkt)
	markSum(pkt, 1, 0)
	return err
}

// isSignal reports whether a datagram is a message of a dialogue.
func isSignal(b []byte) bool {
	_, _, ok := tsp.Parse(b)
	return ok
}
