package datapath

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/arena"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/internal/tally"
	"sixfour/transport"
	"sixfour/transport/datagrams"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// BrokenAfter is the number of consecutive errors, readPause apart, after which a
// receiver is replaced: about a second.
const BrokenAfter = 100

// Inbound carries packets that arrive at an outer address of ours to the TUN devices of
// the tunnels that end there, on one goroutine. It serves one shard of one port.
type Inbound struct {
	*Plane
	Place
	Rx       transport.Receiver
	segments segmenter // rx, if the kernel may have merged its packets (GRO)
	drops    tally.Drops
	lost     uint32 // losses that the receiver has reported

	end *End // of the packet being handled; nil: none
	datagrams.Cursor
	shown
	buffers

	known   *Table  // the table of the last batch
	sinks   []*sink // by the tunnel's id; nil: no packets yet
	touched []*sink // those with packets of the current batch
}

// Place says where an inbound receives packets.
type Place struct {
	Queue  int        // index of the queue in the devices, modulo their number of queues
	At     netip.Addr // for a multicast group: our address on the link
	Zone   uint32     // zone of a link-local address of ours; 0: another address
	Socket bool       // packets come from a socket, not from AF_XDP
}

// shown is what an inbound keeps of a batch for captures.
type shown struct {
	seen   *capture.Taps  // the captures of this batch; nil: none
	pkt    []byte         // the present packet as it arrived
	note   string         // note about it
	moment capture.Moment // arrival time of the batch
	kept   []byte         // copies of packets of the batch
}

// buffers are the memory of an inbound.
type buffers struct {
	arena   *arena.Arena
	bufs    [][]byte
	meta    []transport.Meta // of the packets in bufs
	reply   []byte           // for an answer of our own
	scratch []byte           // for its IPv6 fragments
	pieces  []byte           // for its outer fragments
}

func newBuffers() buffers {
	const large = encap.Headroom + transport.MaxPacket
	a := arena.New(transport.BatchSize*transport.MaxPacket + 2*large + transport.MaxPacket)
	return buffers{
		arena:   a,
		bufs:    a.Buffers(transport.BatchSize, transport.MaxPacket),
		meta:    make([]transport.Meta, transport.BatchSize),
		reply:   a.Buffer(large),
		scratch: a.Buffer(large),
		pieces:  a.Buffer(transport.MaxPacket),
	}
}

// gatherSize is how many packets of a tunnel are written to its device together, at most.
const gatherSize = transport.BatchSize

// sink collects the packets of one tunnel in a batch.
type sink struct {
	t      *Tunnel
	queue  int // of the device
	mtu    int64
	gather *tun.Gatherer
	drops  tally.Drops
	kept   []capture.Packet // copies of packets in the gatherer, for captures

	touched bool // in Inbound.touched

	// Packets of one peer in the gatherer that are not counted yet.
	path           *Path
	packets, bytes int
	held, all      int // packets in the gatherer that are counted, and their bytes
}

// NewInbound returns an inbound that serves a receiver. Run must follow, and frees its
// memory.
func (p *Plane) NewInbound(at Place, log *zap.Logger, rx transport.Receiver) *Inbound {
	segments, _ := rx.(segmenter)
	return &Inbound{
		Plane: p, Place: at, Rx: rx, segments: segments, buffers: newBuffers(),
		drops: tally.Drops{Log: log, Captures: &p.Captures, Direction: pcapng.Inbound, Strangers: &p.Strangers},
	}
}

// sink returns the sink of a tunnel.
func (in *Inbound) sink(t *Tunnel) *sink {
	if t.ID >= len(in.sinks) {
		in.sinks = append(in.sinks, make([]*sink, t.ID+1-len(in.sinks))...)
	}
	s := in.sinks[t.ID]
	if s == nil || s.t != t { // the id belonged to another tunnel
		s = &sink{t: t, queue: in.Queue % t.Queues, drops: t.Drops("in", pcapng.Inbound)}
		in.sinks[t.ID] = s
	}
	if mtu := t.MTU.Load(); s.mtu != mtu && (s.gather == nil || s.gather.Len() == 0) {
		s.mtu, s.gather = mtu, tun.NewGatherer(gatherSize, int(mtu))
	}
	return s
}

// forget drops the sinks of tunnels that were removed.
func (in *Inbound) forget() {
	for i, s := range in.sinks {
		if s != nil && s.t.Retired.Load() {
			in.sinks[i] = nil
		}
	}
}

// Run carries packets until the receiver is closed, and then frees the buffers.
func (in *Inbound) Run() {
	defer in.arena.Free()
	wait.Thread()
	failures := 0
	for {
		n, err := in.Rx.Receive(in.bufs, in.meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failures++; failures == BrokenAfter {
				in.Plane.Failed(in.Rx, err)
				return
			}
			in.drops.Log.Warn("cannot receive packets", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		failures = 0
		in.carry(n)
		in.overrun(in.Count)
		nap(in.Count)
	}
}

// overrun counts packets for which the kernel's queue had no room. A full queue gives
// full batches, so the kernel is asked only after a full batch.
func (in *Inbound) overrun(batch int) {
	if batch < transport.BatchSize {
		return
	}
	if lost, ok := in.Rx.Lost(); ok && lost != in.lost {
		in.drops.CountN(&in.Stray, drop.NoRoom, int(lost-in.lost), nil, nil)
		in.lost = lost
	}
}

// carry decapsulates the packets in the n buffers that were received and writes them to
// their devices.
func (in *Inbound) carry(n int) {
	t := in.Table.Load()
	if t != in.known {
		in.known = t
		in.forget()
	}
	in.seen = in.Captures.Taps()
	if in.seen != nil {
		in.moment = in.Captures.Now()
		defer in.moment.End()
	}
	in.Start(in.bufs[:n], in.meta[:n])
	for recovery.Guard(in.drops.Log, "handling a received packet", func() { in.open(t) }) {
		recovery.Guard(in.drops.Log, "counting a lost packet", in.lostByPanic)
	}
	for _, s := range in.touched {
		s.touched = false
		if recovery.Guard(s.drops.Log, "writing packets to the interface", func() { s.flush(in.seen) }) {
			in.replace(s)
		}
	}
	in.touched = in.touched[:0]
	in.endBatch()
}

// open decapsulates the packets of the batch that were not handled yet.
func (in *Inbound) open(t *Table) {
	for in.Next() {
		in.end = nil
		pkt := in.Packet
		if in.seen != nil {
			in.pkt, in.note = in.keep(pkt), ""
		}
		if len(pkt) < header.IPv4Len || header.Version(pkt) == 6 && len(pkt) < header.IPv6Len { // a packet too large for its buffer has size 0
			in.drops.Lose(&in.Stray, &capture.Packet{At: in.moment.At, Outer: capture.Whole(in.outer()), Reason: drop.Truncated})
			continue
		}
		if e := t.Find(pkt, in.Zone); e != nil {
			in.end = e
			wire := e.Wire()
			inner, r := e.decapsulate(wire, pkt)
			if r != drop.None {
				is, why := in.message(pkt)
				if is && why == drop.None {
					in.show(e.Path.Tunnel, nil, noteMessage)
					continue
				}
				if is {
					inner, r = nil, why
				}
			}
			if r == drop.None && in.Socket && e.Path.Ways.Note() {
				in.Changed()
			}
			in.handle(e, wire, pkt, inner, r)
		} else if is, why := in.message(pkt); !is {
			in.fromAnywhere(t, pkt)
		} else if why != drop.None {
			in.drops.Lose(&in.Stray, &capture.Packet{At: in.moment.At, Outer: capture.Whole(in.outer()), Reason: why})
		}
	}
	in.end = nil
}

// fromAnywhere handles a packet whose source is the remote address of no peer. An
// automatic tunnel at its destination may accept it. If none accepts it, the drop reason
// of the first one counts.
func (in *Inbound) fromAnywhere(t *Table, pkt []byte) {
	var first *End
	var why drop.Reason
	for _, e := range t.toAny(header.Dest(pkt)) {
		wire := e.Wire()
		if !e.takes(pkt) || in.At.IsValid() && wire.Outer().Local != in.At {
			continue
		}
		in.end = e
		inner, r := e.decapsulate(wire, pkt)
		if r == drop.None || (r == drop.Fragment || r == drop.UnknownProtocol) && inner != nil {
			in.handle(e, wire, pkt, inner, r)
			return
		}
		if first == nil {
			first, why = e, r
		}
	}
	if first == nil {
		in.drops.Lose(&in.Stray, &capture.Packet{At: in.moment.At, Outer: capture.Whole(in.outer()), Reason: drop.ForeignSource})
		return
	}
	if first.Path.Peer.returned(pkt) {
		in.show(first.Path.Tunnel, nil, noteProbed)
		return
	}
	in.lose(in.sink(first.Path.Tunnel), first.Path, nil, why, nil)
}

// handle does what the verdict on a packet says: pkt is the packet as it arrived, and inner
// and r are what decapsulate has returned for it.
func (in *Inbound) handle(e *End, wire *Wire, pkt, inner []byte, r drop.Reason) {
	s, segment := in.sink(e.Path.Tunnel), in.segment(wire, pkt)
	v := e.decide(verdictNone, wire, inner, r)
	for {
		switch v {
		case verdictDeliver:
			in.deliver(s, e.Path, wire, inner, segment)
			return
		case verdictFragment:
			segment = transport.Single
			if inner, r = in.reassemble(s, e, wire, inner); inner == nil && r == drop.None {
				return
			}
		case verdictPiece:
			segment = transport.Single
			if inner, r = in.join(s, e, wire, inner); inner == nil && r == drop.None {
				return
			}
		case verdictMessage:
			if !in.control(s, e, wire, pkt, inner) {
				in.refuse(s, e, pkt, nil, r)
			}
			return
		case verdictProblem:
			in.reportProblem(s, e, inner)
			in.refuse(s, e, pkt, inner, r)
			return
		case verdictKeepalive:
			in.sendBack(s, e, inner, wire.Stack.Keepalive(inner, r == drop.OwnSource))
			return
		case verdictDrop:
			in.refuse(s, e, pkt, inner, r)
			return
		case verdictProbe:
			if in.answersBetween(s, e, wire, inner) {
				return
			}
		case verdictOurs:
			if in.take(s, e, wire, inner) {
				return
			}
		case verdictControl:
			if in.control(s, e, wire, pkt, inner) {
				return
			}
		}
		v = e.decide(v, wire, inner, r)
	}
}

// deliver passes an inner packet to the interface, with the rest of its batch.
func (in *Inbound) deliver(s *sink, p *Path, wire *Wire, inner []byte, segment int) {
	if segment == transport.Unknown {
		in.segments.Wake()
	}
	wire.Clamp.apply(inner)
	in.Restore()
	if s.gather.Len() == gatherSize {
		s.flush(in.seen)
	}
	if r := s.gather.AddMerged(inner, segment); r != drop.None {
		in.lose(s, p, inner, r, nil)
		return
	}
	if !s.touched {
		s.touched = true
		in.touched = append(in.touched, s)
	}
	if in.seen != nil {
		s.keepFor(in, inner)
	}
	s.add(p, inner)
}

// refuse drops a packet, unless it is a probe of ours that came back. Inner is nil if it is
// not known.
func (in *Inbound) refuse(s *sink, e *End, pkt, inner []byte, r drop.Reason) {
	if e.Path.Peer.returned(pkt) || e.keepaliveBack(pkt) {
		in.show(s.t, inner, noteProbed)
	} else {
		in.lose(s, e.Path, inner, r, nil)
	}
}

// add adds a packet to the counts of its peer.
func (s *sink) add(p *Path, inner []byte) {
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
		p.Received(packets, bytes)
	}
}

// flush writes the collected packets to the tunnel's device.
func (s *sink) flush(seen *capture.Taps) {
	n := s.gather.Len()
	s.count()
	refused := tun.Refused{Packets: n, Bytes: s.all}
	if dev := s.t.Device.Load(); dev == nil {
		s.gather.Discard()
		s.held = 0
		s.drops.CountN(&s.t.In, drop.InterfaceDown, n, nil, nil)
		s.showKept(seen, nil, true, drop.InterfaceDown, nil)
	} else if refused = s.gather.Write(dev.Queues()[s.queue]); refused.Packets > 0 {
		s.held = 0
		s.drops.CountN(&s.t.In, writeReason(refused.Err), refused.Packets, nil, refused.Err)
	}
	s.showKept(seen, refused.Which, false, writeReason(refused.Err), refused.Err)
	if refused.Packets > 0 { // their peers are not known; this keeps the tunnel's total right
		s.t.In.Carried(-refused.Packets, -refused.Bytes)
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
