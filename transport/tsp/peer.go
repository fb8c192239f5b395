package tsp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/tsp"
)

// peer is a server of a port, and the tunnel that it grants.
type peer struct {
	port     *Port
	remote   netip.AddrPort
	settings atomic.Pointer[Settings]
	ctx      context.Context // ends with the peer
	stop     context.CancelFunc
	start    time.Time

	talks atomic.Uint64 // the server with which there is a dialogue, packed; 0: none
	at    atomic.Uint64 // the server with which there is a tunnel, packed; 0: none
	in    chan []byte   // messages of that server
	signs signs

	mu      sync.Mutex // guards the rest, and is held while functions of the user are called
	id      any
	removed bool
	grant   *Grant // of the present tunnel
}

// signs are the signs of life of a tunnel.
type signs struct {
	heard atomic.Uint32                // counts what came through the tunnel
	echo  atomic.Uint32                // identifies ours
	far   atomic.Pointer[header.Word6] // to which ours go
}

func newPeer(port *Port, id any, remote netip.AddrPort, s *Settings) *peer {
	p := &peer{port: port, remote: remote, id: id, in: make(chan []byte, 16), start: time.Now()}
	p.settings.Store(s)
	p.ctx, p.stop = context.WithCancel(port.ctx)
	return p
}

// keeps reports whether a datagram of the server is a packet of the tunnel. It takes what is
// not.
func (p *peer) keeps(b []byte, from uint64) bool {
	if tsp.IsPacket(b) {
		if p.at.Load() != from {
			return false
		}
		p.signs.heard.Add(1)
		return !p.isPong(b)
	}
	if isSignal(b) && len(b) <= maxSignalling {
		select {
		case p.in <- append([]byte(nil), b...):
		default: // it is sent again
		}
	}
	return false
}

// isPong reports whether a packet answers a sign of life.
func (p *peer) isPong(b []byte) bool {
	if len(b) < header.IPv6Len+icmp.HeaderLen || b[0]>>4 != 6 || b[6] != header.ICMPv6 || b[header.IPv6Len] != icmp.EchoReply6 {
		return false
	}
	far := p.signs.far.Load()
	return far != nil && header.ReadWord6(header.IPv6(b).Source()) == *far && uint32(binary.BigEndian.Uint16(b[header.IPv6Len+4:])) == p.signs.echo.Load()
}

// rename gives the peer another ID, and settings with other functions.
func (p *peer) rename(id any, s *Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.settings.Swap(s) != s
	if p.grant != nil && again && s.Granted != nil {
		s.Granted(*p.grant)
	}
	if id != p.id {
		p.id = id
		if p.grant != nil && p.grant.Type == tsp.V6UDPV4 && p.port.connected != nil {
			p.port.connected(id, p.grant.Server, nil)
		}
	}
}

// remove makes sure that no function of the user is called any more.
func (p *peer) remove() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = true
	p.at.Store(0)
	p.talks.Store(0)
}

// run negotiates, and keeps the tunnel alive, until the peer is removed.
func (p *peer) run() {
	wait := time.Duration(0)
	for p.ctx.Err() == nil {
		g, err := p.negotiate()
		if err != nil {
			p.failed(err)
			wait = p.next(wait, err)
			p.sleep(wait/2 + rand.N(wait/2+1))
			continue
		}
		wait = 0
		if !p.granted(g) {
			return
		}
		if g.Type == tsp.V6V4 {
			<-p.ctx.Done()
			return
		}
		p.ended(p.keep(&g))
		p.sleep(rand.N(p.port.timing.retry/2 + 1))
	}
}

// next returns how long to wait after a failure, if it was wait before.
func (p *peer) next(wait time.Duration, err error) time.Duration {
	t := &p.port.timing
	wait = min(max(2*wait, t.retry), t.most)
	var r *tsp.Refused
	if errors.As(err, &r) && r.Code <= tsp.BadType || errors.Is(err, tsp.ErrNoAuth) || errors.Is(err, tsp.ErrNoType) {
		wait = max(wait, t.refused)
	}
	return wait
}

func (p *peer) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// negotiate has the dialogue, over the port's own socket where it is over UDP.
func (p *peer) negotiate() (Grant, error) {
	n := negotiator{settings: p.settings.Load(), sockets: p.port.sockets, local: p.port.Local().Addr(), timing: p.port.timing, udp: p.talk}
	return n.negotiate(p.ctx, p.remote)
}

// talk returns a talker over the port's socket. The first dialogue has the sequence numbers that
// servers in the field know; later ones have others, so that late answers do not fit.
func (p *peer) talk(_ context.Context, server netip.AddrPort) (talker, error) {
	sequence := uint32(tsp.FirstSequence)
	if p.talks.Load() != 0 || p.signs.echo.Load() != 0 {
		sequence |= rand.Uint32N(1<<20) << 8
	}
	p.signs.echo.Store(1 + rand.Uint32N(0xffff))
	for len(p.in) > 0 {
		<-p.in
	}
	p.talks.Store(packed(server))
	head := make([]byte, headers)
	putHead(head, p.port.Local(), server)
	return &datagrams{
		exchange: tsp.NewExchange(p.start, sequence, p.port.timing.first), accept: p.port.timing.accept,
		send:    func(datagram []byte) error { return p.port.own.SendOne(append(head[:headers:headers], datagram...)) },
		receive: p.receive,
		end:     func() {},
	}, nil
}

// receive returns the next message of the server until a time; nil: there is none.
func (p *peer) receive(ctx context.Context, until time.Time) ([]byte, error) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case b := <-p.in:
		return b, nil
	case <-t.C:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// failed reports that an attempt has failed.
func (p *peer) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.settings.Load().Failed; f != nil && !p.removed {
		f(err)
	}
}

// granted reports a grant. It returns false if the peer was removed.
func (p *peer) granted(g Grant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return false
	}
	p.grant = &g
	if g.KeepaliveTo.IsValid() {
		far, _ := header.Word6Of(g.KeepaliveTo)
		p.signs.far.Store(&far)
	}
	if f := p.settings.Load().Granted; f != nil {
		f(g)
	}
	if g.Type == tsp.V6UDPV4 {
		p.at.Store(packed(g.Server))
		if p.port.connected != nil {
			p.port.connected(p.id, g.Server, nil)
		}
	}
	return true
}

// ended reports that the tunnel has ended.
func (p *peer) ended(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grant = nil
	p.at.Store(0)
	if !p.removed && p.port.connected != nil {
		p.port.connected(p.id, netip.AddrPort{}, why)
	}
}

// keep sends signs of life until the server does not answer any more, or does not know us.
func (p *peer) keep(g *Grant) error {
	interval := g.Keepalive
	if interval == 0 {
		interval = p.port.timing.keep
	}
	if !g.KeepaliveTo.IsValid() { // nothing can be known
		<-p.ctx.Done()
		return context.Cause(p.ctx)
	}
	ping, heard := p.ping(g), p.signs.heard.Load()
	for missed := 0; missed < p.port.timing.patience; {
		number := ping[headers+header.IPv6Len+6:]
		binary.BigEndian.PutUint16(number, binary.BigEndian.Uint16(number)+1)
		seal(ping[headers:])
		_ = p.port.own.SendOne(ping) // the next one comes soon
		wait := interval - rand.N(interval/4+1)
		if missed > 0 {
			wait = interval / 4
		}
		forgotten, err := p.pause(wait, missed == 0)
		if err != nil {
			return err
		}
		switch now := p.signs.heard.Load(); {
		case forgotten:
			missed = p.port.timing.patience - 1 // one more sign of life: anybody may have said it
		case now == heard:
			missed++
		default:
			missed = 0
		}
		heard = p.signs.heard.Load()
	}
	return fmt.Errorf("TSP server %v has not answered %d times", g.Server, p.port.timing.patience)
}

// pause waits. With listen it ends early, and forgotten is true, if the server says that it
// knows nothing of us.
func (p *peer) pause(d time.Duration, listen bool) (forgotten bool, err error) {
	until := time.Now().Add(d)
	for {
		b, err := p.receive(p.ctx, until)
		if b == nil || err != nil {
			return false, err
		}
		if h, _, ok := tsp.Parse(b); ok && tsp.Reset(h) && listen {
			return true, nil
		}
	}
}

// ping returns a sign of life, with outer headers: an ICMPv6 echo request.
func (p *peer) ping(g *Grant) []byte {
	b := make([]byte, headers+header.IPv6Len+icmp.HeaderLen+8)
	putHead(b, p.port.Local(), g.Server)
	ip := header.IPv6(b[headers:])
	ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, outerTTL
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-header.IPv6Len))
	from, to := g.Inner.As16(), g.KeepaliveTo.As16()
	copy(ip.Source(), from[:])
	copy(ip.Dest(), to[:])
	msg := ip.Payload()
	msg[0] = icmp.EchoRequest6
	binary.BigEndian.PutUint16(msg[4:], uint16(p.signs.echo.Load()))
	copy(msg[icmp.HeaderLen:], "sixfour!")
	return b
}

// seal writes the checksum of an ICMPv6 message.
func seal(ip header.IPv6) {
	msg := ip.Payload()
	msg[2], msg[3] = 0, 0
	binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)))
}
