package tsp

import (
	"net/netip"
	"time"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
)

// NewServerFor is NewServer with short times.
func NewServerFor(c ServerConfig, unit time.Duration) (*Server, error) {
	t := usualTiming
	t.sweep, t.restart, t.pause, t.step, t.whole = unit/4, unit/4, unit/10, 4*unit, 10*unit
	t.often = 1
	return newServer(c, transport.Options{}, t)
}

// ListenFor is Listen with short times.
func ListenFor(c Config, unit time.Duration) (*Port, error) {
	t := usualAsking
	t.first, t.accept, t.tcp = unit/10, unit/2, 10*unit
	t.retry, t.most, t.refused, t.keep = unit/4, unit, unit/2, unit
	return listen(c, transport.Options{}, t)
}

// Datagram takes a datagram, as if it had been received.
func (s *Server) Datagram(b []byte, from, at netip.AddrPort) {
	s.datagrams(b, 0, &header.Outer{From: from, At: at}, time.Now())
}

// Sift takes messages out of a buffer, as a port does whose peer is at an address. It returns
// whether packets are left, and how many messages there were.
func Sift(at netip.AddrPort, b []byte, m *transport.Meta) (left bool, messages int) {
	p := &peer{in: make(chan []byte, 16)}
	p.at.Store(packed(at))
	left = sift([]*peer{p}, b, m)
	return left, len(p.in)
}

// Sift does the same with the peers of a port.
func (p *Port) Sift(b []byte, m *transport.Meta) bool { return sift(*p.peers.Load(), b, m) }

// Attach adds a client whose tunnel runs in UDP.
func (s *Server) Attach(peer access.Client, a access.Attachment) {
	c := &client{sender: s.sender, table: &s.clients, key: tupleOf(a.From, a.At), from: a.From, at: a.At, patience: time.Hour}
	putHead(c.head[:], a.At, a.From)
	c.hold(peer, time.Now())
	s.clients.put(c)
}
