package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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

// listenICMP opens the receiver of ICMP messages to an address.
func (e *Engine) listenICMP(local netip.Addr) error {
	protocol, types := header.ICMP, []int{icmp.Unreachable4, icmp.TimeExceeded4, icmp.Parameter4, icmp.EchoReply4}
	if local.Is6() {
		protocol, types = header.ICMPv6, []int{icmp.Unreachable6, icmp.TooBig6, icmp.TimeExceeded6, icmp.Parameter6, icmp.EchoReply6}
	}
	rx, err := transport.ListenRaw(local, protocol, transport.Shard{}, transport.Options{ICMP: types})
	if err != nil {
		return err
	}
	o := &outerErrors{rx, zoneOf(local), &e.table, e.log.Named("icmp").With(zap.Stringer("local", local)), e.isBroken, &e.stray}
	e.errors[local] = rx
	e.wg.Go(o.run)
	return nil
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
	var about *path
	if e := o.table.Load().about(err.Quote, o.zone, func(e *end) bool {
		about = e.path
		wire := e.wire()
		_, ours := wire.stack.Unquote(err.Quote)
		return ours
	}); e != nil {
		e.path.t.show(&capture.Packet{Direction: pcapng.Inbound, Outer: whole(pkt), Note: noteICMP})
		e.path.handleICMP(header.Source(pkt), err)
	} else if about != nil && about.echo.sentOutside(err.Quote) {
		about.noteICMP(header.Source(pkt), err)
	} else if about != nil {
		about.icmp.ignored.Add(1)
	}
}

// handleICMP handles an ICMP error, sent by a host on the path, about a packet between the ends
// of the peer's tunnel or of its IPv6 layer. It reports whether we sent that packet.
func (p *path) handleICMP(from netip.Addr, err icmp.Error) bool {
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
		p.tooBig(encap.PathMTU(max(mtu+q.Outside, int(encap.LeastPathMTU))), q, err)
	default:
		p.noteICMP(from, err)
		p.doubtName()
		p.doubted.Store(true)
		p.t.keeper.mark(p)
		switch {
		case q.Inner == nil:
			p.soft.Note(m)
		case !p.echo.sent(q.Inner): // errors about our own probes are not sent on
			p.t.reply.Unreachable(m, q.Inner)
		}
	}
	p.icmp.errors.Add(err.Version, err.Type, err.Code)
	return true
}

// tooBig handles a router's report about the path MTU. In an automatic tunnel each
// destination has its own path MTU.
func (p *path) tooBig(mtu encap.PathMTU, q encap.Quote, err icmp.Error) {
	if q.To == 0 {
		p.t.prober.tooBig(p, mtu, q.Inner, header.IPv4Len+icmp.HeaderLen+len(err.Quote))
		return
	}
	if p.reports.Allow() {
		var dst [4]byte
		binary.BigEndian.PutUint32(dst[:], q.To)
		p.narrowTo(dst, mtu)
	}
}

// narrowTo stores the path MTU to one destination of an automatic tunnel.
func (p *path) narrowTo(dst [4]byte, mtu encap.PathMTU) {
	p.narrow.Lock()
	defer p.narrow.Unlock()
	p.record.Narrow(binary.BigEndian.Uint32(dst[:]), mtu, time.Now())
}

// widen removes stored path MTUs that are due to be tested again.
func (p *path) widen(now time.Time) {
	p.narrow.Lock()
	defer p.narrow.Unlock()
	p.record.Widen(now)
}
