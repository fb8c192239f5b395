package probing

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// Way is how a probe is sent and how its answer comes.
type Way uint8

// The ways, the best first. An answer through the tunnel shows that the tunnel works; an
// answer from the outer address only shows that the host is up.
const (
	// Inside is an echo request between the ends of an IPv6 layer.
	Inside Way = iota
	// Keepalive is a router's GRE keepalive: the peer only forwards the answer in it.
	Keepalive
	// Between is an echo request between our inner address and one that the peer may
	// have according to the configuration.
	Between
	// AllNodes is an echo request to all nodes of the link (ff02::1) in a 6in4 tunnel.
	// The other end may not have the link-local address derived from its outer address: it
	// may be behind a NAT, or run neither sixfourd nor Linux.
	AllNodes
	// Self is an echo request to ourselves, which a border relay returns as it forwards
	// any packet (RFC 5969 section 8). No other packet with our own source is accepted:
	// this one is identified by its cookie, and is not delivered.
	Self
	// Outside is an echo request to the outer address.
	Outside
	// NoWay is worse than any other: there was no answer.
	NoWay
)

// Request describes a probe.
type Request struct {
	Way           Way
	Seq           uint16
	Session       uint16     // index of a liveness session
	Local, Remote netip.Addr // outer addresses
	Self          netip.Addr // with Self: our own inner address
	Between       probe.Pair // with Between
	Pair          uint8      // with Between: index in the pairs of the path
	Stack         *encap.Stack

	purpose purpose
	size    int // of the outer packet, in bytes; 0: the least
}

// errSmall means that a size has no room for a probe.
var errSmall = fmt.Errorf("it is too small for an echo request")

// send sends a probe on a wire of the path.
func (e *Echo) send(wire *datapath.Wire, q Request) error {
	if q.Way == Self {
		hop := &datapath.StaticHop{Endpoint: resolve.EndpointOf(netip.AddrPortFrom(q.Remote, 0))}
		var err error
		if q.Stack, err = wire.StackTo(hop); err != nil {
			return err
		}
	}
	local, remote := q.Local, q.Remote
	var answer []byte // the framing's header in a keepalive
	switch q.Way {
	case Inside:
		local, remote, _ = probe.Ends(wire.Layers)
	case Keepalive:
		local, remote = remote, local // it is the answer
		if k, ok := wire.Outer().Kind.Framing().(framing.Keepaliver); ok {
			answer = k.AppendKeepalive(nil)
		}
	case Between:
		local, remote = q.Between.Local, q.Between.Remote
	case AllNodes:
		local, _, _ = probe.Ends(wire.Layers)
		remote = allNodes
	case Self:
		local, remote = q.Self, q.Self
	}
	at, version := header.IPv4Len, 4
	if local.Is6() {
		at, version = header.IPv6Len, 6
	}
	size := at + len(answer) + requestLen
	if q.size > 0 {
		inner := q.size
		if q.Way != Outside {
			inner -= q.Stack.Overhead(version)
		}
		if inner < size {
			return errSmall
		}
		size = inner
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	data := at + len(answer)
	pkt[data+purposeAt] = byte(q.purpose)
	binary.BigEndian.PutUint16(pkt[data+sessionAt:], q.Session)
	pkt[data+pairAt] = q.Pair
	if q.Way == Keepalive {
		copy(pkt[at:], answer)
		e.keepalive(pkt, local, remote, wire.Outer().Kind.Protocol(), pkt[data:], q)
	} else {
		e.Fill(pkt, local, remote, q.Seq)
	}
	switch q.Way {
	case Self:
		header.IPv6(pkt)[7] = selfHopLimit
	case Between:
		limitHops(pkt, q.Between, wire.Options)
	}
	own := datapath.Own{Buf: buf, Note: datapath.NoteProbe}
	if q.Way != Outside {
		own.Stack, own.Inner = q.Stack, pkt
	}
	if q.purpose == forMarks {
		setECN(pkt, header.ECT0)
		own.Encapsulate = marked(q.Stack)
	}
	if n := wire.Emit(&own); n != nil {
		return n
	}
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

// keepalive fills in a packet that the peer returns to us, from the peer to us, as a router's
// keepalive is (mechanisms 8). Its framing's header is complete; m, which follows it, gets
// our probe's identity.
func (e *Echo) keepalive(pkt []byte, from, to netip.Addr, protocol byte, m []byte, q Request) {
	binary.BigEndian.PutUint16(m[probe.IDAt:], e.ID)
	binary.BigEndian.PutUint16(m[probe.SeqAt:], q.Seq)
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
	binary.BigEndian.PutUint16(h[4:], q.Seq|1) // the host that forwards it would replace 0
	binary.BigEndian.PutUint16(h[6:], header.DF)
	copy(h.Source(), from.AsSlice())
	copy(h.Dest(), to.AsSlice())
	h.SetChecksum()
}
