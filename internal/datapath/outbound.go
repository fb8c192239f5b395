package datapath

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/recovery"
	"sixfour/internal/tally"
	"sixfour/transport"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// Outbound carries packets from one queue of a TUN device to the peers, on one goroutine.
type Outbound struct {
	t     *Tunnel
	queue *tun.Queue
	index int // of the queue, and of the sender
	drops tally.Drops
	sent  [][]byte // for captures: the outer packets of one inner packet

	*workspace
	large  int            // packets in the batch that not every path carries unfragmented
	moment capture.Moment // the time of sending, for captures
	done   int            // packets of the batch that were sent or dropped
}

// workspace holds the buffers of an outbound. A goroutine has one only while it carries
// packets: of a thousand tunnels few do so at the same time.
type workspace struct {
	arena []byte // packets as they are read, each behind Headroom
	heads []byte // headers of segments, each behind Headroom
	used  int    // bytes of heads in use
	batch []transport.Packet
	inner []int   // size of the inner packet, for each packet in the batch
	wires []*Wire // its path

	scratch [4][]byte           // for packets that are fragmented or cut
	one     [1]transport.Packet // one fragment
}

// arenaPackets is how many packets of the largest size can be read before they must be
// sent. Smaller packets need less room.
const arenaPackets = 4

var workspaces = sync.Pool{New: func() any {
	return &workspace{
		arena: make([]byte, arenaPackets*(encap.Headroom+tun.MaxRead)),
		heads: make([]byte, transport.BatchSize*2*encap.Headroom),
		batch: make([]transport.Packet, 0, transport.BatchSize),
		inner: make([]int, 0, transport.BatchSize),
		wires: make([]*Wire, 0, transport.BatchSize),
	}
}}

func NewOutbound(t *Tunnel, q *tun.Queue, index int) *Outbound {
	return &Outbound{t: t, queue: q, index: index, drops: t.Drops("out", pcapng.Outbound)}
}

// readPause is the pause after a failed read, so that a device or socket that only fails
// does not use up a processor.
const readPause = 10 * time.Millisecond

// napFrom is the smallest batch after which it pays to wait for more packets.
const napFrom = 8

// nap waits briefly for more packets after a batch of medium size: one that shows
// traffic, but no overload. It reports whether it waited.
func nap(batch int) bool {
	if batch < napFrom || batch >= transport.BatchSize/2 {
		return false
	}
	wait.Nap()
	return true
}

// Run carries packets until the device is closed or deleted.
func (o *Outbound) Run() {
	wait.Thread()
	for o.queue.Wait() == nil {
		o.workspace = workspaces.Get().(*workspace)
		var err error
		if recovery.Guard(o.drops.Log, "sending packets from the interface", func() { err = o.carry() }) {
			o.failed()
		} else {
			workspaces.Put(o.workspace)
		}
		o.workspace = nil
		if errors.Is(err, tun.ErrGone) {
			return
		}
		if err != nil {
			o.drops.CountN(&o.t.Out, drop.TunFailed, 1, nil, err)
			time.Sleep(readPause)
		}
	}
}

// carry carries packets until the queue is empty.
func (o *Outbound) carry() error {
	for {
		n, empty, err := o.read()
		o.send()
		if err != nil || !nap(n) && empty {
			return err
		}
	}
}

// read reads packets and encapsulates them while there is room. It returns their number,
// and whether the queue is empty.
func (o *Outbound) read() (packets int, empty bool, err error) {
	for at := 0; len(o.batch) < transport.BatchSize && at+encap.Headroom+tun.MaxRead <= len(o.arena); {
		// The virtio header lies where the outer headers will be written.
		start := at + encap.Headroom - tun.VirtioLen
		n, err := o.queue.Read(o.arena[start:])
		if errors.Is(err, tun.ErrEmpty) {
			return packets, true, nil
		} else if err != nil {
			return packets, false, err
		}
		packets += o.add(o.arena[at : start+n])
		at = start + n
	}
	return packets, false, nil
}

// add encapsulates the result of one read, b[Headroom-VirtioLen:], and returns the number
// of packets in it. Only ParseSuper can tell their lengths.
func (o *Outbound) add(b []byte) int {
	super, r := tun.ParseSuper(b[encap.Headroom-tun.VirtioLen:])
	inner, n := super.Packet(), super.Segments()
	if r != drop.None {
		o.drops.Lose(&o.t.Out, &capture.Packet{Inner: capture.Whole(b[min(encap.Headroom, len(b)):]), Reason: r})
		return 1
	}
	p := o.t.Peers.to(inner)
	if p == nil {
		o.drops.Lose(&o.t.Out, &capture.Packet{Inner: capture.Whole(inner), Reason: drop.NoPeer, Count: n})
		o.t.Reply.NoWay(icmp.Unreachable, inner)
		return n
	}
	wire := p.wireFor(inner)
	if wire == nil {
		o.drops.Lose(&p.First().Out, &capture.Packet{Inner: capture.Whole(inner), Reason: drop.NoRoute, Count: n})
		return n
	}
	if soft := &wire.Path.ICMP.soft; soft.Pending.Load() != 0 {
		o.t.Reply.Late(soft, inner)
	}
	if super.Headers() == 0 {
		wire.Clamp.apply(inner)
		if len(inner) > wire.Whole && o.cut(wire, inner, nil) {
			return 1
		}
		head, r := wire.encapsulate(b[:encap.Headroom+len(inner)], encap.Headroom, nil)
		if r != drop.None {
			o.refuse(wire, r, inner, nil)
			return 1
		}
		o.push(wire, transport.Packet{Head: head}, len(inner))
		return 1
	}
	for i := range n {
		size := encap.Headroom + super.Headers()
		if len(o.batch) == cap(o.batch) || o.used+size > len(o.heads) {
			o.send()
		}
		h := o.heads[o.used : o.used+size]
		o.used += size
		payload := super.Segment(i, h[encap.Headroom:])
		if super.Headers()+len(payload) > wire.Whole && o.cut(wire, h[encap.Headroom:], payload) {
			continue
		}
		head, r := wire.encapsulate(h, encap.Headroom, payload)
		if r != drop.None {
			o.refuse(wire, r, h[encap.Headroom:], payload)
			continue
		}
		o.push(wire, transport.Packet{Head: head, Body: payload}, super.Headers()+len(payload))
	}
	return n
}

// push appends an outer packet to the batch. The size is that of the inner packet.
func (o *Outbound) push(wire *Wire, pkt transport.Packet, size int) {
	if pkt.Len() > min(everyPath, int(wire.MTU)-1) {
		o.large++
	}
	if pkt.Len() > int(wire.MTU) {
		wire.SentLarge(1)
		o.oversize(wire, pkt, size)
		return
	}
	o.batch, o.inner, o.wires = append(o.batch, pkt), append(o.inner, size), append(o.wires, wire)
}

// everyPath is the size, in bytes, of the largest outer packet that every path carries,
// whole or in fragments: one with an inner packet of IPv6's minimum MTU. A larger path MTU
// would not help packets up to this size.
const everyPath = int(encap.MinTunnelMTU6) + header.IPv4Len

// send sends the batch. If the kernel refuses a packet, only that packet is lost; if a
// path is replaced meanwhile, the rest of its packets use the new path.
func (o *Outbound) send() {
	seen := o.t.seen()
	if len(o.batch) > 0 && seen != nil {
		o.moment = o.t.Captures.Now()
		defer o.moment.End()
	}
	for o.done = 0; o.done < len(o.batch); {
		done := o.done
		s := o.wires[done].Senders[o.index]
		run := 1 // packets that leave through the same sender
		for done+run < len(o.batch) && (o.wires[done+run] == o.wires[done] || o.wires[done+run].Senders[o.index] == s) {
			run++
		}
		n, err := s.Send(o.batch[done : done+run])
		o.done += n
		o.carried(done, n)
		if seen != nil {
			o.show(seen, done, n)
		}
		done = o.done
		if errors.Is(err, net.ErrClosed) {
			if w := o.wires[done].Path.Wire.Load(); w == nil || w == o.wires[done] {
				o.lose(done, drop.NoRoute, nil)
				o.done++
			} else {
				o.wires[done].sum(&o.batch[done])
				o.wires[done] = w
			}
		} else if err != nil {
			o.reportTooLong(o.wires[done], o.batch[done].Head, err)
			o.wires[done].Path.Owner.SendFailed(err)
			o.lose(done, SendReason(err), err)
			o.done++
		}
	}
	if o.large > 0 {
		o.sampleLarge()
		o.reportLarge()
		o.large = 0
	}
	clear(o.wires) // a pooled workspace must not keep paths in memory
	o.batch, o.inner, o.wires = o.batch[:0], o.inner[:0], o.wires[:0]
	o.used, o.done = 0, 0
}

// reportTooLong reports to the control loop a destination of an automatic tunnel that is
// behind another device than the rest, with a smaller MTU. It never blocks.
func (o *Outbound) reportTooLong(w *Wire, outer []byte, err error) {
	if errors.Is(err, unix.EMSGSIZE) && w.Automatic() {
		w.Path.Owner.HopRefused(header.Dest(outer))
	}
}

// carried adds n packets of the batch, starting at index from, to their paths' counters.
func (o *Outbound) carried(from, n int) {
	for end := from + n; from < end; {
		p, packets, bytes := o.wires[from].Path, 0, 0
		for ; from < end && o.wires[from].Path == p; from++ {
			packets++
			bytes += o.inner[from]
		}
		p.Sent(packets, bytes)
	}
}

// reportLarge counts the packets of the batch that not every path carries.
func (o *Outbound) reportLarge() {
	for i := 0; i < len(o.batch); {
		wire, large := o.wires[i], uint64(0)
		for ; i < len(o.batch) && o.wires[i] == wire; i++ {
			if o.batch[i].Len() > min(everyPath, int(wire.MTU)-1) {
				large++
			}
		}
		wire.SentLarge(large)
	}
}

// SentLarge counts n packets that not every path carries, if their path's MTU matters.
func (w *Wire) SentLarge(n uint64) {
	if n > 0 && w.Stack.NeedsPathMTU() {
		w.Path.sentLarge(n)
	}
}

// SendReason returns the drop reason for an error from the kernel's send.
func SendReason(err error) drop.Reason {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return drop.TooBig
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETDOWN),
		errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EINVAL), errors.Is(err, net.ErrClosed):
		return drop.NoRoute
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return drop.Filtered
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return drop.NoBuffer
	}
	return drop.SendFailed
}
