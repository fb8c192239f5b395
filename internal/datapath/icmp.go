package datapath

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
	"sixfour/internal/arena"
	"sixfour/internal/capture"
	"sixfour/internal/icmpreply"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/transport"
)

// ICMPInbound receives the ICMP messages to one of our outer addresses, on one goroutine:
// errors about outer packets, and answers to probes of outer addresses.
type ICMPInbound struct {
	*Plane
	rx   transport.Receiver
	zone uint32 // zone of the address
	log  *zap.Logger
}

// NewICMP returns what serves a receiver of ICMP messages. Zone is that of our address, or
// 0. Run must follow.
func (p *Plane) NewICMP(zone uint32, log *zap.Logger, rx transport.Receiver) *ICMPInbound {
	return &ICMPInbound{p, rx, zone, log}
}

// ICMPReceived counts ICMP errors about a tunnel's outer packets.
type ICMPReceived struct {
	Errors  icmpreply.Counts // about packets of ours
	Ignored atomic.Uint64    // about other packets, or impossible
	soft    icmpreply.Soft
}

// errorBatch is how many messages are read at a time.
const errorBatch = 16

// Run handles messages until the receiver is closed.
func (o *ICMPInbound) Run() {
	memory := arena.New(errorBatch * transport.MaxPacket)
	defer memory.Free()
	bufs, meta := memory.Buffers(errorBatch, transport.MaxPacket), make([]transport.Meta, errorBatch)
	failures := 0
	for {
		n, err := o.rx.Receive(bufs, meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failures++; failures == BrokenAfter {
				o.Failed(o.rx, err)
				return
			}
			o.log.Warn("cannot receive packets", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		failures = 0
		for i, m := range meta[:n] {
			if recovery.Guard(o.log, "handling an ICMP message about outer packets", func() { o.handle(bufs[i][:m.Size]) }) {
				o.Stray.Dropped(drop.InternalError, 1)
			}
		}
	}
}

// handle handles one message.
func (o *ICMPInbound) handle(b []byte) {
	pkt, r := header.ParseReceived(b, header.Version(b))
	if r != drop.None {
		return
	}
	if answersOuter(pkt, o.zone, o.Table.Load()) {
		return
	}
	err, ok := icmp.Parse(pkt)
	if !ok || len(err.Quote) < header.IPv4Len || header.Version(err.Quote) != err.Version || err.Version == 6 && len(err.Quote) < header.IPv6Len {
		return
	}
	var about *Path
	if e := o.Table.Load().about(err.Quote, o.zone, func(e *End) bool {
		about = e.Path
		wire := e.Wire()
		_, ours := wire.Stack.Unquote(err.Quote)
		return ours
	}); e != nil {
		e.Path.Tunnel.Show(&capture.Packet{Direction: pcapng.Inbound, Outer: capture.Whole(pkt), Note: noteICMP, Path: e.Path.number()})
		e.Path.handleICMP(header.Source(pkt), err)
	} else if about != nil && about.Probes.SentOutside(err.Quote) {
		about.Owner.Reported(header.Source(pkt), err)
	} else if about != nil {
		about.ICMP.Ignored.Add(1)
	}
}

// handleICMP handles an ICMP error, sent by a host on the path, about a packet between the ends
// of the peer's tunnel or of its IPv6 layer. It reports whether we sent that packet.
func (p *Path) handleICMP(from netip.Addr, err icmp.Error) bool {
	wire := p.Wire.Load()
	if wire == nil {
		return false
	}
	q, ok := wire.Stack.Unquote(err.Quote)
	if !ok {
		p.ICMP.Ignored.Add(1)
		return false
	}
	switch m := err.Meaning(); m {
	case icmp.Nothing:
	case icmp.TooBig:
		mtu := err.MTU(q.Size)
		if mtu == 0 || !wire.Stack.NeedsPathMTU() {
			p.ICMP.Ignored.Add(1)
			return true
		}
		p.Owner.ReportedTooBig(encap.PathMTU(max(mtu+q.Outside, int(encap.LeastPathMTU))), q, err)
	default:
		p.Owner.ReportedUnreachable(from, err)
		switch {
		case q.Inner == nil:
			p.ICMP.soft.Note(m)
		case !p.Probes.Sent(q.Inner): // errors about our own probes are not sent on
			p.Tunnel.Reply.Unreachable(m, q.Inner)
		}
	}
	p.ICMP.Errors.Add(err.Version, err.Type, err.Code)
	return true
}

// answersOuter reports whether an ICMP packet to one of our outer addresses is an echo
// reply. If it answers the probe of a peer's outer address, the answer is passed on.
func answersOuter(pkt []byte, zone uint32, t *Table) bool {
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
	if e := t.about(sent, zone, func(e *End) bool { return e.Path.Probes.IsReply(m, reply) }); e != nil {
		e.Path.Tunnel.Show(&capture.Packet{Direction: pcapng.Inbound, Outer: capture.Whole(pkt), Note: noteProbed, Path: e.Path.number()})
		e.Path.Probes.PassReply(m)
	}
	return true
}
