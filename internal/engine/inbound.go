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
	"sixfour/encap/nd"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/transport"
	"sixfour/transport/wait"
	"sixfour/transport/xdp"
	"sixfour/tun"
)

// inbound carries packets that arrive at an outer address of ours to the TUN devices of
// the tunnels that end there, on one goroutine. It serves one shard of one address and
// protocol, or one AF_XDP port.
type inbound struct {
	rx       transport.Receiver
	segments segmenter // rx, if the kernel may have merged its packets (GRO)
	queue    int       // index of the queue in the devices, modulo their number of queues
	table    *atomic.Pointer[table]
	at       netip.Addr // for a multicast group: our address on the link
	zone     uint32     // zone of a link-local address of ours; 0: another address
	stray    *counters  // of packets that belong to no tunnel
	drops    drops
	// broken is called at most once, when rx has failed for good.
	broken func(rx transport.Receiver, err error)
	lost   uint32 // losses that the receiver has reported
	// changed is called when packets of a peer arrive by another kind of receiver.
	changed func()
	socket  bool // rx is a socket, not an AF_XDP port

	// For captures.
	capturing *capture.Set
	seen      *capture.Taps  // the captures of this batch; nil: none
	hand      int            // index of the packet being handled
	end       *end           // its end; nil: none
	pkt       []byte         // the packet as it arrived, for captures
	note      string         // note about it
	moment    capture.Moment // arrival time of the batch
	kept      []byte         // copies of packets of the batch
	sent      [][]byte       // outer packets of an answer

	arena   *arena // memory of the buffers
	bufs    [][]byte
	meta    []transport.Meta // of the packets in bufs
	known   *table           // the table of the last batch
	sinks   []*sink          // by the tunnel's id; nil: no packets yet
	touched []*sink          // those with packets of the current batch
	reply   []byte           // buffer for an answer of our own
	scratch []byte           // buffer for its IPv6 fragments
	pieces  []byte           // buffer for its outer fragments
}

// sink collects the packets of one tunnel in a batch.
type sink struct {
	t      *dataTunnel
	queue  int // of the device
	mtu    int64
	gather *tun.Gatherer
	drops  drops
	kept   []capture.Packet // copies of packets in the gatherer, for captures

	// Packets of one peer in the gatherer that are not counted yet.
	path           *dataPath
	packets, bytes int
	held, all      int // packets in the gatherer that are counted, and their bytes
}

func (e *Engine) newInbound(queue int, log *zap.Logger, rx transport.Receiver) *inbound {
	const large = encap.Headroom + transport.MaxPacket
	a := newArena(transport.BatchSize*transport.MaxPacket + 2*large + transport.MaxPacket)
	_, direct := rx.(*xdp.Port)
	segments, _ := rx.(segmenter)
	return &inbound{
		rx:       rx,
		segments: segments,
		queue:    queue,
		table:    &e.table,
		stray:    &e.stray,
		drops:    drops{log: log, capturing: &e.captures, direction: pcapng.Inbound, strangers: &e.strangers},

		broken:    e.isBroken,
		changed:   e.somethingChanged,
		socket:    !direct,
		capturing: &e.captures,

		arena:   a,
		bufs:    a.buffers(transport.BatchSize, transport.MaxPacket),
		meta:    make([]transport.Meta, transport.BatchSize),
		reply:   a.buffer(large),
		scratch: a.buffer(large),
		pieces:  a.buffer(transport.MaxPacket),
	}
}

// sink returns the sink of a tunnel.
func (in *inbound) sink(t *dataTunnel) *sink {
	if t.id >= len(in.sinks) {
		in.sinks = append(in.sinks, make([]*sink, t.id+1-len(in.sinks))...)
	}
	s := in.sinks[t.id]
	if s == nil || s.t != t { // the id belonged to another tunnel
		s = &sink{t: t, queue: in.queue % t.queues, drops: t.drops("in", pcapng.Inbound)}
		in.sinks[t.id] = s
	}
	if mtu := t.mtu.Load(); s.mtu != mtu && (s.gather == nil || s.gather.Len() == 0) {
		s.mtu, s.gather = mtu, tun.NewGatherer(transport.BatchSize, int(mtu))
	}
	return s
}

// forget drops the sinks of tunnels that were removed.
func (in *inbound) forget() {
	for i, s := range in.sinks {
		if s != nil && s.t.retired.Load() {
			in.sinks[i] = nil
		}
	}
}

// run carries packets until the receiver is closed, and then frees the buffers.
func (in *inbound) run() {
	defer in.arena.free()
	wait.Thread()
	failures := 0
	for {
		n, err := in.rx.Receive(in.bufs, in.meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failures++; failures == brokenAfter {
				in.broken(in.rx, err)
				return
			}
			in.drops.log.Warn("receive", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		failures = 0
		in.carry(n)
		in.overrun(n)
		nap(n)
	}
}

// overrun counts packets for which the kernel's queue had no room. A full queue gives
// full batches, so the kernel is asked only after a full batch.
func (in *inbound) overrun(batch int) {
	if batch < transport.BatchSize {
		return
	}
	if lost, ok := in.rx.Lost(); ok && lost != in.lost {
		in.drops.countN(in.stray, drop.NoRoom, int(lost-in.lost), nil, nil)
		in.lost = lost
	}
}

// carry decapsulates the n packets that were received and writes them to their
// devices.
func (in *inbound) carry(n int) {
	t := in.table.Load()
	if t != in.known {
		in.known = t
		in.forget()
	}
	in.seen = in.capturing.Taps()
	if in.seen != nil {
		in.moment = in.capturing.Now()
		defer in.moment.End()
	}
	for next := 0; next < n; next = in.hand + 1 {
		if recovery.Guard(in.drops.log, "handling a received packet", func() { in.open(t, next, n) }) {
			recovery.Guard(in.drops.log, "counting a lost packet", in.failed)
		}
	}
	for _, s := range in.touched {
		if recovery.Guard(s.drops.log, "writing packets to the interface", func() { s.flush(in.seen) }) {
			in.replace(s)
		}
	}
	in.touched = in.touched[:0]
	in.endBatch()
}

// open decapsulates packets from to n-1 of the batch.
func (in *inbound) open(t *table, from, n int) {
	for i := from; i < n; i++ {
		in.hand, in.end = i, nil
		pkt := in.bufs[i][:in.meta[i].Size]
		if in.seen != nil {
			in.pkt, in.note = in.keep(pkt), ""
		}
		if len(pkt) < header.IPv4Len || header.Version(pkt) == 6 && len(pkt) < header.IPv6Len { // a packet too large for its buffer has size 0
			in.drops.lose(in.stray, &capture.Packet{At: in.moment.At, Outer: whole(in.outer()), Reason: drop.Truncated})
			continue
		}
		if e := t.find(pkt, in.zone); e != nil {
			in.end = e
			wire := e.wire()
			inner, r := e.decapsulate(wire, pkt)
			if r == drop.None && in.socket && e.path.ways.taken.Load() != 0 && e.path.ways.note() {
				in.changed()
			}
			in.deliver(e, wire, pkt, inner, r)
		} else {
			in.fromAnywhere(t, pkt)
		}
	}
	in.end = nil
}

// fromAnywhere handles a packet whose source is the remote address of no peer. An
// automatic tunnel at its destination may accept it. If none accepts it, the drop reason
// of the first one counts.
func (in *inbound) fromAnywhere(t *table, pkt []byte) {
	var first *end
	var why drop.Reason
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		for _, e := range t.any[ip.Dst()] {
			wire := e.wire()
			if e.protocol != ip.Protocol() || in.at.IsValid() && wire.outer().Local != in.at {
				continue
			}
			in.end = e
			inner, r := e.decapsulate(wire, pkt)
			if r == drop.None || r == drop.Fragment && inner != nil {
				in.deliver(e, wire, pkt, inner, r)
				return
			}
			if first == nil {
				first, why = e, r
			}
		}
	}
	if first == nil {
		in.drops.lose(in.stray, &capture.Packet{At: in.moment.At, Outer: whole(in.outer()), Reason: drop.ForeignSource})
		return
	}
	if first.path.probes.returned(pkt) {
		in.show(first.path.tunnel, nil, noteProbed)
		return
	}
	in.lose(in.sink(first.path.tunnel), first.path, nil, why, nil)
}

// decapsulate calls Stack.Decapsulate, and checks that the peer may send the result.
func (e *end) decapsulate(wire *Wire, pkt []byte) ([]byte, drop.Reason) {
	inner, r := wire.stack.Decapsulate(pkt)
	if r != drop.None {
		return inner, r
	}
	return inner, e.allows(inner)
}

// allows returns a drop reason unless an inner packet may come from the peer or is
// addressed to our end of the layer; the daemon handles the latter itself.
func (e *end) allows(inner []byte) drop.Reason {
	if e.sends(inner) || e.isOurs(inner) {
		return drop.None
	}
	return drop.Spoof
}

// sends reports whether an inner packet may come from the peer. In a tunnel with many
// peers the peer's prefixes decide (RFC 3704), except for packets from the peer's end of
// the layer to ours.
func (e *end) sends(inner []byte) bool {
	table := e.path.tunnel.peers.table.Load()
	return table == nil || table.Allows(e.path.peer, inner) ||
		e.isOurs(inner) && [16]byte(header.IPv6(inner).Source()) == e.remote
}

// isOurs reports whether an inner packet is addressed to our end of the layer.
func (e *end) isOurs(inner []byte) bool {
	return header.Version(inner) == 6 && e.local != [16]byte{} && [16]byte(header.IPv6(inner).Dest()) == e.local
}

// deliver handles what Decapsulate returned for pkt on a path.
func (in *inbound) deliver(e *end, wire *Wire, pkt, inner []byte, r drop.Reason) {
	s, segment := in.sink(e.path.tunnel), in.segment(wire, pkt)
	if r == drop.Fragment && inner != nil {
		segment = transport.Single
		if inner, r = wire.reassemble(s.t, inner); inner == nil && r == drop.None {
			in.show(s.t, nil, noteHeld)
			return
		}
		in.note = noteWhole
		if r == drop.None {
			r = e.allows(inner)
		}
	}
	if (r == drop.BadExtension || r == drop.SourceRouting) && inner != nil {
		in.reportProblem(s, e, inner)
	} else if inner != nil {
		if back := wire.stack.Keepalive(inner, r == drop.OwnSource); back != encap.NoReturn {
			in.sendBack(s, e, inner, back)
			return
		}
	}
	if r != drop.None {
		if e.path.probes.returned(pkt) || e.keepaliveBack(pkt) {
			in.show(s.t, inner, noteProbed)
		} else {
			in.lose(s, e.path, inner, r, nil)
		}
		return
	}
	if len(wire.between) > 0 && e.path.probes.answersBetween(wire.between, inner) {
		in.show(s.t, inner, noteProbed)
		e.path.received(1, len(inner))
		return
	}
	if e.isOurs(inner) {
		if in.take(s, e, wire, inner) {
			return
		}
		if !e.sends(inner) { // without this peer's end as source it is an ordinary packet
			in.lose(s, e.path, inner, drop.Spoof, nil)
			return
		}
	}
	if a := s.t.agent.Load(); a != nil && header.Version(inner) == 6 && nd.Is(inner) {
		switch done, r := a.receive(binary.BigEndian.Uint32(header.IPv4(pkt).Source()), inner); {
		case r != drop.None:
			in.lose(s, e.path, inner, r, nil)
			return
		case done:
			in.show(s.t, inner, noteNeighbour)
			e.path.received(1, len(inner))
			return
		}
	}
	if segment == transport.Unknown {
		in.segments.Wake()
	}
	wire.clamp.apply(inner)
	if r := s.gather.AddMerged(inner, segment); r != drop.None {
		in.lose(s, e.path, inner, r, nil)
		return
	}
	if s.gather.Len() == 1 {
		in.touched = append(in.touched, s)
	}
	if in.seen != nil {
		s.keepFor(in, inner)
	}
	s.add(e.path, inner)
}

// sendBack returns a router's keepalive to it.
func (in *inbound) sendBack(s *sink, e *end, inner []byte, back encap.Return) {
	wire := e.path.wire.Load()
	if wire == nil {
		in.lose(s, e.path, inner, drop.NoRoute, nil)
		return
	}
	answer := inner
	if back == encap.ReturnInside {
		n := encap.Headroom + copy(in.scratch[encap.Headroom:], inner)
		var r drop.Reason
		if answer, r = wire.stack.Encapsulate(in.scratch[:n], encap.Headroom); r != drop.None {
			in.lose(s, e.path, inner, r, nil)
			return
		}
	}
	if err := wire.send(answer, in.pieces); err != nil {
		in.lose(s, e.path, inner, sendReason(err), err)
		return
	}
	in.show(s.t, inner, noteKeepalive)
	s.t.show(&capture.Packet{At: in.moment.At, Direction: pcapng.Outbound, Outer: whole(answer), Note: noteAnswer})
	e.path.received(1, len(inner))
	e.path.requests.answered.Add(1)
}

// add adds a packet to the counts of its peer.
func (s *sink) add(p *dataPath, inner []byte) {
	if s.path != p {
		s.count()
		s.path = p
	}
	s.packets++
	s.bytes += len(inner)
}

// count adds the packets of the present peer to its counters.
func (s *sink) count() {
	p, packets, bytes := s.path, s.packets, s.bytes
	s.held, s.all = s.held+packets, s.all+bytes
	s.path, s.packets, s.bytes = nil, 0, 0
	if packets > 0 {
		p.received(packets, bytes)
	}
}

// flush writes the collected packets to the tunnel's device.
func (s *sink) flush(seen *capture.Taps) {
	n := s.gather.Len()
	s.count()
	refused := tun.Refused{Packets: n, Bytes: s.all}
	if dev := s.t.device.Load(); dev == nil {
		s.gather.Discard()
		s.held = 0
		s.drops.countN(&s.t.in, drop.InterfaceDown, n, nil, nil)
		s.showKept(seen, nil, true, drop.InterfaceDown, nil)
	} else if refused = s.gather.Write(dev.Queues()[s.queue]); refused.Packets > 0 {
		s.held = 0
		s.drops.countN(&s.t.in, writeReason(refused.Err), refused.Packets, nil, refused.Err)
	}
	s.showKept(seen, refused.Which, false, writeReason(refused.Err), refused.Err)
	if refused.Packets > 0 { // their peers are not known; this keeps the tunnel's total right
		s.t.in.carried(-refused.Packets, -refused.Bytes)
	}
	s.held, s.all = 0, 0
}

// writeReason returns the drop reason for an error from the device.
func writeReason(err error) drop.Reason {
	if errors.Is(err, tun.ErrDown) || errors.Is(err, tun.ErrGone) {
		return drop.InterfaceDown
	}
	return drop.TunFailed
}
