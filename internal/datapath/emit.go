package datapath

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
)

// Own is a packet of our own: a probe, an answer, a control packet or an error message.
type Own struct {
	Buf   []byte       // the packet, behind encap.Headroom bytes
	Stack *encap.Stack // encapsulates it; nil: it is an outer packet already
	// Encapsulate, if not nil, makes an outer packet of the packet in buf[off:], as
	// Stack.Encapsulate would do.
	Encapsulate func(buf []byte, off int) ([]byte, drop.Reason)
	Pieces      []byte // room for a fragment of an inner IPv6 packet; nil: it is sent whole
	Scratch     []byte // room for a fragment of the outer packet; nil: it is sent whole

	// For captures.
	Inner   []byte    // the inner packet; nil: none
	Note    string    // what the bytes of the packet do not explain
	At      time.Time // the time of sending; zero: now
	answers request
}

// request is an inner packet that arrived and is answered. Captures show it before the
// answer.
type request struct {
	in    *Inbound // nil: there is none
	inner []byte
	note  string
}

// NotSent is why a packet of our own was not sent, or only a part of it.
type NotSent struct {
	Reason drop.Reason
	Outer  []byte // the outer packet, in the buffer of Own; nil: there is none
	Err    error  // of the kernel; nil: the packet could not be encapsulated
}

func (n *NotSent) Error() string {
	if n.Err == nil {
		return fmt.Sprintf("it cannot be encapsulated: %v", n.Reason)
	}
	return n.Err.Error()
}

func (n *NotSent) Unwrap() error { return n.Err }

// Emit sends a packet of our own: it fragments it as far as it may, encapsulates it, sends
// it and shows it to captures. All packets leave through it that the host does not send
// through the interface; the caller counts them. Emit returns nil if the packet was sent.
func (w *Wire) Emit(o *Own) *NotSent {
	t := w.Path.Tunnel
	if o.At.IsZero() {
		m := t.Captures.Now()
		defer m.End()
		o.At = m.At
	}
	shown := t.seen() != nil
	var outer [][]byte
	if o.Pieces == nil {
		pkt, n := w.emit(o, o.Buf)
		if n != nil {
			return n
		}
		if shown {
			outer = append(outer, pkt)
		}
	} else {
		for piece := range fragment.IPv6(o.Buf[encap.Headroom:], int(w.Stack.Limit(6)), rand.Uint32(), o.Pieces, encap.Headroom) {
			pkt, n := w.emit(o, o.Pieces[:encap.Headroom+len(piece)])
			if n != nil {
				return n
			}
			if shown {
				outer = append(outer, bytes.Clone(pkt))
			}
		}
	}
	if a := &o.answers; a.in != nil {
		a.in.show(t, a.inner, a.note)
	}
	if !shown {
		return nil
	}
	c := &capture.Packet{At: o.At, Direction: pcapng.Outbound, Inner: capture.Whole(o.Inner), Note: o.Note, Path: w.Path.number()}
	if len(outer) == 1 {
		c.Outer = capture.Whole(outer[0])
	} else {
		c.Fragments = outer
	}
	t.Show(c)
	return nil
}

// emit encapsulates and sends one packet, which is in buf behind encap.Headroom bytes. It
// returns the outer packet.
func (w *Wire) emit(o *Own, buf []byte) (outer []byte, n *NotSent) {
	outer = buf[encap.Headroom:]
	r := drop.None
	switch {
	case o.Encapsulate != nil:
		outer, r = o.Encapsulate(buf, encap.Headroom)
	case o.Stack != nil:
		outer, r = o.Stack.Encapsulate(buf, encap.Headroom)
	}
	if r != drop.None {
		return nil, &NotSent{Reason: r}
	}
	var err error
	if o.Scratch == nil || len(outer) <= int(w.MTU) {
		err = w.Senders[0].SendOne(outer)
	} else {
		err = w.sendPieces(outer, o.Scratch)
	}
	if err != nil {
		return nil, &NotSent{SendReason(err), outer, err}
	}
	return outer, nil
}

// sendPieces sends an outer packet that is larger than the path MTU, in fragments if it may
// be fragmented.
func (w *Wire) sendPieces(pkt, scratch []byte) error {
	for f := range w.Stack.Cut(pkt, w.MTU, scratch) {
		if err := w.Senders[0].SendOne(f); err != nil {
			return err
		}
	}
	return nil
}
