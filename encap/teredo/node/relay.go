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

// Relay is a Teredo relay (RFC 4380 section 5.4): it carries packets between Teredo clients and
// the hosts in its prefixes, which may be a network or the host's own addresses.
type Relay struct {
	framed
	Prefixes []netip.Prefix
}

// NewRelay returns a relay at a UDP port for the hosts in some prefixes.
func NewRelay(port uint16, prefixes []netip.Prefix) Relay { return Relay{framed{port}, prefixes} }

// maxRelayPeers is how many clients a relay knows at the same time.
const maxRelayPeers = 1 << 14

// Hosts is empty: a relay needs no other host.
func (Relay) Hosts() []resolve.Host { return nil }

// Resolver returns the agent of the relay.
func (m Relay) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("teredo", at)
	if err != nil {
		return nil, err
	}
	if len(m.Prefixes) == 0 {
		return nil, errors.New("teredo: a relay serves the hosts in a prefix: set prefix to it, such as this host's own address")
	}
	return &relayNode{links: links{Base: b, peers: newTable(maxRelayPeers)}, serves: header.Prefixes6(m.Prefixes)}, nil
}

type relayNode struct {
	links
	serves []header.Prefix6
}

func (r *relayNode) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	dst := header.ReadWord6(ip.Dest())
	switch {
	case !teredo.Is(dst):
		return resolve.Endpoint{}, drop.NoPeer
	case !header.Within(r.serves, header.ReadWord6(ip.Source())):
		return resolve.Endpoint{}, drop.Spoof
	case !r.Reachable(teredo.ClientOf(dst)):
		return resolve.Endpoint{}, drop.Martian
	}
	return r.link(dst)
}

// From accepts packets of clients to which the relay has sent something, for the hosts that it
// serves (RFC 4380 section 5.4.2).
func (r *relayNode) From(from, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m := header.IPv6(inner), agent.MappingOf(from)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	if why := r.Source(m); why != drop.None {
		return why
	}
	if !header.Within(r.serves, dst) {
		return drop.NoPeer
	}
	p := r.peers.Find(src)
	if p == nil || !teredo.Is(src) || !p.is(m) && teredo.ClientOf(src) != m {
		return drop.Spoof
	}
	p.hears()
	return drop.None
}

func (r *relayNode) Wants(inner []byte) bool { return r.wants(inner) }

// Receive makes clients trusted whose bubbles or packets arrive as they must.
func (r *relayNode) Receive(o header.Outer, b []byte, now time.Time) (done bool) {
	var data bool
	data, r.Why = r.receive(header.MappingOf(o.From), b, now)
	return !data
}

func (r *relayNode) receive(from header.Mapping, b []byte, now time.Time) (data bool, why drop.Reason) {
	m, err := teredo.Parse(b)
	if err != nil {
		return false, drop.LyingLength
	}
	src, dst := header.ReadWord6(m.Packet.Source()), header.ReadWord6(m.Packet.Dest())
	if why := r.Source(from); why != drop.None {
		return false, why
	}
	p := r.peers.Find(src)
	if p == nil || !teredo.Is(src) {
		return false, drop.Spoof
	}
	data = teredo.IsData(b)
	switch {
	case data && teredo.ClientOf(src) == from && header.Within(r.serves, dst):
	case !data && teredo.IsBubble(m.Packet) && (p.matches(&m) || teredo.ClientOf(src) == from):
	default:
		return false, drop.Spoof
	}
	r.found(p, from, now)
	return data, drop.None
}

// Hold asks for the client's mapping.
func (r *relayNode) Hold(pkt []byte, now time.Time) bool {
	return r.holdFor(header.ReadWord6(header.IPv6(pkt).Dest()), pkt, now)
}

// Next sends bubbles through the servers of clients.
func (r *relayNode) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	again := r.advance(now, func(p *peer) bool {
		if p.tries == 0 && p.link.Load() != 0 {
			r.confirm(p, teredo.NonceAddress(p.nonce), nil)
			return true
		}
		return r.bubbles(p, teredo.NonceAddress(p.nonce), nil, false)
	})
	send, lost := r.Take()
	lost += r.peers.lost
	r.peers.lost = 0
	return send, lost, again
}

// Learnt returns the MTU of the link.
func (r *relayNode) Learnt() resolve.Learnt { return resolve.Learnt{MTU: teredo.MTU} }

// Entries returns the clients that the relay knows.
func (r *relayNode) Entries(now time.Time) []resolve.Entry { return r.entries(now, nil) }
