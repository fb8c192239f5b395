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
	"sixfour/transport"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// inbound carries packets to an outer address of ours to the TUN devices of the
// tunnels that end there, on one goroutine: those of one shard and one protocol, or
// what arrives at a port.
type inbound struct {
	rx       transport.Receiver
	segments segmenter // the same, if the kernel may have put its packets together
	queue    int       // of the devices, as far as they have so many
	table    *atomic.Pointer[table]
	at       netip.Addr // of a multicast group: our address where its packets arrive
	zone     uint32     // of the link-local address of ours where packets arrive; 0: it is another
	stray    *counters  // of packets that belong to no tunnel
	drops    drops
	// Broken is called, at most once, when nothing more is to be expected of rx.
	broken func(rx transport.Receiver, err error)
	lost   uint32 // that the receiver has told of
	// Changed is called when packets of a peer are to arrive in another way.
	changed func()
	socket  bool // rx is one, and no AF_XDP port

	// For captures.
	capturing *capturing
	seen      *captures // of this batch; nil: nobody captures
	hand      int       // the packet at hand
	end       *end      // to which it came; nil: to none
	pkt       []byte    // that packet, as it arrived, if somebody captures
	note      string    // what there is to say of it
	moment    moment    // when the batch arrived
	kept      []byte    // packets of the batch
	sent      [][]byte  // what an answer went in

	arena   *arena // of the buffers
	bufs    [][]byte
	sizes   []int
	known   *table  // the last
	sinks   []*sink // by the tunnel's number, as far as there were packets
	touched []*sink // have packets of the current batch
	reply   []byte  // for an answer of our own
	scratch []byte  // its IPv6 fragments
	pieces  []byte  // and those of what goes out
}

// segmenter says how the kernel has put a packet of the last batch together.
type segmenter interface{ Segment(i int) int }

// sink is where one tunnel's packets of a batch are gathered.
type sink struct {
	t      *tunnel
	queue  int // of the device
	mtu    int64
	gather *tun.Gatherer
	drops  drops
	kept   []capture.Packet // that are in the gatherer, if somebody captures

	// Packets in the gatherer that come from one peer, and were not counted yet.
	peer           *peer
	packets, bytes int
	all            int // bytes of all packets in it
}

func (e *Engine) newInbound(queue int, log *zap.Logger, rx transport.Receiver) *inbound {
	const large = encap.Headroom + transport.MaxPacket
	a := newArena(transport.BatchSize*transport.MaxPacket + 2*large + transport.MaxPacket)
	_, direct := rx.(*transport.XDPPort)
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
		sizes:   make([]int, transport.BatchSize),
		reply:   a.buffer(large),
		scratch: a.buffer(large),
		pieces:  a.buffer(transport.MaxPacket),
	}
}

// sink is the one for a tunnel.
func (in *inbound) sink(t *tunnel) *sink {
	if t.id >= len(in.sinks) {
		in.sinks = append(in.sinks, make([]*sink, t.id+1-len(in.sinks))...)
	}
	s := in.sinks[t.id]
	if s == nil || s.t != t { // the number was another's
		s = &sink{t: t, queue: in.queue % t.queues, drops: t.drops("in", pcapng.Inbound)}
		in.sinks[t.id] = s
	}
	if mtu := t.mtu.Load(); s.mtu != mtu && (s.gather == nil || s.gather.Len() == 0) {
		s.mtu, s.gather = mtu, tun.NewGatherer(transport.BatchSize, int(mtu))
	}
	return s
}

// forget gives up the sinks of tunnels that are no more.
func (in *inbound) forget() {
	for i, s := range in.sinks {
		if s != nil && s.t.retired.Load() {
			in.sinks[i] = nil
		}
	}
}

// run works until the receiver is closed. The buffers are gone then.
func (in *inbound) run() {
	defer in.arena.free()
	wait.Thread()
	failures := 0
	for {
		n, err := in.rx.Receive(in.bufs, in.sizes)
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

// overrun counts the packets for which the kernel's queue had no room. A queue that
// was full gives many full batches: only after those it is asked.
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
	in.seen = in.capturing.now.Load()
	if in.seen != nil {
		in.moment = in.capturing.moment()
		defer in.moment.end()
	}
	for next := 0; next < n; next = in.hand + 1 {
		if guarded(in.drops.log, "handle a packet that arrived", func() { in.open(t, next, n) }) {
			guarded(in.drops.log, "count a packet that was lost", in.failed)
		}
	}
	for _, s := range in.touched {
		if guarded(s.drops.log, "write packets to the interface", func() { s.flush(in.seen) }) {
			in.replace(s)
		}
	}
	in.touched = in.touched[:0]
	in.endBatch()
}

// open decapsulates the packets that were received, from one on to the nth.
func (in *inbound) open(t *table, from, n int) {
	for i := from; i < n; i++ {
		in.hand, in.end = i, nil
		pkt := in.bufs[i][:in.sizes[i]]
		if in.seen != nil {
			in.pkt, in.note = in.keep(pkt), ""
		}
		if len(pkt) < header.IPv4Len || header.Version(pkt) == 6 && len(pkt) < header.IPv6Len { // one too large for its buffer has size 0
			in.drops.lose(in.stray, &capture.Packet{At: in.moment.at, Outer: whole(in.outer()), Reason: drop.Truncated})
			continue
		}
		if e := t.find(pkt, in.zone); e != nil {
			in.end = e
			if e.peer.ways.taken.Load() != 0 && in.socket && e.peer.ways.note() {
				in.changed()
			}
			path := e.path()
			inner, r := e.decapsulate(path, pkt)
			in.deliver(e, path, pkt, inner, r)
		} else {
			in.fromAnywhere(t, pkt)
		}
	}
	in.end = nil
}

// fromAnywhere is for packets from nobody's remote address: one of the automatic
// tunnels at their destination may take them. If none does, the first one's reason
// counts.
func (in *inbound) fromAnywhere(t *table, pkt []byte) {
	var first *end
	var why drop.Reason
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		for _, e := range t.any[ip.Dst()] {
			path := e.path()
			if e.protocol != ip.Protocol() || in.at.IsValid() && path.outer().Local != in.at {
				continue
			}
			in.end = e
			inner, r := e.decapsulate(path, pkt)
			if r == drop.None || r == drop.Fragment && inner != nil {
				in.deliver(e, path, pkt, inner, r)
				return
			}
			if first == nil {
				first, why = e, r
			}
		}
	}
	if first == nil {
		in.drops.lose(in.stray, &capture.Packet{At: in.moment.at, Outer: whole(in.outer()), Reason: drop.ForeignSource})
		return
	}
	if first.peer.returned(pkt) {
		in.show(first.peer.t, nil, noteProbed)
		return
	}
	in.lose(in.sink(first.peer.t), first.peer, nil, why, nil)
}

// decapsulate is Stack.Decapsulate, and whether the peer may send what came out.
func (e *end) decapsulate(path *path, pkt []byte) ([]byte, drop.Reason) {
	inner, r := path.stack.Decapsulate(pkt)
	if r != drop.None {
		return inner, r
	}
	return inner, e.allows(inner)
}

// allows says whether an inner packet may come from the peer, or is for our end of
// the layer: the daemon itself looks at that first.
func (e *end) allows(inner []byte) drop.Reason {
	if e.sends(inner) || e.isOurs(inner) {
		return drop.None
	}
	return drop.Spoof
}

// sends reports whether an inner packet may come from the peer: its prefixes decide,
// where there are many peers (RFC 3704), but for what its end of the layer says to
// ours.
func (e *end) sends(inner []byte) bool {
	table := e.peer.t.table.Load()
	return table == nil || table.Allows(e.peer, inner) ||
		e.isOurs(inner) && [16]byte(header.IPv6(inner).Source()) == e.remote
}

// isOurs reports whether an inner packet is to our end of the layer.
func (e *end) isOurs(inner []byte) bool {
	return header.Version(inner) == 6 && e.local != [16]byte{} && [16]byte(header.IPv6(inner).Dest()) == e.local
}

// deliver takes what Decapsulate has returned for pkt, by a path.
func (in *inbound) deliver(e *end, path *path, pkt, inner []byte, r drop.Reason) {
	s, segment := in.sink(e.peer.t), in.segment()
	if r == drop.Fragment && inner != nil {
		segment = transport.Single
		if inner, r = path.reassemble(s.t, inner); inner == nil && r == drop.None {
			in.show(s.t, nil, noteHeld)
			return
		}
		in.note = noteWhole
		if r == drop.None {
			r = e.allows(inner)
		}
	}
	if (r == drop.BadExtension || r == drop.SourceRouting) && inner != nil {
		in.tellProblem(s, e, inner)
	} else if e.protocol == header.GRE && inner != nil {
		if back := path.stack.Keepalive(inner, r == drop.OwnSource); back != encap.NoReturn {
			in.sendBack(s, e, inner, back)
			return
		}
	}
	if r != drop.None {
		if e.peer.returned(pkt) || keepaliveBack(pkt) {
			in.show(s.t, inner, noteProbed)
		} else {
			in.lose(s, e.peer, inner, r, nil)
		}
		return
	}
	if len(path.between) > 0 && e.peer.answersBetween(path.between, inner) {
		in.show(s.t, inner, noteProbed)
		e.peer.took(1, len(inner))
		return
	}
	if e.isOurs(inner) {
		if in.take(s, e, path, inner) {
			return
		}
		if !e.sends(inner) { // to the interface it goes like any other
			in.lose(s, e.peer, inner, drop.Spoof, nil)
			return
		}
	}
	if sp := s.t.speaker.Load(); sp != nil && header.Version(inner) == 6 && nd.Is(inner) {
		switch done, r := sp.hear(binary.BigEndian.Uint32(header.IPv4(pkt).Source()), inner); {
		case r != drop.None:
			in.lose(s, e.peer, inner, r, nil)
			return
		case done:
			in.show(s.t, inner, noteNeighbour)
			e.peer.took(1, len(inner))
			return
		}
	}
	path.clamp.apply(inner)
	if r := s.gather.AddMerged(inner, segment); r != drop.None {
		in.lose(s, e.peer, inner, r, nil)
		return
	}
	if s.gather.Len() == 1 {
		in.touched = append(in.touched, s)
	}
	if in.seen != nil {
		s.keepFor(in, inner)
	}
	s.add(e.peer, inner)
}

// segment is what is known of how the kernel has put the packet at hand together.
func (in *inbound) segment() int {
	if in.segments == nil {
		return transport.Single
	}
	return in.segments.Segment(in.hand)
}

// sendBack sends a router's keepalive back to it.
func (in *inbound) sendBack(s *sink, e *end, inner []byte, back encap.Return) {
	path := e.peer.path.Load()
	if path == nil {
		in.lose(s, e.peer, inner, drop.NoRoute, nil)
		return
	}
	answer := inner
	if back == encap.ReturnInside {
		n := encap.Headroom + copy(in.scratch[encap.Headroom:], inner)
		var r drop.Reason
		if answer, r = path.stack.Encapsulate(in.scratch[:n], encap.Headroom); r != drop.None {
			in.lose(s, e.peer, inner, r, nil)
			return
		}
	}
	if err := path.send(answer, in.pieces); err != nil {
		in.lose(s, e.peer, inner, sendReason(err), err)
		return
	}
	in.show(s.t, inner, noteKeepalive)
	s.t.show(&capture.Packet{At: in.moment.at, Direction: pcapng.Outbound, Outer: whole(answer), Note: noteAnswer})
	e.peer.took(1, len(inner))
	e.peer.answered.Add(1)
}

// add notes a peer's packet, which was gathered.
func (s *sink) add(p *peer, inner []byte) {
	if s.peer != p {
		s.count()
		s.peer = p
	}
	s.packets++
	s.bytes += len(inner)
}

// count counts the packets of one peer.
func (s *sink) count() {
	if s.packets > 0 {
		s.peer.took(s.packets, s.bytes)
	}
	s.all += s.bytes
	s.peer, s.packets, s.bytes = nil, 0, 0
}

// flush writes the packets to the tunnel's device.
func (s *sink) flush(seen *captures) {
	n := s.gather.Len()
	s.count()
	refused := tun.Refused{Packets: n, Bytes: s.all}
	if dev := s.t.device.Load(); dev == nil {
		s.gather.Discard()
		s.drops.countN(&s.t.in, drop.InterfaceDown, n, nil, nil)
		s.showKept(seen, nil, true, drop.InterfaceDown, nil)
	} else if refused = s.gather.Write(dev.Queues()[s.queue]); refused.Packets > 0 {
		s.drops.countN(&s.t.in, writeReason(refused.Err), refused.Packets, nil, refused.Err)
	}
	s.showKept(seen, refused.Which, false, writeReason(refused.Err), refused.Err)
	if refused.Packets > 0 { // whose they were is not known: the tunnel's sum is right
		s.t.in.carried(-refused.Packets, -refused.Bytes)
	}
	s.all = 0
}

// writeReason says under which reason a packet goes that the device refused.
func writeReason(err error) drop.Reason {
	if errors.Is(err, tun.ErrDown) || errors.Is(err, tun.ErrGone) {
		return drop.InterfaceDown
	}
	return drop.TunFailed
}
