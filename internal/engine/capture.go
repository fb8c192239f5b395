package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/transport"
)

// captures are those that run, immutable: a change replaces them. Nil: none, which is
// all that the goroutines that carry packets look at, once for each batch.
type captures struct {
	list []captured
}

// captured is one capture, of the tunnel of a name. That stays when the tunnel's
// section changes.
type captured struct {
	tunnel string
	tap    *capture.Tap
}

// show shows a packet to those who capture a tunnel. What belongs to none, "", all
// see.
func (c *captures) show(tunnel string, p *capture.Packet) {
	if c == nil {
		return
	}
	p.ID = capture.NextID()
	for _, one := range c.list {
		if tunnel == "" || one.tunnel == tunnel {
			one.tap.Show(p)
		}
	}
}

// capturing is where captures begin and end.
type capturing struct {
	mu    sync.Mutex
	now   atomic.Pointer[captures]
	ended error // there are no more
}

// ErrTooMany means that as many captures run as there may.
var ErrTooMany = fmt.Errorf("%d captures run already: end one of them", capture.MaxTaps)

func (c *capturing) begin(tunnel string, tap *capture.Tap) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	var list []captured
	if old := c.now.Load(); old != nil {
		list = old.list
	}
	if len(list) >= capture.MaxTaps {
		return ErrTooMany
	}
	c.now.Store(&captures{append(slices.Clone(list), captured{tunnel, tap})})
	return nil
}

// end takes away the captures that are to end, and tells their readers why.
func (c *capturing) end(why error, which func(captured) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.now.Load()
	if old == nil {
		return
	}
	next := new(captures)
	for _, one := range old.list {
		if which(one) {
			one.tap.End(why)
		} else {
			next.list = append(next.list, one)
		}
	}
	if len(next.list) == 0 {
		next = nil
	}
	c.now.Store(next)
}

// close ends all captures, for good.
func (c *capturing) close(why error) {
	c.mu.Lock()
	c.ended = why
	c.mu.Unlock()
	c.end(why, func(captured) bool { return true })
}

var errDaemonEnds = errors.New("the daemon ends")

// Capture writes what goes through a tunnel as pcapng, until ctx ends, or as many
// packets are written as were asked for, or the tunnel is no more, which is an error
// then. An error before the first byte is about the request. Any goroutine may call it.
func (e *Engine) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	tap, err := capture.New(r)
	if err == nil {
		err = e.beginCapture(r.Tunnel, tap)
	}
	if err != nil {
		return err
	}
	defer e.captures.end(nil, func(c captured) bool { return c.tap == tap })
	return tap.Stream(ctx, out)
}

// beginCapture begins one of a tunnel that there is, which a reload does not take away
// meanwhile.
func (e *Engine) beginCapture(tunnel string, tap *capture.Tap) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var names []string
	for _, t := range e.tunnels {
		if t.cfg.Name == tunnel {
			return e.captures.begin(tunnel, tap)
		}
		names = append(names, t.cfg.Name)
	}
	return fmt.Errorf("there is no tunnel %q: there is %s", tunnel, anyOf(names))
}

// endCaptures ends those of a tunnel that is taken out of the configuration.
func (e *Engine) endCaptures(tunnel string) {
	e.captures.end(fmt.Errorf("tunnel %s was removed", tunnel), func(c captured) bool { return c.tunnel == tunnel })
}

// seen is who captures now; nil: nobody.
func (t *tunnel) seen() *captures {
	if t.capturing == nil {
		return nil
	}
	return t.capturing.now.Load()
}

// show shows a packet that belongs to no batch.
func (t *tunnel) show(p *capture.Packet) { t.seen().show(t.cfg.Name, p) }

// What a captured packet is, where its bytes do not say so.
const (
	noteHeld      = "a fragment: it waits for the rest"
	noteWhole     = "the last fragment to come of the inner packet, which is whole now"
	noteOurs      = "for the daemon itself"
	noteAnswered  = "the daemon itself answers it"
	noteAnswer    = "an answer of the daemon itself"
	noteKeepalive = "a keepalive: the daemon sends back what is inside"
	noteProbe     = "a probe of the daemon"
	noteProbed    = "answers a probe of the daemon"
	noteICMP      = "an ICMP error about a packet of the tunnel"
	noteNeighbour = "neighbour discovery: the daemon itself takes part"
)

// showProbe shows a probe of ours, which goes through the tunnel, or beside it.
func (p *peer) showProbe(pkt, echo []byte, inside bool) {
	c := capture.Packet{Direction: pcapng.Outbound, Outer: whole(pkt), Note: noteProbe}
	if inside {
		c.Inner = whole(echo)
	}
	p.t.show(&c)
}

// drops counts what the tunnel's goroutines of one direction do not carry.
func (t *tunnel) drops(name string, d pcapng.Direction) drops {
	return drops{log: t.log.Named(name), capturing: t.capturing, tunnel: t.cfg.Name, direction: d}
}

// lose counts a packet that is not carried, or several, logs it, and shows it to those
// who capture.
func (d *drops) lose(c *counters, p *capture.Packet) {
	pkt := p.Outer.Head
	if len(pkt) == 0 {
		pkt = p.Inner.Head
	}
	d.countN(c, p.Reason, max(p.Count, 1), pkt, p.Err)
	if d.capturing == nil {
		return
	}
	if seen := d.capturing.now.Load(); seen != nil {
		p.Direction = d.direction
		seen.show(d.tunnel, p)
	}
}

// whole is a packet in one piece, for captures.
func whole(b []byte) capture.Bytes { return capture.Bytes{Head: b} }

// innerOf is what is inside an outer packet that a stack has made: its last bytes.
func innerOf(outer transport.Packet, size int) capture.Bytes {
	at := outer.Len() - size
	if at <= len(outer.Head) {
		return capture.Bytes{Head: outer.Head[at:], Body: outer.Body}
	}
	return capture.Bytes{Head: outer.Body[at-len(outer.Head):]}
}

// flat is a packet in one piece.
func flat(b capture.Bytes) []byte {
	if len(b.Body) == 0 {
		return b.Head
	}
	return slices.Concat(b.Head, b.Body)
}

// keep copies a packet for as long as the batch lasts: what arrived, before it is
// decapsulated, which writes to it.
func (in *inbound) keep(pkt []byte) []byte {
	at := len(in.kept)
	in.kept = append(in.kept, pkt...)
	return in.kept[at:len(in.kept):len(in.kept)]
}

// outer is the packet at hand as it arrived; without captures, as far as it is still
// so.
func (in *inbound) outer() []byte {
	if in.seen != nil {
		return in.pkt
	}
	return in.bufs[in.hand][:in.sizes[in.hand]]
}

// endBatch forgets what was kept.
func (in *inbound) endBatch() {
	if in.kept != nil {
		in.kept = in.kept[:0]
		if in.seen == nil { // nobody captures any more
			in.kept = nil
		}
	}
}

// show shows the packet at hand, which was carried, or done with here, and what was
// inside.
func (in *inbound) show(t *tunnel, inner []byte, note string) {
	if in.seen != nil {
		in.seen.show(t.cfg.Name, &capture.Packet{Direction: pcapng.Inbound, Outer: whole(in.pkt), Inner: whole(inner), Note: note})
	}
}

// lose is for the packet at hand: what was inside, if that is known, and why it goes
// no further.
func (in *inbound) lose(s *sink, p *peer, inner []byte, r drop.Reason, err error) {
	s.drops.lose(&p.in, &capture.Packet{Outer: whole(in.outer()), Inner: whole(inner), Reason: r, Err: err})
}

// noteSent remembers a packet of an answer, if somebody captures.
func (in *inbound) noteSent(outer []byte) {
	if in.seen != nil {
		in.sent = append(in.sent, bytes.Clone(outer))
	}
}

// showAnswer shows the packet at hand and what the daemon has answered.
func (in *inbound) showAnswer(t *tunnel, inner, answer []byte) {
	if in.seen == nil {
		return
	}
	in.show(t, inner, noteAnswered)
	p := &capture.Packet{Direction: pcapng.Outbound, Inner: whole(answer), Note: noteAnswer}
	if p.Fragments = in.sent; len(in.sent) == 1 {
		p.Outer, p.Fragments = whole(in.sent[0]), nil
	}
	t.show(p)
	in.sent = nil
}

// keepFor remembers a packet until it is known whether the device takes it.
func (s *sink) keepFor(in *inbound, inner []byte) {
	s.kept = append(s.kept, capture.Packet{Direction: pcapng.Inbound, Outer: whole(in.pkt), Inner: whole(in.keep(inner)), Note: in.note})
}

// showKept shows the packets of a batch, of which the device has refused some. None
// of them stands for all.
func (s *sink) showKept(seen *captures, refused []int16, all bool, why drop.Reason, err error) {
	if len(s.kept) == 0 {
		return
	}
	for i := range s.kept {
		p := &s.kept[i]
		if all || slices.Contains(refused, int16(i)) {
			p.Reason, p.Err = why, err
		}
		seen.show(s.t.cfg.Name, p)
	}
	clear(s.kept)
	s.kept = s.kept[:0]
}

// lose is for packet i of the batch.
func (o *outbound) lose(i int, r drop.Reason, err error) {
	o.drops.lose(&o.peers[i].out, &capture.Packet{
		Outer: capture.Bytes(o.batch[i]), Inner: innerOf(o.batch[i], o.inner[i]), Reason: r, Err: err,
	})
}

// show shows n packets of the batch, from one on, which were sent.
func (o *outbound) show(seen *captures, from, n int) {
	for i := from; i < from+n; i++ {
		seen.show(o.t.cfg.Name, &capture.Packet{
			Direction: pcapng.Outbound, Outer: capture.Bytes(o.batch[i]), Inner: innerOf(o.batch[i], o.inner[i]),
		})
	}
}

// noteSent remembers an outer packet that belongs to no batch, if somebody captures.
func (o *outbound) noteSent(outer []byte) {
	if o.t.seen() != nil {
		o.sent = append(o.sent, bytes.Clone(outer))
	}
}

// showSent shows an inner packet and what it went in.
func (o *outbound) showSent(inner []byte) {
	if o.sent == nil {
		return
	}
	p := &capture.Packet{Direction: pcapng.Outbound, Inner: whole(inner)}
	if len(o.sent) == 1 {
		p.Outer = whole(o.sent[0])
	} else {
		p.Fragments = o.sent
	}
	o.t.show(p)
	o.sent = nil
}
