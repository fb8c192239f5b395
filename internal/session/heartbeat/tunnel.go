package heartbeat

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/transport/access"
)

// tunnel is what is known of a tunnel since its first message. It stays after the client has
// gone for as long as messages can be replayed. The Server's lock protects it.
type tunnel struct {
	inner     netip.Addr
	last      stamp
	beaten    time.Time // when the last message came that says that the tunnel is in use
	outer     netip.Addr
	link      *link // nil: the client is not attached
	attaching bool
	gone      bool // the client left while it was being attached
}

// stamp is the time in a message, and where that came from.
type stamp struct {
	epoch int64
	from  netip.Addr
}

// replayed reports whether a message may be a copy of an earlier one: it is older than the last
// one that was accepted, or as old, and comes from somewhere else. Clients repeat a message
// within a second. A last message that is not within the window any more, because our clock
// was set back, proves nothing: copies of it are refused for their time.
func (s stamp) replayed(epoch int64, from netip.Addr, now int64, window time.Duration) bool {
	if !s.from.IsValid() || s.epoch > now+int64(window/time.Second) {
		return false
	}
	return epoch < s.epoch || epoch == s.epoch && from != s.from
}

// link carries packets to a client.
type link struct {
	server *Server
	tunnel *tunnel
	client access.Client // nil: Attach has not returned
	outer  atomic.Pointer[netip.Addr]
	ended  atomic.Bool // by the Authority
}

var errEnded = errors.New("the client is not attached any more")

// Send sends an inner packet to where the client is.
func (l *link) Send(packet []byte) error {
	if l.ended.Load() {
		return errEnded
	}
	return l.server.config.Send(*l.outer.Load(), packet)
}

// End is called by the Authority: the next message attaches the client again.
func (l *link) End(*access.Refusal) {
	l.ended.Store(true)
	s := l.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.tunnel.link == l {
		l.tunnel.link = nil
		s.routes.remove(l)
	}
}

// beat is called with the lock held for a message that says that a tunnel is in use. It
// returns the client, if it is attached.
func (s *Server) beat(t *tunnel, a access.Account, outer netip.Addr) access.Client {
	moved := t.outer != outer
	t.outer = outer
	t.gone = false
	switch {
	case t.link != nil:
		if moved {
			s.routes.move(t.link, outer)
		}
		return t.link.client
	case !t.attaching:
		t.attaching = true
		s.done.Go(func() { s.attach(t, a, outer) })
	}
	return nil
}

// remove is called with the lock held when a client has gone. It returns the client, if it was
// attached: its Leave must follow, without the lock.
func (s *Server) remove(t *tunnel) access.Client {
	t.gone = true
	l := t.link
	if l == nil {
		return nil
	}
	t.link = nil
	s.routes.remove(l)
	return l.client
}

// attach attaches a client. It waits for the lease to be written.
func (s *Server) attach(t *tunnel, a access.Account, outer netip.Addr) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, attachTimeout)
	defer cancel()
	l := &link{server: s, tunnel: t}
	l.outer.Store(&outer)
	from := netip.AddrPortFrom(outer, 0)
	c, err := s.config.Authority.Attach(ctx, a, access.Attachment{Protocol: protocol, From: from, At: s.at(), Link: l})
	s.mu.Lock()
	t.attaching = false
	if err != nil {
		s.mu.Unlock()
		s.config.Authority.Refuse(protocol, from, a.Name, refusal(err))
		return
	}
	if l.ended.Load() {
		s.mu.Unlock()
		return
	}
	if t.gone || s.closed {
		s.mu.Unlock()
		c.Leave("the client does not use the tunnel any more")
		return
	}
	l.client = c
	t.link = l
	s.routes.add(l, t.outer)
	moved := t.outer
	s.mu.Unlock()
	if moved != outer {
		c.Heard(netip.AddrPortFrom(moved, 0), s.at())
	}
}

// sweep ends clients that are silent, until the Server is closed.
func (s *Server) sweep() {
	tick := time.NewTicker(max(s.config.Timeout/sweeps, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.expire(s.config.Now())
		}
	}
}

// expire ends clients that have been silent for too long, and forgets tunnels of which no
// message can be replayed.
func (s *Server) expire(now time.Time) {
	var left []access.Client
	s.mu.Lock()
	for inner, t := range s.tunnels {
		switch {
		case t.link != nil && now.Sub(t.beaten) > s.config.Timeout:
			left = append(left, s.remove(t))
		case t.link == nil && !t.attaching && time.Unix(t.last.epoch, 0).Add(s.config.Window).Before(now):
			delete(s.tunnels, inner)
		}
	}
	s.mu.Unlock()
	for _, c := range left {
		c.Leave("no heartbeat for " + s.config.Timeout.String())
	}
}
