package node

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// Server is a Teredo server (RFC 4380 section 5.3). It keeps no state: it answers router
// solicitations, passes bubbles and ICMPv6 packets on to its clients with an origin indication,
// and passes ICMPv6 packets of its clients, such as connectivity tests, on to the IPv6
// Internet. It carries nothing else.
type Server struct {
	framed
	keyed
	Bind [2]netip.Addr // clients are told the first one; the second one shows them what NAT they have
}

// NewServer returns a server at two addresses.
func NewServer(first, second netip.Addr) Server {
	return Server{framed: framed{teredo.Port}, Bind: [2]netip.Addr{first, second}}
}

// With returns a server that tells only those their address who have a key.
func (m Server) With(k Key) Server {
	m.Key = k
	return m
}

// Hosts is empty: a server needs no other host.
func (Server) Hosts() []resolve.Host { return nil }

// Resolver returns the agent of the server.
func (m Server) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("teredo", at)
	if err != nil {
		return nil, err
	}
	for _, a := range m.Bind {
		switch {
		case !a.Is4():
			return nil, errors.New("teredo: a server has two IPv4 addresses: set bind to them")
		case resolve.Martian4(agent.Word(a), at.Strict):
			return nil, errors.New("teredo: bind has " + a.String() + ", which is not global, so that no client on the Internet can reach it")
		}
	}
	switch {
	case m.Bind[0] == m.Bind[1]:
		return nil, errors.New("teredo: the two addresses in bind must differ: by the second one clients find out what NAT they have")
	case m.Bind[0] != at.Local:
		return nil, errors.New("teredo: local must be the first address in bind, which is " + m.Bind[0].String())
	}
	s := &server{Base: b, bind: [2]uint32{agent.Word(m.Bind[0]), agent.Word(m.Bind[1])}, second: m.Bind[1], key: m.Key}
	s.Own(s.bind[:]...)
	return s, nil
}

type server struct {
	agent.Base
	bind   [2]uint32
	second netip.Addr
	key    Key
}

// PerSecond is how many solicitations and bubbles a server accepts.
func (s *server) PerSecond() int { return 20000 }

// Groups returns the second address of the server.
func (s *server) Groups() []netip.Addr { return []netip.Addr{s.second} }

// To refuses all packets: a server is not a relay.
func (s *server) To([]byte) (resolve.Endpoint, drop.Reason) { return resolve.Endpoint{}, drop.NoPeer }

// From accepts ICMPv6 packets from clients of this server, whose mapping is the outer source,
// and ICMPv6 packets for them.
func (s *server) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m := header.IPv6(inner), agent.MappingOf(from)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case !s.Reachable(m):
		return drop.Martian
	case ip.NextHeader() != header.ICMPv6:
		return drop.NoPeer
	}
	return s.mayPass(src, dst, m)
}

// mayPass checks the addresses of a packet that is to be passed on (RFC 4380 section 5.3.1).
func (s *server) mayPass(src, dst header.Word6, from header.Mapping) drop.Reason {
	switch {
	case !teredo.Is(dst) && !isGlobal(dst):
		return drop.Martian
	case teredo.Is(src) && teredo.ClientOf(src) != from:
		return drop.Spoof
	case teredo.Is(src) && (teredo.Is(dst) || s.serves(src)):
		return s.leads(dst)
	case teredo.Is(dst) && s.serves(dst) && (isGlobal(src) || header.IsLinkLocal(src)):
		return s.leads(dst)
	}
	return drop.Spoof
}

// leads checks whether packets to a destination may leave.
func (s *server) leads(dst header.Word6) drop.Reason {
	switch at := teredo.ClientOf(dst); {
	case !teredo.Is(dst), s.Reachable(at):
		return drop.None
	case s.Owns(at.Addr):
		return drop.Loop
	}
	return drop.Martian
}

func (s *server) serves(client header.Word6) bool { return teredo.ServerOf(client) == s.bind[0] }

// Wants selects what is not for the IPv6 Internet.
func (s *server) Wants(inner []byte) bool {
	return !teredo.IsData(inner) || teredo.Is(header.ReadWord6(header.IPv6(inner).Dest()))
}

// isNeighbour reports whether a mapping is that of another node on this host, such as a relay.
// The kernel lets no packets in from outside that claim to be from there.
func (s *server) isNeighbour(m header.Mapping) bool {
	return s.Owns(m.Addr) && m.Port != teredo.Port && m.Port != 0
}

// Receive answers solicitations, and passes on what is for clients.
func (s *server) Receive(o header.Outer, b []byte, _ time.Time) (done bool) {
	s.Why = s.receive(o, b)
	return true
}

func (s *server) receive(o header.Outer, b []byte) drop.Reason {
	from := header.MappingOf(o.From)
	if !s.Reachable(from) && !s.isNeighbour(from) {
		return drop.Martian
	}
	m, err := teredo.Parse(b)
	if err != nil {
		return drop.LyingLength
	}
	src, dst := header.ReadWord6(m.Packet.Source()), header.ReadWord6(m.Packet.Dest())
	if cone, ok := teredo.Solicitation(m.Packet); ok {
		if !s.key.accepts(&m) {
			return drop.Unauthenticated
		}
		s.advertise(&m, from, o.At.Addr(), src, cone)
		return drop.None
	}
	if !teredo.IsBubble(m.Packet) && m.Packet.NextHeader() != header.ICMPv6 {
		return drop.NoPeer
	}
	if why := s.mayPass(src, dst, from); why != drop.None {
		return why
	}
	if !teredo.Is(dst) {
		return drop.NoPeer // a bubble: the IPv6 Internet has no use for it
	}
	var payload []byte
	if s.serves(dst) {
		payload = teredo.AppendOrigin(nil, from)
	}
	s.Send(teredo.ClientOf(dst), append(append(payload, m.Packet...), m.Trailers...))
	return drop.None
}

// advertise answers a solicitation that arrived at an address of ours. If the client has the
// cone bit, the answer comes from the other address, because it would show that any host can
// reach the client.
func (s *server) advertise(m *teredo.Message, from header.Mapping, at netip.Addr, to header.Word6, cone bool) {
	first := at != s.second
	server := header.Mapping{Addr: s.bind[0], Port: teredo.Port}
	a := teredo.Message{Origin: from, Packet: teredo.AppendAdvertisement(nil, server, to)}
	if m.Auth != nil {
		a.Auth = &teredo.Auth{Nonce: m.Auth.Nonce}
		s.key.sign(&a)
	}
	var source netip.AddrPort // local
	if first == cone {
		source = netip.AddrPortFrom(s.second, teredo.Port)
	}
	s.SendFrom(source, from, teredo.Append(nil, &a))
}

// Hold keeps nothing: a server sends no packets of the interface.
func (s *server) Hold([]byte, time.Time) bool { return false }

// Next returns what is to be passed on.
func (s *server) Next(time.Time) ([]resolve.Message, int, time.Time) {
	send, lost := s.Take()
	return send, lost, time.Time{}
}

// Learnt returns the MTU of the link.
func (s *server) Learnt() resolve.Learnt { return resolve.Learnt{MTU: teredo.MTU} }

// Entries is empty: a server knows no nodes.
func (s *server) Entries(time.Time) []resolve.Entry { return nil }
