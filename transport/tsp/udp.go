package tsp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sixfour/encap/header"
	"sixfour/encap/tsp"
	"sixfour/transport"
)

// arrivals is how many datagrams the server receives at a time. Each may have several packets
// of one flow.
const arrivals = 32

// receive receives datagrams until the server ends.
func (s *Server) receive() {
	bufs, meta := make([][]byte, arrivals), make([]transport.Meta, arrivals)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := s.port.Receive(bufs, meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		now := time.Now()
		for i := range n {
			s.datagrams(bufs[i][:meta[i].Size], meta[i].Each, &meta[i].Outer, now)
		}
	}
}

// datagrams takes what was received at once between two addresses and ports: one datagram, or
// several of the size each, except for the last.
func (s *Server) datagrams(b []byte, each int, o *header.Outer, now time.Time) {
	key := tupleOf(o.From, o.At)
	var c *client
	for len(b) > 0 {
		one := b
		if each > 0 && each < len(b) {
			one = b[:each]
		}
		b = b[len(one):]
		switch {
		case !tsp.IsPacket(one):
			if h, text, ok := tsp.Parse(one); ok {
				s.signal(h, text, key, o, now)
			}
		case one[0]>>4 == 6:
			if c == nil {
				c = s.clients.find(key)
			}
			if c != nil {
				c.receive(one, now)
			}
		}
	}
}

// Limits of dialogues over UDP.
const (
	maxDialogs    = 4096 // of several, the one without a message for the longest time makes room
	maxDialogsOf  = 64   // of one address
	newPerSecond  = 1000 // new ones, of all addresses: their first answers are longer than what they ask
	newAtOnce     = 2000
	maxSignalling = tsp.HeaderLen + tsp.MaxMessage // bytes of a datagram
)

// dialogs are the dialogues over UDP.
type dialogs struct {
	mu    sync.Mutex
	m     map[tuple]*dialog
	of    map[uint32]int // how many an address has
	first *dialog        // the one without a message for the longest time
	last  *dialog
	fresh *rate.Limiter
}

func (d *dialogs) init() {
	d.m, d.of = make(map[tuple]*dialog), make(map[uint32]int)
	d.fresh = rate.NewLimiter(newPerSecond, newAtOnce)
}

// dialog is a dialogue over UDP with one client.
type dialog struct {
	key        tuple
	head       [headers]byte
	caller     *caller
	prev, next *dialog // in the order of their last messages; guarded by dialogs.mu
	last       time.Time

	mu       sync.Mutex // guards the rest
	busy     bool       // a goroutine works for the dialogue
	dialogue *tsp.Dialogue
	cache    *tsp.Cache
	moved    time.Time // when a new message came
}

func (k tuple) address() uint32 { return uint32(k.from >> 16) }

// find returns the dialogue with a tuple, and notes that it has a message.
func (d *dialogs) find(k tuple, now time.Time) *dialog {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.m[k]
	if g != nil {
		d.unlink(g)
		d.link(g, now)
	}
	return g
}

// add adds a dialogue. If there are too many, of its address or of all, an old one is
// forgotten.
func (d *dialogs) add(g *dialog, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.first
	if d.of[g.key.address()] >= maxDialogsOf {
		for old.key.address() != g.key.address() {
			old = old.next
		}
		d.remove(old)
	} else if len(d.m) >= maxDialogs {
		d.remove(old)
	}
	d.m[g.key] = g
	d.of[g.key.address()]++
	d.link(g, now)
}

// forget removes the dialogues without a message since a time.
func (d *dialogs) forget(before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.first != nil && d.first.last.Before(before) {
		d.remove(d.first)
	}
}

func (d *dialogs) remove(g *dialog) {
	d.unlink(g)
	delete(d.m, g.key)
	if d.of[g.key.address()]--; d.of[g.key.address()] == 0 {
		delete(d.of, g.key.address())
	}
}

func (d *dialogs) link(g *dialog, now time.Time) {
	g.last, g.prev, g.next = now, d.last, nil
	if d.last != nil {
		d.last.next = g
	} else {
		d.first = g
	}
	d.last = g
}

func (d *dialogs) unlink(g *dialog) {
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		d.first = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		d.last = g.prev
	}
	g.prev, g.next = nil, nil
}

// signal takes a message over UDP.
func (s *Server) signal(h tsp.Header, text []byte, key tuple, o *header.Outer, now time.Time) {
	if len(text) > maxSignalling {
		return
	}
	g := s.dialogs.find(key, now)
	if g == nil {
		if g = s.newDialog(text, key, o, now, h); g == nil {
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy {
		return // the client sends it again
	}
	stale := now.Sub(g.moved) > s.timing.restart || g.dialogue.Authenticated() || !g.dialogue.Started()
	if answer, known := g.cache.Find(h.Sequence, text); known && !(stale && tsp.Begins(text)) {
		if answer != nil {
			s.reply(g, h, answer)
		}
		return
	}
	begins := tsp.Begins(text)
	if (begins || !g.dialogue.Started()) && !s.config.Authority.Allow(o.From.Addr()) {
		return
	}
	if begins {
		g.begin(s)
	}
	g.moved = now
	if g.dialogue.Quick() {
		s.finish(g, h, text, g.dialogue.Receive(text, nil))
		return
	}
	select {
	case s.working <- struct{}{}:
	default:
		return // the client sends it again
	}
	g.busy = true
	text = append([]byte(nil), text...)
	s.running.Go(func() {
		a := g.dialogue.Receive(text, g.caller)
		<-s.working
		g.mu.Lock()
		defer g.mu.Unlock()
		g.busy = false
		s.finish(g, h, text, a)
	})
}

// newDialog makes a dialogue for a first message. It returns nil if there is none to be.
func (s *Server) newDialog(text []byte, key tuple, o *header.Outer, now time.Time, h tsp.Header) *dialog {
	if !s.dialogs.fresh.AllowN(now, 1) {
		return nil
	}
	g := &dialog{key: key}
	putHead(g.head[:], s.source(o.At), o.From)
	g.begin(s)
	if !tsp.Begins(text) {
		if s.config.Authority.Allow(o.From.Addr()) {
			if a := g.dialogue.Receive(text, nil); !a.Quiet {
				s.reply(g, h, a.Text)
			}
		}
		return nil
	}
	g.caller = &caller{server: s, from: o.From, at: o.At}
	s.dialogs.add(g, now)
	return g
}

// source returns the address and port from which datagrams to a client leave.
func (s *Server) source(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr(), s.local.Port())
}

// begin begins the dialogue, once more. The caller holds mu, or has the only reference.
func (g *dialog) begin(s *Server) {
	g.dialogue = tsp.NewDialogue(&s.offer, nonce, false)
	g.cache = new(tsp.Cache)
	if g.caller != nil {
		g.caller = &caller{server: s, from: g.caller.from, at: g.caller.at}
	}
}

// finish answers a message. The caller holds mu of the dialogue.
func (s *Server) finish(g *dialog, h tsp.Header, text []byte, a tsp.Answer) {
	if a.End {
		cache := g.cache // of the failed dialogue, for messages that come again
		g.begin(s)
		g.cache = cache
	}
	if a.Quiet {
		return
	}
	g.cache.Keep(h.Sequence, text, a.Text)
	s.reply(g, h, a.Text)
}

// reply sends an answer, with the header of the message.
func (s *Server) reply(g *dialog, h tsp.Header, answer []byte) {
	b := make([]byte, 0, headers+tsp.HeaderLen+len(answer))
	b = append(h.Append(append(b, g.head[:]...)), answer...)
	_ = s.sender.SendOne(b) // the client asks again
}
