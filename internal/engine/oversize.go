package engine

import (
	"errors"
	"net"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/transport"
)

// refuse is the door for inner packets that cannot go as they are. Head is the
// packet's beginning, body the rest. Those that may be cut are carried in pieces;
// the others are counted, and their sender is told where there is something to
// tell.
func (o *outbound) refuse(r drop.Reason, head, body []byte) {
	if r == drop.TooBig && o.path.stack.InPieces(head, len(head)+len(body)) {
		o.pieces(head, body)
		return
	}
	o.drops.count(r, head)
	switch r {
	case drop.TooBig:
		o.t.reply.tooBig(int(o.path.stack.Limit(header.Version(head))), head, body)
	case drop.EncapLimit:
		o.t.reply.limitReached(head)
	}
}

// pieces carries an inner packet in fragments of a layer's IPv6 packet.
func (o *outbound) pieces(head, body []byte) {
	o.large++
	o.send() // what came before it goes before it
	whole := append(append(o.spare(0)[:encap.Headroom], head...), body...)
	for pkt, r := range o.path.stack.EncapsulatePieces(whole, encap.Headroom, o.spare(1)) {
		if r != drop.None {
			o.drops.count(r, head)
			return
		}
		if err := o.sendOne(pkt); err != nil {
			o.drops.countN(sendReason(err), 1, head, err)
			return
		}
	}
	o.t.out.carried(1, len(head)+len(body))
}

// oversize is the door for outer packets larger than the path's MTU that have DF
// clear: over a path that does not carry the 1280 bytes that IPv6 needs (RFC 4213
// section 3.2.2), or because the MTU is static. Size is that of the inner packet.
func (o *outbound) oversize(pkt transport.Packet, size int) {
	o.send()
	if err := o.sendOne(append(append(o.spare(0)[:0], pkt.Head...), pkt.Body...)); err != nil {
		o.drops.countN(sendReason(err), 1, pkt.Head, err)
		return
	}
	o.t.out.carried(1, size)
}

// sendOne sends an outer packet, in fragments if it must be: a raw socket that
// writes its own headers leaves that to us.
func (o *outbound) sendOne(pkt []byte) error {
	for f := range fragment.IPv4(pkt, int(o.path.mtu), o.spare(2), 0) {
		err := o.path.senders[o.index].SendOne(f)
		if errors.Is(err, net.ErrClosed) { // the path was replaced
			if p := o.t.path.Load(); p != nil {
				err = p.senders[o.index].SendOne(f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spare is a buffer for a packet with its Headroom.
func (o *outbound) spare(i int) []byte {
	if o.scratch[i] == nil {
		o.scratch[i] = make([]byte, encap.Headroom+transport.MaxPacket)
	}
	return o.scratch[i]
}
