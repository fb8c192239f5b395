package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/hostwatch"
	"sixfour/internal/nft"
	"sixfour/transport"
	"sixfour/transport/access"
)

// protocol41 exchanges packets of clients in protocol 41 at one IPv4 address of ours: of those
// whose outer addresses are known by heartbeats, and of those that TSP has set up.
type protocol41 struct {
	local  [4]byte
	port   *transport.RawPort
	sender transport.Sender
	log    *zap.Logger
	ended  context.CancelFunc
	done   sync.WaitGroup
	lost   atomic.Uint64 // packets that are no client's

	mu    sync.RWMutex
	links map[uint32]*link41 // those of TSP, by outer address

	// beats receives packets from other addresses; nil: nothing does.
	beats atomic.Pointer[func(outer netip.Addr, packet []byte) drop.Reason]
}

// silence41 is after which time without a packet a client in protocol 41 has left. Its address
// may be another's by then. There is no sign of life in this protocol, so that it is long.
const silence41 = time.Hour

// open41 opens the socket at an address.
func open41(local netip.Addr, o transport.Options, log *zap.Logger) (*protocol41, error) {
	if !local.Is4() || local.IsUnspecified() {
		return nil, fmt.Errorf("protocol 41 at %v: it needs an IPv4 address", local)
	}
	port, err := transport.ListenRaw(local, unix.IPPROTO_IPV6, transport.Shard{}, o)
	if err != nil {
		return nil, err
	}
	sender, err := port.Sender(o)
	if err != nil {
		port.Close()
		return nil, err
	}
	p := &protocol41{local: local.As4(), port: port, sender: sender, log: log, links: map[uint32]*link41{}}
	var ctx context.Context
	ctx, p.ended = context.WithCancel(context.Background())
	p.done.Go(p.receive)
	p.done.Go(func() { p.watch(ctx) })
	return p, nil
}

func (p *protocol41) close() {
	p.ended()
	p.port.Close()
	p.sender.Close()
	p.done.Wait()
}

// receive hands packets to the clients until the port is closed.
func (p *protocol41) receive() {
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, maxPacket41)
	}
	for {
		n, err := p.port.Receive(bufs, meta)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(10 * time.Millisecond)
			continue
		}
		for i := range n {
			if p.take(bufs[i][:meta[i].Size]) != drop.None {
				p.lost.Add(1)
			}
		}
	}
}

// maxPacket41 is more than clients send: the MTU of tunnels is much smaller.
const maxPacket41 = 4096

// take hands a packet to the client at its outer source.
func (p *protocol41) take(pkt []byte) drop.Reason {
	pkt, r := header.ParseReceived(pkt, 4)
	if r != drop.None {
		return r
	}
	ip := header.IPv4(pkt)
	inner := ip.Payload()
	p.mu.RLock()
	l := p.links[binary.BigEndian.Uint32(ip.Source())]
	p.mu.RUnlock()
	if l != nil {
		if c := l.client.Load(); c != nil {
			l.heard.Store(true)
			return (*c).Receive(inner)
		}
		return drop.ForeignSource
	}
	if beats := p.beats.Load(); beats != nil {
		return (*beats)(ip.Src(), inner)
	}
	return drop.ForeignSource
}

// buffers41 are for packets that are sent.
var buffers41 = sync.Pool{New: func() any { return new([header.IPv4Len + maxPacket41]byte) }}

// send sends an inner packet to an outer address.
func (p *protocol41) send(outer netip.Addr, packet []byte) error {
	if len(packet) > maxPacket41 || !outer.Is4() {
		return unix.EMSGSIZE
	}
	buf := buffers41.Get().(*[header.IPv4Len + maxPacket41]byte)
	defer buffers41.Put(buf)
	ip := header.IPv4(buf[:header.IPv4Len+copy(buf[header.IPv4Len:], packet)])
	clear(ip[:header.IPv4Len])
	ip[0], ip[1], ip[8], ip[9] = 0x45, packet[0]<<4|packet[1]>>4, 64, header.ProtoIPv6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	to := outer.As4()
	copy(ip.Source(), p.local[:])
	copy(ip.Dest(), to[:])
	ip.SetChecksum()
	return p.sender.SendOne(ip)
}

// link returns the link to a client of TSP.
func (p *protocol41) link(outer netip.Addr) access.Link { return &link41{port: p, outer: outer} }

// link41 is the link to a client whose outer address does not change.
type link41 struct {
	port   *protocol41
	outer  netip.Addr
	client atomic.Pointer[access.Client]
	heard  atomic.Bool // since the last look
	quiet  int         // how many looks ago it was heard; only watch uses it
}

func (l *link41) key() uint32 { b := l.outer.As4(); return binary.BigEndian.Uint32(b[:]) }

// Send implements access.Link.
func (l *link41) Send(packet []byte) error { return l.port.send(l.outer, packet) }

// Attached takes note of the client, whose packets are received from now on. A former client
// at the same address is ended.
func (l *link41) Attached(c access.Client) {
	l.client.Store(&c)
	l.port.mu.Lock()
	old := l.port.links[l.key()]
	l.port.links[l.key()] = l
	l.port.mu.Unlock()
	if old != nil && old != l {
		if c := old.client.Load(); c != nil {
			(*c).Leave("another client has its address")
		}
	}
}

// End implements access.Link.
func (l *link41) End(*access.Refusal) { l.remove() }

// Left takes note that the client has left.
func (l *link41) Left() { l.remove() }

func (l *link41) remove() {
	l.port.mu.Lock()
	defer l.port.mu.Unlock()
	if l.port.links[l.key()] == l {
		delete(l.port.links, l.key())
	}
}

// watch ends clients that are silent, and suppresses the kernel's own answers to their packets.
func (p *protocol41) watch(ctx context.Context) {
	const every = 30 * time.Second
	shield := hostwatch.Shield{Log: p.log}
	defer shield.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		shield.Update([]nft.Endpoint{{Local: netip.AddrFrom4(p.local), Protocol: header.ProtoIPv6}})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var silent []*link41
		p.mu.RLock()
		for _, l := range p.links {
			if l.heard.Swap(false) {
				l.quiet = 0
			} else if l.quiet++; time.Duration(l.quiet)*every > silence41 {
				silent = append(silent, l)
			}
		}
		p.mu.RUnlock()
		for _, l := range silent {
			if c := l.client.Load(); c != nil {
				(*c).Leave("it was silent for " + silence41.String())
			}
			l.remove()
		}
	}
}
