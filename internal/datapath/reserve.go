package datapath

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/seal"
	"sixfour/internal/capture"
	"sixfour/transport"
)

// unfinished is what a tunnel knows of packets that are in several parts.
type unfinished struct {
	fragments reassembly
	// Reserve is the size in bytes of the largest packet that passes a path in two pieces, where
	// the path does not carry it whole; 0: none. The other end joins the pieces, as this end
	// does.
	Reserve int
	pieces  pieces
}

// pieces are the pieces of packets (package seal).
type pieces struct {
	last   atomic.Uint32 // identification of the last packet that was cut; its start is random
	joiner seal.Joiner
}

// cut sends a packet, which its path does not carry whole, in two pieces. It reports whether it
// did that, or dropped the packet for another reason.
func (o *Outbound) cut(wire *Wire, head, body []byte) bool {
	size := len(head) + len(body)
	if size > o.t.Reserve {
		return false
	}
	if wire.Stack.Sealed() { // the outer packet is cut
		in := wire.Stack.InPieces(head, size)
		if in {
			o.pieces(wire, head, body)
		}
		return in
	}
	limit, version := int(wire.Stack.LimitTo(head)), header.Version(head)
	n, ok := seal.First(head, size, min(limit, int(wire.MTU)-wire.Stack.Overhead(version), wire.Whole))
	if !ok { // the outer packets of larger pieces may be fragmented
		if n, ok = seal.First(head, size, limit); !ok {
			return false
		}
	}
	wire.SentLarge(1)
	whole := head
	if len(body) > 0 {
		whole = append(append(o.spare(3)[:0], head...), body...)
		defer o.send() // before the buffer is used again
	}
	o.t.pieces.last.CompareAndSwap(0, rand.Uint32())
	id, at := o.t.pieces.last.Add(1), size-seal.Payload(head, size)
	for i, part := range [2][]byte{whole[at : at+n], whole[at+n : size]} {
		room := encap.Headroom + at + seal.HeaderLen
		if len(o.batch) == cap(o.batch) || o.used+room > len(o.heads) {
			o.send()
		}
		h := o.heads[o.used : o.used+room]
		o.used += room
		seal.PutHead(h[encap.Headroom:], whole, seal.Header{Offset: i * n, More: i == 0, ID: id}, len(part))
		pkt, r := wire.encapsulate(h, encap.Headroom, part)
		if r != drop.None {
			o.drops.Lose(&wire.Path.Out, &capture.Packet{Inner: capture.Whole(whole), Reason: r, Path: wire.Path.number()})
			return true
		}
		o.push(wire, transport.Packet{Head: pkt, Body: part}, at+seal.HeaderLen+len(part))
	}
	return true
}

// isPiece reports whether an inner packet is a piece of one that the tunnel joins.
func (t *Tunnel) isPiece(inner []byte) bool { return t.Reserve > 0 && seal.IsPiece(inner) }

// join adds a piece, and returns the packet if it is complete. A nil packet with drop.None means
// that the piece waits for the other one.
func (in *Inbound) join(s *sink, e *End, wire *Wire, piece []byte) ([]byte, drop.Reason) {
	whole, r := in.addPiece(s, e, piece)
	if whole == nil {
		return nil, r
	}
	return whole, wire.Stack.Check(whole)
}

// unseal is join for one of the two outer packets of a stack that is Sealed. It returns the inner
// packet.
func (in *Inbound) unseal(s *sink, e *End, wire *Wire, outer []byte) ([]byte, drop.Reason) {
	whole, r := in.addPiece(s, e, outer)
	if whole == nil {
		return nil, r
	}
	inner, r := wire.Stack.DecapsulateJoined(whole)
	if r == drop.None {
		r = e.allows(inner)
	}
	return inner, r
}

// addPiece adds a piece to those of the tunnel.
func (in *Inbound) addPiece(s *sink, e *End, piece []byte) ([]byte, drop.Reason) {
	whole, r, other := s.t.pieces.joiner.Add(piece, &e.Path.Pieces, time.Now())
	if other != drop.None {
		s.t.In.Dropped(other, 1)
	}
	if whole != nil {
		in.note = noteWhole
	} else if r == drop.None {
		in.show(s.t, nil, noteHeld)
		e.Path.Received(1, 0) // its bytes count with the whole packet
	}
	return whole, r
}
