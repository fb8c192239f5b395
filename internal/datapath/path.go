package datapath

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/seal"
	"sixfour/internal/probe"
	"sixfour/internal/tally"
	"sixfour/internal/twoways"
)

// Peer is one remote end of a tunnel. SetPaths must be called before packets are carried.
// With several paths, a selection says which of them carry packets now.
type Peer struct {
	first     atomic.Pointer[Path]
	paths     atomic.Pointer[[]*Path]   // nil: first is the only one
	selection atomic.Pointer[selection] // nil: packets use the wire of first
}

// SetPaths sets the paths of the peer, at least one. If it has several, or had, Use or Divide
// must have been called before, so that packets do not use the first path because of that.
func (p *Peer) SetPaths(paths []*Path) {
	p.first.Store(paths[0])
	if len(paths) > 1 {
		p.paths.Store(&paths)
	} else {
		p.paths.Store(nil)
	}
}

// First returns the first path of the peer.
func (p *Peer) First() *Path { return p.first.Load() }

// anyPath reports whether is returns true for a path of the peer.
func (p *Peer) anyPath(is func(*Path) bool) bool {
	if all := p.paths.Load(); all != nil {
		return slices.ContainsFunc(*all, is)
	}
	return is(p.first.Load())
}

// selection is the wires among which the packets to a peer are divided. It is immutable.
type selection struct {
	only  *Wire
	wires []*Wire // instead of only
	slots *[Slots]uint8
}

// Slots is the number of parts into which the flows to a peer can be divided.
const Slots = 256

// Use makes packets to the peer use a wire from now on; nil: they are dropped.
func (p *Peer) Use(w *Wire) {
	p.selection.Store(&selection{only: w})
}

// Divide makes the flows to the peer use several wires from now on. A flow belongs to one of
// the slots by its hash, and uses the wire whose index is there. The caller must not change
// wires and slots any more.
func (p *Peer) Divide(wires []*Wire, slots *[Slots]uint8) {
	p.selection.Store(&selection{wires: wires, slots: slots})
}

// Selected returns the wire that all packets to the peer use now; nil: there is none. Divided
// says that they use several, by flow.
func (p *Peer) Selected() (w *Wire, divided bool) {
	s := p.selection.Load()
	switch {
	case s == nil:
		return p.first.Load().Wire.Load(), false
	case s.wires == nil:
		return s.only, false
	}
	return nil, true
}

// wireFor returns the wire for a packet to the peer; nil: there is none. All packets of a
// flow use the same wire.
func (p *Peer) wireFor(inner []byte) *Wire {
	s := p.selection.Load()
	switch {
	case s == nil:
		return p.first.Load().Wire.Load()
	case s.wires == nil:
		return s.only
	}
	return s.wires[s.slots[framing.Spread(framing.FlowHash(inner, header.Version(inner)))%Slots]]
}

// The answer to a probe of one path may come by another one: the far end chooses for
// itself by which path it sends. It shows that our packets arrive by the path of the probe.

// returned is Probes.Returned for all paths of the peer.
func (p *Peer) returned(pkt []byte) bool {
	return p.anyPath(func(one *Path) bool { return one.Probes.Returned(pkt) })
}

// answersBetween is Probes.AnswersBetween for all paths of the peer.
func (p *Peer) answersBetween(between []probe.Pair, inner []byte) bool {
	return p.anyPath(func(one *Path) bool { return one.Probes.AnswersBetween(between, inner) })
}

// answer is Probes.Answer for all paths of the peer.
func (p *Peer) answer(ip header.IPv6) bool {
	return p.anyPath(func(one *Path) bool { return one.Probes.Answer(ip) })
}

// Path is one way to a peer. It exists as long as the configuration has it, also while
// nothing can be sent.
type Path struct {
	In, Out tally.Counters // first, to be on cache lines of their own
	PathOf
	Wire   atomic.Pointer[Wire] // nil: packets cannot be sent now
	Record *encap.Record
	Owner  PathOwner
	Probes Probes

	Listening atomic.Bool // a receiver is open for packets of the path
	ICMP      ICMPReceived
	Sample    ptbSample
	Notices   Notices
	Large     atomic.Uint64 // packets sent that not every path carries
	Requests  echoRequests
	Ways      twoways.Ways // packets that may arrive both by socket and by AF_XDP
	Pieces    seal.Window  // of the packets in pieces that have arrived
}

// PathOf says to which peer and tunnel a path belongs.
type PathOf struct {
	Peer   *Peer
	Tunnel *Tunnel
	Number atomic.Int32 // among the paths to the peer, from 1; 0: it is the only one
}

// echoRequests counts the echo requests that arrived for our end of the path.
type echoRequests struct {
	Answered atomic.Uint64 // by the daemon itself
	Large    atomic.Uint64 // large ones, which the interface answers
}

// PathOwner is told what concerns a path but is not a matter of carrying packets. Its
// methods never block, and any goroutine may call them.
type PathOwner interface {
	// Notify is called once for the flags that were set with Notices.Request, when a
	// packet has arrived, or has been sent.
	Notify(flags uint32)
	// LargeSent is called after packets were sent that not every path carries.
	LargeSent()
	// SendFailed is called when the kernel refused to send a packet.
	SendFailed(err error)
	// HopRefused is called when the first hop to a destination of an automatic tunnel refused
	// a packet as too large.
	HopRefused(dst netip.Addr)
	// ReportedTooBig is called for an ICMP error that reports a path MTU. The error is
	// about a packet that the path has sent. The callee must not retain q and e.
	ReportedTooBig(mtu encap.PathMTU, q encap.Quote, e icmp.Error)
	// ReportedUnreachable is called for other ICMP errors about such packets.
	ReportedUnreachable(from netip.Addr, e icmp.Error)
	// Reported is called for an ICMP error about one of our own packets to the outer
	// address of the peer.
	Reported(from netip.Addr, e icmp.Error)
}

// Probes recognizes the answers to a path's probes and passes them on.
type Probes interface {
	// Returned reports whether a packet that no tunnel may carry is a probe of ours that
	// the far end returned.
	Returned(pkt []byte) bool
	// AnswersBetween reports whether an inner packet answers a probe between two inner
	// addresses.
	AnswersBetween(between []probe.Pair, inner []byte) bool
	// Answer reports whether a packet to our end of a layer is an answer to a probe, or a
	// fragment of one.
	Answer(ip header.IPv6) bool
	// IsReply reports whether an ICMP message is the reply to a probe; passReply passes it
	// on. Typ is the type of echo replies in its IP version.
	IsReply(m []byte, typ byte) bool
	PassReply(m []byte)
	// Sent reports whether a quoted inner packet is a probe, and sentOutside whether a
	// quoted packet is a probe of an outer address.
	Sent(inner []byte) bool
	SentOutside(quote []byte) bool
}

// Notices are requests for a notice about the next packet of a path.
type Notices struct {
	Flags atomic.Uint32 // about the next packet that arrives
	sent  atomic.Bool   // NoticeSent
}

// Flags in Notices: what waits for the next packet.
const (
	NoticeMTU      = 1 << iota // path MTU discovery
	NoticeLiveness             // a liveness session
	NoticeSent                 // a liveness session: the next packet that is sent
)

// Request sets or clears the flag of one receiver of notices.
func (n *Notices) Request(flag uint32, want bool) {
	switch {
	case flag == NoticeSent:
		n.sent.Store(want)
	case want:
		n.Flags.Or(flag)
	default:
		n.Flags.And(^flag)
	}
}

// Sent counts packets that were sent on the path, and notifies a receiver that waits for one.
func (p *Path) Sent(packets, bytes int) {
	p.Out.Carried(packets, bytes)
	if p.Notices.sent.Load() && p.Notices.sent.Swap(false) {
		p.Owner.Notify(NoticeSent)
	}
}

// Received counts packets that arrived on the path, and notifies those that wait for one.
// Packets handled by the daemon itself show that the peer is alive just as packets for the
// interface do: a peer that has just started probes before it sends.
func (p *Path) Received(packets, bytes int) {
	p.In.Carried(packets, bytes)
	if p.Notices.Flags.Load() != 0 {
		p.Owner.Notify(p.Notices.Flags.Swap(0))
	}
}

// sentLarge counts packets that not every path carries.
func (p *Path) sentLarge(n uint64) {
	p.Large.Add(n)
	p.Owner.LargeSent()
}

// Epoch is the start of the monotonic times that are stored as integers.
var Epoch = time.Now()
