package ayiya

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport/access"
)

// Limits of packets from clients that are not attached.
const (
	arrivingLen     = 256              // packets that wait until their account is looked up
	arrivingWorkers = 2                // goroutines that look up accounts
	maxAttaching    = 256              // clients with a right signature that wait for the broker at a time
	attachTime      = 15 * time.Second // in which the broker attaches a client
)

// arriving are the packets that no session verifies: of clients that are not attached, or
// whose secret has changed, and of anybody else. Goroutines look up their accounts, so that
// the packets of others do not wait for it. Those with a right signature then wait for the
// broker to attach the client, each in a goroutine of its own.
type arriving struct {
	server *Server
	queue  chan *first
	slots  chan struct{} // has a value for each client that the broker attaches
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting map[source]struct{} // those of whom a packet is being looked at
}

// first is a packet that may be the first one of a client.
type first struct {
	out   *outbox
	b     []byte
	id    identity
	outer header.Outer
}

// source is who sends a packet, as the packet says.
type source struct {
	id   identity
	from netip.AddrPort
}

func (a *arriving) init(s *Server) {
	a.server = s
	a.queue = make(chan *first, arrivingLen)
	a.slots = make(chan struct{}, maxAttaching)
	a.waiting = make(map[source]struct{})
	a.ctx, a.cancel = context.WithCancel(context.Background())
	for range arrivingWorkers {
		s.running.Go(a.work)
	}
}

func (a *arriving) close() { a.cancel() }

// put takes a packet, of which it keeps a copy. One packet of a source waits at a time, the
// others are dropped.
func (a *arriving) put(b *outbox, packet []byte, id *identity, o *header.Outer) {
	of := source{*id, o.From}
	if !a.begin(of) {
		return
	}
	s := a.server
	if !s.config.Authority.Allow(o.From.Addr()) {
		a.done(of)
		s.refuse(o.From, "", tooMany)
		return
	}
	f := &first{out: b, b: append([]byte(nil), packet...), id: *id, outer: *o}
	select {
	case a.queue <- f:
	default:
		a.done(of)
		s.refuse(o.From, "", busy)
	}
}

// begin reports whether no packet of the source is waiting, and notes that one is.
func (a *arriving) begin(of source) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.waiting[of]; ok {
		return false
	}
	a.waiting[of] = struct{}{}
	return true
}

func (a *arriving) done(of source) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, of)
}

// work looks at packets until the server is closed.
func (a *arriving) work() {
	for {
		select {
		case <-a.ctx.Done():
			return
		case f := <-a.queue:
			if !a.look(f) {
				a.done(source{f.id, f.outer.From})
			}
		}
	}
}

// look verifies a packet, and attaches its client. It reports whether that goes on.
func (a *arriving) look(f *first) (attaching bool) {
	s := a.server
	from := f.outer.From
	m, err := ayiya.Parse(f.b)
	if err != nil {
		return false
	}
	account, err := s.config.Authority.At(netip.AddrFrom16(f.id))
	if err != nil {
		s.refuse(from, account.Name, refusalFrom(err, noAccount))
		return false
	}
	if account.Secret == "" {
		s.refuse(from, account.Name, noSecret)
		return false
	}
	key := ayiya.NewKey(m.Hash, account.Secret)
	if !m.Verify(&key) {
		s.refuse(from, account.Name, wrongSecret)
		return false
	}
	now := s.config.Now()
	client := s.members.add(&f.id, place{from, f.outer.At}, s.elapsed(now))
	to, ok := s.accept(client, &m, &f.outer, now)
	if !ok {
		s.refuseLate(client, account.Name, &m, &f.outer, now)
		return false
	}
	if of := client.attached(); of != nil && of.key == key && to != nil { // attached meanwhile
		of.take(to, &m)
		return false
	}
	select {
	case a.slots <- struct{}{}:
	default:
		s.refuse(from, account.Name, busy)
		return false
	}
	if !client.begin() {
		<-a.slots
		return false
	}
	of := &session{member: client, out: f.out, key: key, server: ayiya.Identity(account.Endpoint.Broker), account: account.Name}
	s.running.Go(func() {
		defer func() {
			client.end()
			a.done(source{f.id, from})
			<-a.slots
		}()
		if a.attach(of, account, f) {
			of.take(of.client, &m)
		}
	})
	return true
}

// begin reports whether nobody attaches the client, and notes that the caller does.
func (m *member) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.attaching
	m.attaching = true
	return !was
}

func (m *member) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attaching = false
}

// attach makes the broker attach a client.
func (a *arriving) attach(of *session, account access.Account, f *first) bool {
	s := a.server
	ctx, cancel := context.WithTimeout(a.ctx, attachTime)
	defer cancel()
	client, err := s.config.Authority.Attach(ctx, account, access.Attachment{
		Protocol: protocol, From: f.outer.From, At: f.outer.At, Link: of,
	})
	if err != nil {
		of.ended.Store(true)
		if a.ctx.Err() == nil {
			s.refuse(f.outer.From, account.Name, refusalFrom(err, failed))
		}
		return false
	}
	of.client = client
	if !of.begin(s.elapsed(s.config.Now())) {
		return false
	}
	if s.config.Notice != nil {
		of.say(ayiya.MOTD, ayiya.AppendNotice(nil, *s.config.Notice))
	}
	return true
}
