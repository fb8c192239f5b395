package node

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	"sixfour/encap/teredo"
)

// Relay is a 6a44 relay of a provider (RFC 6751 section 6.6). It tells clients their prefixes,
// and carries packets between them and to and from the IPv6 side, which is the interface. It
// keeps no state, so that a provider can have several at one address.
type Relay struct {
	Prefix netip.Prefix // the provider's /48
	// Customers are the networks of the outer addresses that the relay serves. They may be
	// private ones, of customers behind a NAT of the provider that the relay is inside of
	// (NAT444). If there are none, it serves all public addresses.
	Customers []netip.Prefix
}

// Framing returns the framing of the relay's packets.
func (Relay) Framing() framing.Framing { return framing.SixInUDP{Local: sixa44.Port, NoChecksum: true} }

// Hosts is empty: a relay needs no other host.
func (Relay) Hosts() []resolve.Host { return nil }

// Resolver returns the agent of the relay.
func (m Relay) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("6a44", at)
	if err != nil {
		return nil, err
	}
	if m.Prefix.Bits() != sixa44.ProviderBits || !m.Prefix.Addr().Is6() {
		return nil, errors.New("6a44: prefix must be a /48, whose addresses have the outer addresses and ports of clients")
	}
	return &relay{Base: b, provider: header.NewPrefix6(m.Prefix).Value.Hi >> 16, customers: m.Customers, corrections: agent.NewCorrections()}, nil
}

// relay is the agent of a Relay.
type relay struct {
	agent.Base
	provider    uint64
	customers   []netip.Prefix
	corrections *agent.Corrections
}

// isClient reports whether an address is one of the provider's clients.
func (r *relay) isClient(a header.Word6) bool { return a.Hi>>16 == r.provider }

// serves reports whether clients can have a mapping.
func (r *relay) serves(m header.Mapping) bool {
	if len(r.customers) == 0 {
		return r.Reachable(m)
	}
	a := m.AddrPort().Addr()
	return r.Source(m) == drop.None && !r.Owns(m.Addr) && m.Addr != anycast && slices.ContainsFunc(r.customers, func(p netip.Prefix) bool { return p.Contains(a) })
}

// leads returns the mapping in the address of a client.
func (r *relay) leads(dst header.Word6) (header.Mapping, drop.Reason) {
	p, _ := sixa44.Of(dst)
	switch {
	case r.Owns(p.At.Addr):
		return p.At, drop.Loop
	case !r.serves(p.At):
		return p.At, drop.Martian
	}
	return p.At, drop.None
}

// isOurTeredo reports whether an address is that of a Teredo client at our address, or at that
// of all relays: packets to it would come back (RFC 6751 section 6.6).
func (r *relay) isOurTeredo(a header.Word6) bool {
	at := teredo.ClientOf(a).Addr
	return teredo.Is(a) && (r.Owns(at) || at == anycast)
}

// anycast is sixa44.Anycast as a number.
var anycast = agent.Word(sixa44.Anycast)

// To returns the mapping in the destination of a packet from the IPv6 side.
func (r *relay) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case !r.isClient(dst):
		return resolve.Endpoint{}, drop.NoPeer
	case r.isClient(src), r.isOurTeredo(src), !isGlobal(src):
		return resolve.Endpoint{}, drop.Spoof
	}
	at, why := r.leads(dst)
	return agent.Endpoint(at), why
}

// From accepts packets of clients whose source has the outer source. A client with another
// source needs to be told.
func (r *relay) From(e, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m := header.IPv6(inner), agent.MappingOf(e)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	if !r.serves(m) {
		return drop.Martian
	}
	if p, _ := sixa44.Of(src); !r.isClient(src) || p.At != m {
		r.corrections.Note(m, netip.Addr{})
		return drop.Spoof
	}
	switch {
	case r.isClient(dst):
		_, why := r.leads(dst)
		return why
	case r.isOurTeredo(dst), !isGlobal(dst):
		return drop.Martian
	}
	return drop.None
}

// Wants selects bubbles, and packets from client to client.
func (r *relay) Wants(inner []byte) bool {
	return len(inner) < header.IPv6Len || r.isClient(header.ReadWord6(header.IPv6(inner).Dest()))
}

// Receive answers bubbles, and sends packets on to clients, unchanged.
func (r *relay) Receive(o header.Outer, b []byte, _ time.Time) (done bool) {
	m := header.MappingOf(o.From)
	r.Why = drop.None
	switch bubble, ok := sixa44.ParseBubble(b); {
	case ok && !r.serves(m):
		r.Why = drop.Martian
	case ok:
		r.Send(m, sixa44.AppendBubble(nil, sixa44.Bubble{Prefix: sixa44.Prefix{Provider: r.provider, At: m}, ID: bubble.ID}))
	case !teredo.IsData(b):
		r.Why = drop.UnknownProtocol
	default:
		if at, _ := r.leads(header.ReadWord6(header.IPv6(b).Dest())); !r.Forward(at, append([]byte(nil), b...)) {
			r.Why = drop.Limited
		}
	}
	return true
}

// PerSecond is how many bubbles and packets from client to client a relay accepts.
func (r *relay) PerSecond() int { return 20000 }

// Hold keeps nothing: a relay never has to find a mapping.
func (r *relay) Hold([]byte, time.Time) bool { return false }

// Next returns answers and corrections.
func (r *relay) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	r.corrections.Due(now, func(at header.Mapping, _ netip.Addr) {
		r.Send(at, sixa44.AppendBubble(nil, sixa44.Bubble{Prefix: sixa44.Prefix{Provider: r.provider, At: at}}))
	})
	send, lost := r.Take()
	return send, lost, now.Add(agent.CorrectionPause)
}

// Learnt returns the MTU of the link.
func (r *relay) Learnt() resolve.Learnt { return resolve.Learnt{MTU: sixa44.MTU} }

// Entries is empty: a relay knows no nodes.
func (r *relay) Entries(time.Time) []resolve.Entry { return nil }
