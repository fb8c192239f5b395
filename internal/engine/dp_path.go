package engine

import (
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/icmpreply"
	"sixfour/internal/probe"
)

// dataPeer is one remote end of a tunnel. Its selection says which of its paths carry
// packets now.
type dataPeer struct {
	paths     []*dataPath // never changes, at least one
	selection atomic.Pointer[selection]
}

// selection is the wires among which the packets to a peer are divided. It is immutable.
type selection struct{ wires []*Wire }

// use makes packets to the peer use the given wires from now on; none: they are dropped.
func (p *dataPeer) use(wires ...*Wire) {
	if len(wires) == 0 {
		p.selection.Store(nil)
		return
	}
	p.selection.Store(&selection{wires})
}

// wireFor returns the wire for a packet to the peer; nil: there is none. All packets of a
// flow use the same wire.
func (p *dataPeer) wireFor(inner []byte) *Wire {
	s := p.selection.Load()
	switch {
	case s == nil:
		return nil
	case len(s.wires) == 1:
		return s.wires[0]
	}
	return s.wires[encap.FlowHash(inner)%uint64(len(s.wires))]
}

// dataPath is one way to a peer. It exists as long as the configuration has it, also while
// nothing can be sent.
type dataPath struct {
	peer    *dataPeer
	tunnel  *dataTunnel
	in, out counters
	wire    atomic.Pointer[Wire] // nil: packets cannot be sent now
	record  *encap.Record
	owner   pathOwner
	probes  probes

	soft     icmpreply.Soft
	icmp     icmpReceived
	sample   ptbSample
	notices  notices
	large    atomic.Uint64 // packets sent that not every path carries
	requests echoRequests
	ways     twoWays // packets that may arrive both by socket and by AF_XDP
}

// echoRequests counts the echo requests that arrived for our end of the path.
type echoRequests struct {
	answered atomic.Uint64 // by the daemon itself
	large    atomic.Uint64 // large ones, which the interface answers
}

// pathOwner is told what concerns a path but is not a matter of carrying packets. Its
// methods never block, and any goroutine may call them.
type pathOwner interface {
	// notify is called once for the flags that were set with notices.request, when a
	// packet has arrived.
	notify(flags uint32)
	// largeSent is called after packets were sent that not every path carries.
	largeSent()
	// sendFailed is called when the kernel refused to send a packet.
	sendFailed(err error)
	// hopRefused is called when the first hop to a destination of an automatic tunnel refused
	// a packet as too large.
	hopRefused(dst netip.Addr)
	// reportedTooBig is called for an ICMP error that reports a path MTU. The error is
	// about a packet that the path has sent. The callee must not retain q and e.
	reportedTooBig(mtu encap.PathMTU, q encap.Quote, e icmp.Error)
	// reportedUnreachable is called for other ICMP errors about such packets.
	reportedUnreachable(from netip.Addr, e icmp.Error)
	// reported is called for an ICMP error about one of our own packets to the outer
	// address of the peer.
	reported(from netip.Addr, e icmp.Error)
}

// probes recognizes the answers to a path's probes and passes them on.
type probes interface {
	// returned reports whether a packet that no tunnel may carry is a probe of ours that
	// the far end returned.
	returned(pkt []byte) bool
	// answersBetween reports whether an inner packet answers a probe between two inner
	// addresses.
	answersBetween(between []probe.Pair, inner []byte) bool
	// answer reports whether a packet to our end of a layer is an answer to a probe, or a
	// fragment of one.
	answer(ip header.IPv6) bool
	// isReply reports whether an ICMP message is the reply to a probe; passReply passes it
	// on. Typ is the type of echo replies in its IP version.
	isReply(m []byte, typ byte) bool
	passReply(m []byte)
	// sent reports whether a quoted inner packet is a probe, and sentOutside whether a
	// quoted packet is a probe of an outer address.
	sent(inner []byte) bool
	sentOutside(quote []byte) bool
}

// notices are requests for a notice about the next packet from a path.
type notices struct{ flags atomic.Uint32 }

// request sets or clears the flag of one receiver of notices.
func (n *notices) request(flag uint32, want bool) {
	if want {
		n.flags.Or(flag)
	} else {
		n.flags.And(^flag)
	}
}

// received counts packets that arrived on the path, and notifies those that wait for one.
// Packets handled by the daemon itself show that the peer is alive just as packets for the
// interface do: a peer that has just started probes before it sends.
func (p *dataPath) received(packets, bytes int) {
	p.in.carried(packets, bytes)
	if p.notices.flags.Load() != 0 {
		p.owner.notify(p.notices.flags.Swap(0))
	}
}

// sentLarge counts packets that not every path carries.
func (p *dataPath) sentLarge(n uint64) {
	p.large.Add(n)
	p.owner.largeSent()
}

// epoch is the start of the monotonic times that are stored as integers.
var epoch = time.Now()
