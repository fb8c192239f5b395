package node

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/sixbed4"
)

// Router is a 6bed4 router. It tells peers their addresses, and carries packets between them
// and to and from the IPv6 side, which is the interface. It keeps no state. Packets from peer
// to peer pass the interface, too: the kernel forwards them, and decrements their hop limit.
type Router struct {
	framed
	Prefix netip.Prefix // the /64 of its peers
}

// NewRouter returns a router at a UDP port.
func NewRouter(port uint16, prefix netip.Prefix) Router { return Router{framed{port}, prefix} }

// Hosts is empty: a router needs no other host.
func (Router) Hosts() []resolve.Host { return nil }

// Resolver returns the agent of the router.
func (m Router) Resolver(at resolve.Site) (resolve.Resolver, error) {
	b, err := agent.NewBase("6bed4", at)
	if err != nil {
		return nil, err
	}
	p := header.NewPrefix6(m.Prefix)
	if m.Prefix.Bits() != 64 {
		return nil, errors.New("6bed4: prefix must be a /64, whose addresses have the outer addresses and ports of peers")
	}
	if sixbed4.IsNative(p.Value) && sixbed4.RouterOf(p.Value) != b.Local {
		return nil, errors.New("6bed4: prefix " + m.Prefix.String() + " is that of the router at " + router(p.Value).AddrPort().Addr().String() + ", not of this one: set local to that address, or prefix to another one")
	}
	r := &routing{Base: b, network: p.Value.Hi, corrections: agent.NewCorrections()}
	for _, own := range at.Own {
		if a, ok := header.Word6Of(own.Addr()); ok {
			r.own = append(r.own, a)
		}
	}
	return r, nil
}

// routing is the agent of a Router.
type routing struct {
	agent.Base
	network     uint64
	own         []header.Word6 // addresses of the interface
	corrections *agent.Corrections
}

// To returns the mapping in an address of the network, or the router of another network.
func (r *routing) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	var at header.Mapping
	switch {
	case header.IsMulticast(dst), header.IsLinkLocal(dst), header.IsLinkLocal(src), nd.Is(ip):
		return resolve.Endpoint{}, drop.Martian
	case dst.Hi == r.network:
		if at = sixbed4.MappingOf(dst); !sixbed4.Fits(dst) {
			return resolve.Endpoint{}, drop.NoPeer
		}
	case sixbed4.IsNative(dst) && sixbed4.IsNative(src) && src.Hi == r.network:
		at = router(dst)
	default:
		return resolve.Endpoint{}, drop.NoPeer
	}
	switch {
	case r.Owns(at.Addr):
		return resolve.Endpoint{}, drop.Loop
	case !r.Reachable(at):
		return resolve.Endpoint{}, drop.Martian
	}
	return agent.Endpoint(at), drop.None
}

// From accepts packets of peers whose source has the outer source, and those that another
// router has sent on for a peer of ours. A peer with another source needs to be told.
func (r *routing) From(e, _ resolve.Endpoint, inner []byte) drop.Reason {
	ip, m := header.IPv6(inner), agent.MappingOf(e)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case nd.Is(ip):
		return drop.Martian // it must not leave the link
	case sixbed4.IsNative(src) && src.Hi != r.network:
		switch {
		case dst.Hi != r.network || !sixbed4.IsNative(dst):
			return drop.NoPeer
		case m != router(src):
			return drop.Spoof
		case !r.Reachable(m):
			return drop.Martian
		}
		return drop.None
	}
	why := from(&r.Base, src, m)
	if why == drop.None && src.Hi != r.network {
		why = drop.Spoof
	}
	if why == drop.Spoof {
		r.corrections.Note(m, ip.Src())
	}
	return why
}

// Wants selects messages of the link, and datagrams without payload.
func (r *routing) Wants(inner []byte) bool { return !isData(inner) }

// Receive answers solicitations.
func (r *routing) Receive(o header.Outer, b []byte, _ time.Time) (done bool) {
	r.Why = r.receive(header.MappingOf(o.From), b)
	return true
}

func (r *routing) receive(m header.Mapping, b []byte) drop.Reason {
	if len(b) == 0 { // keeps the peer's NAT open
		return drop.None
	}
	ip, why := header.ParseIPv6(b)
	switch {
	case why != drop.None:
		return why
	case !r.Reachable(m):
		return drop.Martian
	case sixbed4.IsSolicitation(ip):
		r.Send(m, sixbed4.AppendAdvertisement(nil, r.network, m, ip.Src()))
		return drop.None
	}
	msg, ok := nd.Parse(ip)
	if !ok || msg.Type != nd.NeighborSolicitation || !r.isOurs(msg.Target) || ip.Src().IsUnspecified() {
		return drop.UnknownProtocol
	}
	r.Send(m, sixbed4.AppendNeighbour(nil, msg.Target, ip.Src(), header.Mapping{Addr: r.Local, Port: sixbed4.Port}))
	return drop.None
}

// isOurs reports whether a solicitation asks for the router.
func (r *routing) isOurs(target netip.Addr) bool {
	a, ok := header.Word6Of(target)
	if !ok {
		return false
	}
	for _, own := range r.own {
		if a == own {
			return true
		}
	}
	return a == header.Word6{Hi: 0xfe80 << 48} || a.Hi == r.network && sixbed4.MappingOf(a).Addr == r.Local
}

// PerSecond is how many solicitations and keepalives a router accepts.
func (r *routing) PerSecond() int { return 20000 }

// Hold keeps nothing: a router never has to find a mapping.
func (r *routing) Hold([]byte, time.Time) bool { return false }

// Next returns answers and corrections.
func (r *routing) Next(now time.Time) ([]resolve.Message, int, time.Time) {
	r.corrections.Due(now, func(at header.Mapping, to netip.Addr) {
		r.Send(at, sixbed4.AppendAdvertisement(nil, r.network, at, to))
	})
	send, lost := r.Take()
	return send, lost, now.Add(agent.CorrectionPause)
}

// Learnt returns the MTU of the link.
func (r *routing) Learnt() resolve.Learnt { return resolve.Learnt{MTU: sixbed4.MTU} }

// Entries is empty: a router knows no nodes.
func (r *routing) Entries(time.Time) []resolve.Entry { return nil }
