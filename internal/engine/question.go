package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// way is how a probe is sent and how its answer comes.
type way uint8

// The ways, the best first. An answer through the tunnel shows that the tunnel works; an
// answer from the outer address only shows that the host is up.
const (
	// wayInside is an echo request between the ends of an IPv6 layer.
	wayInside way = iota
	// wayKeepalive is a router's GRE keepalive: the peer only forwards the answer in it.
	wayKeepalive
	// wayBetween is an echo request between our inner address and one that the peer may
	// have according to the configuration.
	wayBetween
	// wayAllNodes is an echo request to all nodes of the link (ff02::1) in a 6in4 tunnel.
	// The other end may not have the link-local address derived from its outer address: it
	// may be behind a NAT, or run neither sixfourd nor Linux.
	wayAllNodes
	// waySelf is an echo request to ourselves, which a border relay returns as it forwards
	// any packet (RFC 5969 section 8). No other packet with our own source is accepted:
	// this one is identified by its cookie, and is not delivered.
	waySelf
	// wayOutside is an echo request to the outer address.
	wayOutside
	noWay
)

// question is a packet that asks for an answer.
type question struct {
	way           way
	kind          kind
	seq           uint16
	index         uint16     // of a liveness session
	local, remote netip.Addr // outer addresses
	self          netip.Addr // for waySelf
	between       probe.Pair // for wayBetween
	pair          uint8      // index in the path's pairs
	size          int        // of the outer packet, in bytes; 0: the least
	stack         *encap.Stack
}

// errSmall means that a size has no room for a question.
var errSmall = fmt.Errorf("it is too small for an echo request")

// put sends a question on a path.
func (p *path) put(wire *datapath.Wire, q question) error {
	if q.way == waySelf {
		var err error
		if q.stack, err = p.toRelay(wire, q.remote); err != nil {
			return err
		}
	}
	local, remote := q.local, q.remote
	var answer []byte // the framing's header in a keepalive
	switch q.way {
	case wayInside:
		local, remote, _ = probe.Ends(wire.Layers)
	case wayKeepalive:
		local, remote = remote, local // it is the answer
		if k, ok := wire.Outer().Kind.Framing().(encap.Keepaliver); ok {
			answer = k.AppendKeepalive(nil)
		}
	case wayBetween:
		local, remote = q.between.Local, q.between.Remote
	case wayAllNodes:
		local, _, _ = probe.Ends(wire.Layers)
		remote = allNodes
	case waySelf:
		local, remote = q.self, q.self
	}
	at, version := header.IPv4Len, 4
	if local.Is6() {
		at, version = header.IPv6Len, 6
	}
	size := at + len(answer) + askLen
	if q.size > 0 {
		inner := q.size
		if q.way != wayOutside {
			inner -= q.stack.Overhead(version)
		}
		if inner < size {
			return errSmall
		}
		size = inner
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	data := at + len(answer)
	pkt[data+kindAt] = byte(q.kind)
	binary.BigEndian.PutUint16(pkt[data+indexAt:], q.index)
	pkt[data+pairAt] = q.pair
	if q.way == wayKeepalive {
		copy(pkt[at:], answer)
		p.echo.keepalive(pkt, local, remote, wire.Outer().Kind.Protocol(), pkt[data:], q)
	} else {
		p.echo.Fill(pkt, local, remote, q.seq)
	}
	switch q.way {
	case waySelf:
		header.IPv6(pkt)[7] = selfHopLimit
	case wayBetween:
		limitHops(pkt, q.between, wire.Options)
	}
	if q.way != wayOutside {
		var r drop.Reason
		if pkt, r = q.stack.Encapsulate(buf, encap.Headroom); r != drop.None {
			return fmt.Errorf("it cannot be encapsulated: %v", r)
		}
	}
	m := p.t.Captures.Now()
	defer m.End()
	if err := wire.Senders[0].SendOne(pkt); err != nil {
		return err
	}
	p.ShowProbe(m.At, pkt, buf[encap.Headroom:], q.way != wayOutside)
	return nil
}

// allNodes is the address of all nodes of a link (RFC 4291 section 2.7.1).
var allNodes = netip.AddrFrom16([16]byte{0xff, 2, 15: 1})

// limitHops sets the hop limit of a probe to an inner address. A neighbour can be reached
// without forwarding. If it does not have the address, it would return the probe to us, and
// so on (RFC 6164 section 5.1): a hop limit of 1 prevents that. If outer headers inherit
// the hop limit, the probe would not arrive with a limit of 1.
func limitHops(pkt []byte, pair probe.Pair, o encap.Options) {
	limit := byte(farHopLimit)
	if pair.Near && o.TTL != encap.InheritTTL && o.HopLimit != encap.InheritTTL {
		limit = 1
	}
	if pair.Remote.Is6() {
		header.IPv6(pkt)[7] = limit
		return
	}
	ip := header.IPv4(pkt)
	ip[8] = limit
	ip.SetChecksum()
}

// farHopLimit is the hop limit of a probe that routers may have to forward.
const farHopLimit = 64

// selfHopLimit is the hop limit of a packet that a border relay forwards.
const selfHopLimit = 64

// toRelay returns a stack that sends all packets to one relay.
func (p *path) toRelay(wire *datapath.Wire, relay netip.Addr) (*encap.Stack, error) {
	layers := slices.Clone(wire.Layers)
	layers[p.t.mech.layer].Resolver = &staticHop{resolve.EndpointOf(netip.AddrPortFrom(relay, 0))}
	return encap.New(layers, wire.MTU, wire.Options, nil, p.Record)
}

// keepalive fills in a packet that the peer returns to us, from the peer to us, as a router's
// keepalive is (mechanisms 8). Its framing's header is complete; m, which follows it, gets
// our probe's identity.
func (e *echo) keepalive(pkt []byte, from, to netip.Addr, protocol byte, m []byte, q question) {
	binary.BigEndian.PutUint16(m[probe.IDAt:], e.ID)
	binary.BigEndian.PutUint16(m[probe.SeqAt:], q.seq)
	copy(m[probe.CookieAt:], e.Cookie[:])
	if from.Is6() {
		h := header.IPv6(pkt)
		h[0], h[6], h[7] = 0x60, protocol, probe.HopLimit
		binary.BigEndian.PutUint16(h[4:], uint16(len(pkt)-header.IPv6Len))
		copy(h.Source(), from.AsSlice())
		copy(h.Dest(), to.AsSlice())
		return
	}
	h := header.IPv4(pkt)
	h[0], h[8], h[9] = 0x45, probe.HopLimit, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(len(pkt)))
	binary.BigEndian.PutUint16(h[4:], q.seq|1) // the host that forwards it would replace 0
	binary.BigEndian.PutUint16(h[6:], header.DF)
	copy(h.Source(), from.AsSlice())
	copy(h.Dest(), to.AsSlice())
	h.SetChecksum()
}
