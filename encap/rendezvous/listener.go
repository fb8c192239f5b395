package rendezvous

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"time"

	"sixfour/encap/header"
)

const (
	// A cookie is valid in the period in which it was made and in the next one.
	cookiePeriod = time.Minute
	// refusalPause is the shortest pause between two answers to a peer about its clock or its
	// stamps: copies of an old hello must not make the listener send more.
	refusalPause = time.Second
	// sweepPause is the shortest pause between two searches for endpoints that have expired.
	sweepPause = time.Second
)

// Listener is the end to which others connect. It has any number of peers, each with a secret
// of its own, and its memory depends on their number only. It must not be used concurrently.
type Listener struct {
	peers   map[id]*peer
	names   map[string]*peer
	pending []*peer // with an answer
	sweep   time.Time
	counts  [Outcomes]uint64

	cookies hash.Hash
	sum     [sha256.Size]byte
	start   time.Time // the periods of cookies are counted from here
}

// peer is what a Listener knows of a peer.
type peer struct {
	name string
	key  *Key

	endpoint netip.AddrPort // invalid: not known
	until    time.Time      // when the endpoint expires
	last     stamp          // of the last hello that was accepted
	refused  time.Time      // when the last answer about its clock or its stamps was sent

	answer Message // Bytes is nil: none is pending
}

// Message is a datagram to send. From is the address and port of ours at which the message
// arrived that it answers. Bytes belong to the receiver of the Message.
type Message struct {
	From, To netip.AddrPort
	Bytes    []byte
}

// NewListener returns a Listener without peers. Its cookies are not valid for another one.
func NewListener(now time.Time) *Listener {
	var secret [sha256.Size]byte
	rand.Read(secret[:])
	return newListener(now, secret[:])
}

func newListener(now time.Time, secret []byte) *Listener {
	return &Listener{peers: map[id]*peer{}, names: map[string]*peer{}, cookies: hmac.New(sha256.New, secret), start: now}
}

// Add adds a peer.
func (l *Listener) Add(name string, key *Key) error {
	if _, ok := l.names[name]; ok {
		return fmt.Errorf("there already is a peer %s", name)
	}
	if other, ok := l.peers[key.id]; ok {
		return fmt.Errorf("peers %s and %s have the same secret: give each peer its own", other.name, name)
	}
	p := &peer{name: name, key: key}
	l.peers[key.id], l.names[name] = p, p
	return nil
}

// Remove removes a peer, if there is one with this name.
func (l *Listener) Remove(name string) {
	if p, ok := l.names[name]; ok {
		p.answer = Message{}
		delete(l.names, name)
		delete(l.peers, p.key.id)
	}
}

// Endpoint returns the address and port of a peer; invalid: they are not known.
func (l *Listener) Endpoint(name string) netip.AddrPort {
	if p, ok := l.names[name]; ok {
		return p.endpoint
	}
	return netip.AddrPort{}
}

// Counts returns how many messages had each Outcome.
func (l *Listener) Counts() [Outcomes]uint64 { return l.counts }

// Event is what a Listener learns from a message.
type Event struct {
	Outcome Outcome
	Peer    string // ""; the message is not from a peer
	Moved   bool   // the peer's endpoint is now another one; or it was not known before
	// Ahead is the peer's time less ours, if the Outcome is up to Stale. A copy of an old
	// message has an old time.
	Ahead time.Duration
}

// Receive handles the payload of a datagram, for which IsMessage is true. It does not retain
// b. Next returns the answer, if there is one.
func (l *Listener) Receive(o header.Outer, b []byte, now time.Time) Event {
	e, p := l.judge(o, b, now)
	l.counts[e.Outcome]++
	if p == nil {
		return e
	}
	e.Peer = p.name
	switch e.Outcome {
	case Accepted:
		p.last = stampOf(b)
		e.Moved = p.endpoint != o.From
		p.endpoint = o.From
		lifetime := time.Duration(binary.BigEndian.Uint16(b[atLifetime:])) * lifetimeUnit
		p.until = now.Add(min(max(lifetime, shortestLifetime), longestLifetime))
		if l.sweep.IsZero() || p.until.Before(l.sweep) {
			l.sweep = p.until
		}
	case Clock, Stale:
		if since := now.Sub(p.refused); since >= 0 && since < refusalPause {
			return e
		}
		p.refused = now
	}
	l.answer(p, e.Outcome, o, b, now)
	return e
}

// judge returns what becomes of a message. The peer is not nil if the message is from its
// holder of the secret, or is a copy of such a message.
func (l *Listener) judge(o header.Outer, b []byte, now time.Time) (e Event, p *peer) {
	if e.Outcome = check(b, typeHello); e.Outcome != Accepted {
		return e, nil
	}
	p, ok := l.peers[id(b[atID:atTime])]
	if !ok {
		e.Outcome = Stranger
		return e, nil
	}
	if !p.key.valid(b) {
		e.Outcome = Forged
		return e, nil
	}
	s := stampOf(b)
	e.Ahead = s.minus(now)
	if p.last.minus(now) > Window {
		p.last = stamp{} // our clock was set back
	}
	switch {
	case e.Ahead.Abs() > Window:
		e.Outcome = Clock
	case !s.after(p.last):
		e.Outcome = Stale
	case !l.gave(p, o, b, now):
		e.Outcome = Challenged
	}
	return e, p
}

// gave reports whether the cookie of a message is one for its address and port.
func (l *Listener) gave(p *peer, o header.Outer, b []byte, now time.Time) bool {
	period := l.period(now)
	this := hmac.Equal(b[atCookie:atListenersTime], l.cookie(p, o, period))
	last := hmac.Equal(b[atCookie:atListenersTime], l.cookie(p, o, period-1))
	return this || last
}

// period returns the number of a period of cookies.
func (l *Listener) period(now time.Time) int64 { return int64(now.Sub(l.start) / cookiePeriod) }

// cookie returns the cookie for the addresses and ports of a message, which is valid until
// the next call.
func (l *Listener) cookie(p *peer, o header.Outer, period int64) []byte {
	var b [idLen + 8 + 2*(16+2)]byte
	at := copy(b[:], p.key.id[:])
	binary.BigEndian.PutUint64(b[at:], uint64(period))
	at += 8
	for _, a := range [...]netip.AddrPort{o.From, o.At} {
		address := a.Addr().As16()
		at += copy(b[at:], address[:])
		binary.BigEndian.PutUint16(b[at:], a.Port())
		at += 2
	}
	l.cookies.Reset()
	l.cookies.Write(b[:])
	return l.cookies.Sum(l.sum[:0])[:cookieLen]
}

// answer makes the answer to a hello. A peer has at most one pending answer, and one that
// accepts a hello is not replaced by a refusal.
func (l *Listener) answer(p *peer, outcome Outcome, o header.Outer, hello []byte, now time.Time) {
	switch {
	case p.answer.Bytes == nil:
		l.pending = append(l.pending, p)
	case outcome != Accepted && Outcome(p.answer.Bytes[atOutcome]) == Accepted:
		return
	}
	b := begin(typeAnswer, p.key)
	b[atOutcome] = byte(outcome)
	copy(b[atCounter:atID], hello[atCounter:])
	copy(b[atTime:atLifetime], hello[atTime:])
	putEndpoint(b, o.From)
	copy(b[atCookie:], l.cookie(p, o, l.period(now)))
	putTime(b[atListenersTime:], now)
	p.key.seal(b)
	p.answer = Message{From: o.At, To: o.From, Bytes: b}
}

// Next returns the answers to send now, the names of peers whose endpoints have expired
// because there was no hello for their lifetime, and the time by which to call Next again;
// zero means only after Receive. Call it after each Receive.
func (l *Listener) Next(now time.Time) (send []Message, expired []string, again time.Time) {
	for _, p := range l.pending {
		if p.answer.Bytes != nil { // otherwise the peer was removed
			send = append(send, p.answer)
			p.answer = Message{}
		}
	}
	clear(l.pending)
	l.pending = l.pending[:0]
	if l.sweep.IsZero() || now.Before(l.sweep) {
		return send, nil, l.sweep
	}
	l.sweep = time.Time{}
	for _, p := range l.peers {
		switch {
		case !p.endpoint.IsValid():
		case !p.until.After(now):
			p.endpoint = netip.AddrPort{}
			expired = append(expired, p.name)
		case l.sweep.IsZero() || p.until.Before(l.sweep):
			l.sweep = p.until
		}
	}
	if least := now.Add(sweepPause); !l.sweep.IsZero() && l.sweep.Before(least) {
		l.sweep = least
	}
	return send, expired, l.sweep
}
