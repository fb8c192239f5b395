package ayiya

import (
	"net"
	"net/netip"
	"sync/atomic"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport/access"
)

// place is where a client is: its address, and ours to which it sends.
type place struct{ from, at netip.AddrPort }

// session is a client that is attached. It is the access.Link to the client.
type session struct {
	member  *member
	out     *outbox
	key     ayiya.Key
	server  identity // ours, in packets to the client
	account string
	client  access.Client

	ended atomic.Bool
}

// Send implements access.Link.
func (s *session) Send(packet []byte) error {
	if s.ended.Load() {
		return net.ErrClosed
	}
	next := nextHeader(packet)
	if next == 0 {
		return errNotIP
	}
	return s.out.put(s, ayiya.Forward, next, packet)
}

// End implements access.Link. A client whose account may not be used any more is told to be
// silent for some minutes.
func (s *session) End(why *access.Refusal) {
	if s.end() && why != nil && (why.Reason == access.Disabled || why.Reason == access.UnknownAccount) {
		s.ask(ayiya.QueryShutdown)
	}
}

// end reports whether it has ended the session, which it can do once.
func (s *session) end() bool {
	m := s.member
	m.mu.Lock()
	if m.session == s {
		m.session, m.client = nil, nil
	}
	m.mu.Unlock()
	return s.ended.CompareAndSwap(false, true)
}

// begin makes packets of the client use the session, unless the broker has ended it.
func (s *session) begin(now int64) bool {
	m := s.member
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.ended.Load() {
		return false
	}
	m.session, m.client, m.key, m.told = s, s.client, s.key, now
	return true
}

// leave ends the session, unless the broker has.
func (s *session) leave(why string) {
	if s.end() {
		s.client.Leave(why)
	}
}

// say sends a message, whose loss does not matter.
func (s *session) say(op ayiya.OpCode, payload []byte) {
	_ = s.out.put(s, op, ayiya.NextNone, payload)
}

// ask sends a query.
func (s *session) ask(name string) { s.say(ayiya.QueryRequest, ayiya.AppendQuery(nil, 1, name)) }

// take does what an accepted packet asks for.
func (s *session) take(client access.Client, m *ayiya.Message) {
	switch m.Op {
	case ayiya.EchoForward:
		s.say(ayiya.EchoResponse, m.Payload)
		forward(client, m.Payload)
	case ayiya.Forward:
		forward(client, m.Payload)
	case ayiya.EchoRequest:
		s.say(ayiya.EchoResponse, m.Payload)
	case ayiya.QueryRequest:
		s.answer(m)
	}
}

// forward hands over an inner packet. Clients also send what a host sends on each of its
// links: packets with a link-local or no source. They are no attempt to deceive anybody.
func forward(client access.Client, inner []byte) {
	if header.Version(inner) == 6 {
		if src := header.IPv6(inner).Source(); src[0] == 0xfe && src[1]&0xc0 == 0x80 || [16]byte(src) == [16]byte{} {
			return
		}
	}
	client.Receive(inner)
}

// answer answers a query.
func (s *session) answer(m *ayiya.Message) {
	number, name := m.Query()
	text := ""
	switch name {
	case ayiya.QueryVersion:
		text = version
	case ayiya.QueryOuterEndpoint:
		text = s.member.at().from.String()
	case ayiya.QueryShutdown:
		text = name
	}
	s.say(ayiya.QueryResponse, ayiya.AppendQuery(nil, number, text))
	if name == ayiya.QueryShutdown {
		s.leave("the client has shut the tunnel down")
	}
}

// version is the answer to a query. It does not say which release this is: strangers do not
// get it, but packets are not encrypted.
const version = "AYIYA/draft-02 sixfour Linux"
