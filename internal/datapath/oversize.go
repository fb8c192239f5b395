package datapath

import (
	"bytes"
	"errors"
	"net"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/icmp"
	"sixfour/internal/capture"
	"sixfour/transport"
)

// refuse is the slow path for inner packets that cannot be sent as they are. Head is the
// beginning of the packet, body the rest. A packet that may be fragmented is sent in
// fragments, and one up to Tunnel.Reserve bytes in two pieces. Any other is counted as dropped, and the sender gets an ICMP error if there is
// one for the reason.
func (o *Outbound) refuse(wire *Wire, r drop.Reason, head, body []byte) {
	if r == drop.TooBig && wire.Stack.InPieces(head, len(head)+len(body)) {
		for _, unresolved := range o.pieces(wire, head, body) {
			o.refuse(wire, drop.Unresolved, unresolved, nil)
		}
		return
	}
	if r == drop.TooBig && o.cut(wire, head, body) {
		return
	}
	if r == drop.Unresolved {
		switch r = o.awaits(wire, head, body); r {
		case drop.None:
			return
		case drop.Unresolved:
		default: // another reason, now that the neighbour is resolved
			o.refuse(wire, r, head, body)
			return
		}
	}
	o.drops.Lose(&wire.Path.Out, &capture.Packet{Inner: capture.Bytes{Head: head, Body: body}, Reason: r, Path: wire.Path.number()})
	switch r {
	case drop.TooBig:
		o.t.Reply.TooBig(int(wire.Stack.LimitTo(head)), head, body)
	case drop.EncapLimit:
		o.t.Reply.LimitReached(head)
	case drop.NoPeer, drop.Unresolved:
		o.t.Reply.NoWay(icmp.Unreachable, head)
	case drop.Martian, drop.Spoof:
		o.t.Reply.NoWay(icmp.Prohibited, head)
	case drop.Loop:
		o.t.Reply.NoRoute(head)
	}
}

// awaits queues a packet until its neighbour is resolved, or sends it if the neighbour has
// been resolved meanwhile. It returns a drop reason if neither was possible.
func (o *Outbound) awaits(wire *Wire, head, body []byte) drop.Reason {
	a := o.t.agent.Load()
	if a == nil {
		return drop.Unresolved
	}
	whole := append(append(o.spare(1)[:encap.Headroom], head...), body...)
	o.send() // keep the order of packets
	held, known := a.Hold(whole[encap.Headroom:])
	if held {
		return drop.None
	}
	if !known {
		return drop.Unresolved
	}
	pkt, r := wire.Stack.EncapsulateSegment(whole, encap.Headroom, nil)
	if r != drop.None {
		return r
	}
	o.push(wire, transport.Packet{Head: pkt}, len(head)+len(body))
	o.send() // before the buffer is used again
	return drop.None
}

// pieces sends an inner packet in fragments. It returns those inner fragments whose outer
// address is not known.
func (o *Outbound) pieces(wire *Wire, head, body []byte) (unresolved [][]byte) {
	wire.SentLarge(1)
	o.send() // keep the order of packets
	o.moment = o.t.Captures.Now()
	defer o.moment.End()
	whole := append(append(o.spare(0)[:encap.Headroom], head...), body...)
	lose := func(r drop.Reason, err error) {
		o.drops.Lose(&wire.Path.Out, &capture.Packet{At: o.moment.At, Inner: capture.Bytes{Head: head, Body: body}, Fragments: o.sent, Reason: r, Err: err, Path: wire.Path.number()})
		o.sent = nil
	}
	for pkt, r := range wire.Stack.EncapsulatePieces(whole, encap.Headroom, o.spare(1)) {
		if r == drop.Unresolved && pkt != nil {
			unresolved = append(unresolved, bytes.Clone(pkt))
			continue
		}
		if r != drop.None {
			lose(r, nil)
			return unresolved
		}
		if err := o.sendOne(wire, pkt); err != nil {
			lose(SendReason(err), err)
			return unresolved
		}
	}
	if len(unresolved) == 0 { // otherwise each fragment counts
		o.showSent(wire.Path, whole[encap.Headroom:])
		wire.Path.Sent(1, len(head)+len(body))
	}
	return unresolved
}

// oversize is the slow path for outer packets that are larger than the path's MTU and may
// be fragmented: the path does not carry the 1280 bytes that IPv6 needs (RFC 4213 section
// 3.2.2), or the MTU is static. Size is that of the inner packet.
func (o *Outbound) oversize(wire *Wire, pkt transport.Packet, size int) {
	o.send()
	wire.sum(&pkt)
	o.moment = o.t.Captures.Now()
	defer o.moment.End()
	if err := o.sendOne(wire, append(append(o.spare(0)[:0], pkt.Head...), pkt.Body...)); err != nil {
		o.drops.Lose(&wire.Path.Out, &capture.Packet{At: o.moment.At, Outer: capture.Bytes(pkt), Inner: innerOf(pkt, size), Reason: SendReason(err), Err: err, Path: wire.Path.number()})
		o.sent = nil
		return
	}
	if o.sent != nil {
		o.showSent(wire.Path, flat(innerOf(pkt, size)))
	}
	wire.Path.Sent(1, size)
}

// sendOne sends an outer packet, in fragments if necessary: a raw socket for packets with
// complete headers does not fragment. Like a batch, it waits for room in the socket.
func (o *Outbound) sendOne(wire *Wire, pkt []byte) error {
	for f := range wire.Stack.Cut(pkt, wire.MTU, o.spare(2)) {
		o.one[0] = transport.Packet{Head: f}
		_, err := wire.Senders[o.index].Send(o.one[:])
		if errors.Is(err, net.ErrClosed) { // the path was replaced
			if now := wire.Path.Wire.Load(); now != nil {
				_, err = now.Senders[o.index].Send(o.one[:])
			}
		}
		if err != nil {
			return err
		}
		o.noteSent(f)
	}
	return nil
}

// spare returns buffer i for a packet with its Headroom.
func (o *Outbound) spare(i int) []byte {
	if o.scratch[i] == nil {
		o.scratch[i] = make([]byte, encap.Headroom+transport.MaxPacket)
	}
	return o.scratch[i]
}
