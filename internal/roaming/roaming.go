// Package roaming exchanges the messages of package rendezvous: at the ports of paths that
// listen it learns where their peers are, and for paths with a secret that connect it says to
// the other end where we are.
package roaming

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/rendezvous"
	"sixfour/internal/recovery"
	"sixfour/transport"
)

// Listener is told where the peer of a path that listens is. The methods are called with a
// lock of the Exchange held, by any goroutine; they must not block, nor call the Exchange.
type Listener interface {
	// Moved is called when the peer is at another address and port than before; the zero
	// value: it has not said for a long time where it is.
	Moved(at netip.AddrPort)
	// Refused is called for a message of the peer, or a copy of one, that was refused.
	Refused(why string)
}

// Caller is a path that connects, with a secret. The same rules hold.
type Caller interface {
	// Ends returns the addresses and ports between which the path's packets are exchanged
	// now, and what sends them; not ok: it has none.
	Ends() (local, remote netip.AddrPort, tx transport.Sender, ok bool)
	// Answered is called for each answer of the other end. It is told why it refuses us; "":
	// it does not.
	Answered(a rendezvous.Answer, refused string)
	// Unanswered is called when several messages in a row were not answered.
	Unanswered()
}

// Exchange has all paths that listen, or that connect with a secret. Any goroutine may call
// its methods.
type Exchange struct {
	log  *zap.Logger
	wake chan struct{}

	mu      sync.Mutex
	ports   map[netip.AddrPort]*port // by our address and port
	callers map[Caller]*caller
}

// port is a port of ours at which peers arrive.
type port struct {
	tx    transport.Sender
	peers *rendezvous.Listener
	paths map[string]Listening // by their names
	again time.Time            // when peers may expire
}

// caller is a path that connects.
type caller struct {
	*rendezvous.Caller
	calling Calling
	again   time.Time
	silence int // messages in a row that were not answered
}

// suspicious is the number of messages without an answer that are reported.
const suspicious = 5

// New returns an Exchange without paths. Run must follow.
func New(log *zap.Logger) *Exchange {
	return &Exchange{log: log, wake: make(chan struct{}, 1), ports: make(map[netip.AddrPort]*port), callers: make(map[Caller]*caller)}
}

// Listening is a path that listens.
type Listening struct {
	Name   string         // of the path, different from that of all others
	Local  netip.AddrPort // where its peer arrives
	Secret string
	Tx     transport.Sender // sends through the port at Local
	Path   Listener
}

// Calling is a path that connects.
type Calling struct {
	Secret string
	Every  time.Duration // how often it says where we are
	Path   Caller
}

// Set replaces all paths. What is known of a path stays, if the path is in both lists with
// the same values. Errors are of secrets, and are about single paths: the others work.
func (x *Exchange) Set(listening []Listening, calling []Calling) (errs []error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	ports := make(map[netip.AddrPort]*port)
	for _, l := range listening {
		p := ports[l.Local]
		if p == nil {
			if p = x.ports[l.Local]; p == nil {
				p = &port{peers: rendezvous.NewListener(time.Now()), paths: make(map[string]Listening)}
			}
			p.tx = l.Tx
			ports[l.Local] = p
		}
	}
	for at, p := range ports {
		errs = append(errs, p.set(at, listening)...)
	}
	x.ports = ports
	callers := make(map[Caller]*caller)
	for _, c := range calling {
		if old := x.callers[c.Path]; old != nil && old.calling == c {
			callers[c.Path] = old
			continue
		}
		key, err := rendezvous.NewKey([]byte(c.Secret))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		callers[c.Path] = &caller{Caller: rendezvous.NewCaller(key, c.Every), calling: c}
	}
	x.callers = callers
	x.rouse()
	return errs
}

// set gives a port those paths that listen at it.
func (p *port) set(at netip.AddrPort, listening []Listening) (errs []error) {
	stay := make(map[string]bool)
	for _, l := range listening {
		if l.Local != at {
			continue
		}
		old, ok := p.paths[l.Name]
		if ok && old.Secret == l.Secret && old.Path == l.Path {
			stay[l.Name] = true
		}
	}
	for name := range p.paths {
		if !stay[name] {
			p.peers.Remove(name)
			delete(p.paths, name)
		}
	}
	for _, l := range listening {
		if l.Local != at {
			continue
		}
		if !stay[l.Name] {
			key, err := rendezvous.NewKey([]byte(l.Secret))
			if err == nil {
				err = p.peers.Add(l.Name, key)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.Name, err))
				continue
			}
		}
		p.paths[l.Name] = l
	}
	return errs
}

// ReceivePacket handles an outer packet if it is a message. The reason is drop.None if it was
// for one of the paths. It does not retain the packet.
func (x *Exchange) ReceivePacket(pkt []byte) (is bool, r drop.Reason) {
	o, payload, ok := header.OpenUDP(pkt)
	if !ok || !rendezvous.IsMessage(payload) {
		return false, drop.None
	}
	if !x.receive(o, payload) {
		return true, drop.Unauthenticated
	}
	return true, drop.None
}

// receive handles a message that arrived with the outer headers o.
func (x *Exchange) receive(o header.Outer, payload []byte) bool {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.callers {
		local, remote, _, ok := c.calling.Path.Ends()
		if !ok || o.From != remote || o.At != local {
			continue
		}
		a := c.Receive(o, payload, now)
		if a.Outcome > rendezvous.Stale {
			continue
		}
		c.silence = 0
		c.calling.Path.Answered(a, refusal(a.Outcome, a.Ahead))
		c.send(now)
		x.rouse()
		return true
	}
	p := x.ports[o.At]
	if p == nil {
		return false
	}
	e := p.peers.Receive(o, payload, now)
	l, known := p.paths[e.Peer]
	switch {
	case !known:
	case e.Moved:
		l.Path.Moved(o.From)
	case e.Outcome == rendezvous.Clock:
		l.Path.Refused(fmt.Sprintf("a message from %v was refused: %s", o.From, refusal(e.Outcome, -e.Ahead)))
	}
	p.next(now)
	x.rouse()
	return known
}

// refusal says why the other end does not accept a hello; ahead is its time less that of the
// end that sent the hello.
func refusal(o rendezvous.Outcome, ahead time.Duration) string {
	if o != rendezvous.Clock {
		return "" // the next hello is right
	}
	return fmt.Sprintf("the clocks of the two ends differ by %v: set them (NTP); at most %v are possible", ahead.Abs().Round(time.Second), rendezvous.Window)
}

// next sends the answers of a port, and reports peers that have not said where they are.
func (p *port) next(now time.Time) {
	send, expired, again := p.peers.Next(now)
	p.again = again
	for _, m := range send {
		transmit(p.tx, m.From, m.To, m.Bytes) // if it is lost, the peer asks again
	}
	for _, name := range expired {
		if l, ok := p.paths[name]; ok {
			l.Path.Moved(netip.AddrPort{})
		}
	}
}

// send sends the hello that is due, if there is one.
func (c *caller) send(now time.Time) {
	local, remote, tx, ok := c.calling.Path.Ends()
	if !ok {
		c.again = now.Add(noEndsPause)
		return
	}
	var hello []byte
	if hello, c.again = c.Next(now); hello != nil {
		transmit(tx, local, remote, hello)
		if c.silence++; c.silence == suspicious+1 {
			c.calling.Path.Unanswered()
		}
	}
}

// noEndsPause is the pause before another attempt while nothing can be sent.
const noEndsPause = 200 * time.Millisecond

// hops is the TTL of messages.
const hops = 64

// transmit sends a datagram. A failure is that of a datagram that is lost on the way.
func transmit(tx transport.Sender, from, to netip.AddrPort, payload []byte) {
	n := header.HeadersLen(from.Addr())
	pkt := make([]byte, n+len(payload))
	header.PutHeaders(pkt, &header.Outer{From: from, At: to, TTL: hops})
	if from.Addr().Is4() {
		pkt[6] = header.DF >> 8
		header.IPv4(pkt).SetChecksum()
	}
	copy(pkt[n:], payload)
	udp := pkt[n-header.UDPLen:]
	header.SetUDPChecksum(udp, ^header.Sum(udp, header.PseudoSum(from.Addr().AsSlice(), to.Addr().AsSlice(), len(udp), header.UDP)))
	_ = tx.SendOne(pkt)
}

// Wake makes a path that connects say again where we are, because our address may have
// changed, or because the other end does not answer.
func (x *Exchange) Wake(path Caller) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.callers[path]; c != nil {
		c.Wake(time.Now())
		c.again = time.Time{}
		x.rouse()
	}
}

func (x *Exchange) rouse() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run sends hellos until ctx ends.
func (x *Exchange) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-x.wake:
		}
		next := time.Now().Add(time.Second)
		recovery.Guard(x.log, "sending messages about addresses", func() { next = x.due(time.Now()) })
		timer.Reset(time.Until(next))
	}
}

// due sends what is due, and returns when more is.
func (x *Exchange) due(now time.Time) (again time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	again = now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.Before(again) {
			again = t
		}
	}
	for _, c := range x.callers {
		if !now.Before(c.again) {
			c.send(now)
		}
		sooner(c.again)
	}
	for _, p := range x.ports {
		if !p.again.IsZero() && !now.Before(p.again) {
			p.next(now)
		}
		if !p.again.IsZero() {
			sooner(p.again)
		}
	}
	return again
}
