package engine

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/capture"
	"sixfour/internal/icmpreply"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/transport"
)

// outerErrors receives the ICMP messages to one of our outer addresses, on one goroutine:
// errors about outer packets, and answers to probes of outer addresses.
type outerErrors struct {
	rx     transport.Receiver
	zone   uint32                 // zone of the address
	table  *atomic.Pointer[table] // finds the peer of an error
	log    *zap.Logger
	broken func(rx transport.Receiver, err error) // called when rx has failed for good
	stray  *counters                              // packets that belong to no tunnel
}

// icmpReceived counts ICMP errors about a tunnel's outer packets.
type icmpReceived struct {
	errors  icmpreply.Counts // about packets of ours
	ignored atomic.Uint64    // about other packets, or impossible
}

// errorBatch is how many messages are read at a time.
const errorBatch = 16

// run handles messages until the receiver is closed.
func (o *outerErrors) run() {
	arena := newArena(errorBatch * transport.MaxPacket)
	defer arena.free()
	bufs, meta := arena.buffers(errorBatch, transport.MaxPacket), make([]transport.Meta, errorBatch)
	failures := 0
	for {
		n, err := o.rx.Receive(bufs, meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failures++; failures == brokenAfter {
				o.broken(o.rx, err)
				return
			}
			o.log.Warn("receive", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		failures = 0
		for i, m := range meta[:n] {
			if recovery.Guard(o.log, "handling an ICMP message about outer packets", func() { o.handle(bufs[i][:m.Size]) }) {
				o.stray.dropped(drop.InternalError, 1)
			}
		}
	}
}

// handle handles one message.
func (o *outerErrors) handle(b []byte) {
	pkt, r := header.ParseReceived(b, header.Version(b))
	if r != drop.None {
		return
	}
	if answersOuter(pkt, o.zone, o.table.Load()) {
		return
	}
	err, ok := icmp.Parse(pkt)
	if !ok || len(err.Quote) < header.IPv4Len || header.Version(err.Quote) != err.Version || err.Version == 6 && len(err.Quote) < header.IPv6Len {
		return
	}
	var about *dataPath
	if e := o.table.Load().about(err.Quote, o.zone, func(e *end) bool {
		about = e.path
		wire := e.wire()
		_, ours := wire.stack.Unquote(err.Quote)
		return ours
	}); e != nil {
		e.path.tunnel.show(&capture.Packet{Direction: pcapng.Inbound, Outer: whole(pkt), Note: noteICMP})
		e.path.handleICMP(header.Source(pkt), err)
	} else if about != nil && about.probes.sentOutside(err.Quote) {
		about.owner.reported(header.Source(pkt), err)
	} else if about != nil {
		about.icmp.ignored.Add(1)
	}
}

// handleICMP handles an ICMP error, sent by a host on the path, about a packet between the ends
// of the peer's tunnel or of its IPv6 layer. It reports whether we sent that packet.
func (p *dataPath) handleICMP(from netip.Addr, err icmp.Error) bool {
	wire := p.wire.Load()
	if wire == nil {
		return false
	}
	q, ok := wire.stack.Unquote(err.Quote)
	if !ok {
		p.icmp.ignored.Add(1)
		return false
	}
	switch m := err.Meaning(); m {
	case icmp.Nothing:
	case icmp.TooBig:
		mtu := err.MTU(q.Size)
		if mtu == 0 || !wire.stack.NeedsPathMTU() {
			p.icmp.ignored.Add(1)
			return true
		}
		p.owner.reportedTooBig(encap.PathMTU(max(mtu+q.Outside, int(encap.LeastPathMTU))), q, err)
	default:
		p.owner.reportedUnreachable(from, err)
		switch {
		case q.Inner == nil:
			p.soft.Note(m)
		case !p.probes.sent(q.Inner): // errors about our own probes are not sent on
			p.tunnel.reply.Unreachable(m, q.Inner)
		}
	}
	p.icmp.errors.Add(err.Version, err.Type, err.Code)
	return true
}

// answersOuter reports whether an ICMP packet to one of our outer addresses is an echo
// reply. If it answers the probe of a peer's outer address, the answer is passed on.
func answersOuter(pkt []byte, zone uint32, t *table) bool {
	reply, m := byte(icmp.EchoReply4), []byte(nil)
	var sent []byte // beginning of the packet that it answers
	if header.Version(pkt) == 6 {
		ip := header.IPv6(pkt)
		reply, m = icmp.EchoReply6, ip.Payload()
		sent = slices.Concat(ip[:8], ip.Dest(), ip.Source())
	} else {
		ip := header.IPv4(pkt)
		m = ip.Payload()
		sent = slices.Concat(ip[:12], ip.Dest(), ip.Source())
	}
	if len(m) == 0 || m[0] != reply {
		return false
	}
	if e := t.about(sent, zone, func(e *end) bool { return e.path.probes.isReply(m, reply) }); e != nil {
		e.path.tunnel.show(&capture.Packet{Direction: pcapng.Inbound, Outer: whole(pkt), Note: noteProbed})
		e.path.probes.passReply(m)
	}
	return true
}
