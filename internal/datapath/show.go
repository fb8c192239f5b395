package datapath

import (
	"bytes"
	"slices"

	"sixfour/encap/drop"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/tally"
	"sixfour/transport"
)

// seen returns the running captures; nil: none.
func (t *Tunnel) seen() *capture.Taps {
	return t.Captures.Taps()
}

// Show passes a packet that belongs to no batch to the captures.
func (t *Tunnel) Show(p *capture.Packet) { t.seen().Show(t.Name, p) }

// NoteProbe is the note on captured probes.
const NoteProbe = "a probe from the daemon"

// Other notes on captured packets that their bytes do not explain.
const (
	noteHeld      = "a fragment: waiting for the others"
	noteWhole     = "the last missing fragment: the inner packet is complete now"
	noteOurs      = "for the daemon itself"
	noteAnswered  = "answered by the daemon itself"
	noteAnswer    = "an answer from the daemon itself"
	noteKeepalive = "a keepalive: the daemon returns the packet inside"
	noteProbed    = "an answer to a probe from the daemon"
	noteICMP      = "an ICMP error about a packet of the tunnel"
	noteMessage   = "a message by which the two ends find each other"
	noteNeighbour = "neighbour discovery of the daemon itself"
)

// Drops returns a drop counter for one direction of the tunnel.
func (t *Tunnel) Drops(name string, d pcapng.Direction) tally.Drops {
	return tally.Drops{Log: t.Log.Named(name), Captures: t.Captures, Tunnel: t.Name, Direction: d}
}

// innerOf returns the inner packet in an outer packet made by a stack: its last size bytes.
func innerOf(outer transport.Packet, size int) capture.Bytes {
	at := outer.Len() - size
	if at <= len(outer.Head) {
		return capture.Bytes{Head: outer.Head[at:], Body: outer.Body}
	}
	return capture.Bytes{Head: outer.Body[at-len(outer.Head):]}
}

// flat returns a packet as one slice.
func flat(b capture.Bytes) []byte {
	if len(b.Body) == 0 {
		return b.Head
	}
	return slices.Concat(b.Head, b.Body)
}

// keep copies a packet until the end of the batch, before decapsulation, which writes to
// it.
func (in *Inbound) keep(pkt []byte) []byte {
	at := len(in.kept)
	in.kept = append(in.kept, pkt...)
	return in.kept[at:len(in.kept):len(in.kept)]
}

// outer returns the current packet as it arrived. Without captures, decapsulation may have
// changed it.
func (in *Inbound) outer() []byte {
	if in.seen != nil {
		return in.pkt
	}
	in.PutHeaders()
	return in.Packet
}

// endBatch discards the copies of the batch.
func (in *Inbound) endBatch() {
	if in.kept != nil {
		in.kept = in.kept[:0]
		if in.seen == nil { // captures have ended: free the memory
			in.kept = nil
		}
	}
}

// number returns the number of the path on which the current packet has arrived, if it is one
// of several; else 0.
func (in *Inbound) number() int {
	if in.end == nil {
		return 0
	}
	return in.end.Path.number()
}

// number returns the number of the path among several to its peer; 0: it is the only one.
func (p *Path) number() int { return int(p.Number.Load()) }

// show shows the current packet, which was carried or handled by the daemon, and its inner
// packet.
func (in *Inbound) show(t *Tunnel, inner []byte, note string) {
	if in.seen != nil {
		in.seen.Show(t.Name, &capture.Packet{At: in.moment.At, Direction: pcapng.Inbound, Outer: capture.Whole(in.pkt), Inner: capture.Whole(inner), Note: note, Path: in.number()})
	}
}

// lose counts the current packet as dropped, with its inner packet, if known, and the
// reason.
func (in *Inbound) lose(s *sink, p *Path, inner []byte, r drop.Reason, err error) {
	s.drops.Lose(&p.In, &capture.Packet{At: in.moment.At, Outer: capture.Whole(in.outer()), Inner: capture.Whole(inner), Reason: r, Err: err, Path: in.number()})
}

// keepFor stores a packet until the device has accepted or refused it.
func (s *sink) keepFor(in *Inbound, inner []byte) {
	s.kept = append(s.kept, capture.Packet{At: in.moment.At, Direction: pcapng.Inbound, Outer: capture.Whole(in.pkt), Inner: capture.Whole(in.keep(inner)), Note: in.note, Path: in.number()})
}

// showKept shows the stored packets of a batch. The device has refused those with the
// given indexes, or all of them.
func (s *sink) showKept(seen *capture.Taps, refused []int16, all bool, why drop.Reason, err error) {
	if len(s.kept) == 0 {
		return
	}
	for i := range s.kept {
		p := &s.kept[i]
		if all || slices.Contains(refused, int16(i)) {
			p.Reason, p.Err = why, err
		}
		seen.Show(s.t.Name, p)
	}
	clear(s.kept)
	s.kept = s.kept[:0]
}

// lose counts packet i of the batch as dropped.
func (o *Outbound) lose(i int, r drop.Reason, err error) {
	o.wires[i].sum(&o.batch[i])
	o.drops.Lose(&o.wires[i].Path.Out, &capture.Packet{
		At: o.moment.At, Outer: capture.Bytes(o.batch[i]), Inner: innerOf(o.batch[i], o.inner[i]), Reason: r, Err: err,
		Path: o.wires[i].Path.number(),
	})
}

// show shows n packets of the batch, starting at from, which were sent.
func (o *Outbound) show(seen *capture.Taps, from, n int) {
	for i := from; i < from+n; i++ {
		o.wires[i].sum(&o.batch[i])
		seen.Show(o.t.Name, &capture.Packet{
			At: o.moment.At, Direction: pcapng.Outbound, Outer: capture.Bytes(o.batch[i]), Inner: innerOf(o.batch[i], o.inner[i]),
			Path: o.wires[i].Path.number(),
		})
	}
}

// noteSent stores an outer packet that belongs to no batch, for captures.
func (o *Outbound) noteSent(outer []byte) {
	if o.t.seen() != nil {
		o.sent = append(o.sent, bytes.Clone(outer))
	}
}

// showSent shows an inner packet and the outer packets that carried it on a path.
func (o *Outbound) showSent(path *Path, inner []byte) {
	if o.sent == nil {
		return
	}
	p := &capture.Packet{At: o.moment.At, Direction: pcapng.Outbound, Inner: capture.Whole(inner), Path: path.number()}
	if len(o.sent) == 1 {
		p.Outer = capture.Whole(o.sent[0])
	} else {
		p.Fragments = o.sent
	}
	o.t.Show(p)
	o.sent = nil
}
