package capture

import (
	"context"
	"fmt"
	"time"

	"sixfour/encap/drop"
	"sixfour/internal/pcapng"
	"sixfour/internal/version"
)

// writer makes pcapng of what a tap has seen.
type writer struct {
	t     *Tap
	out   Sink
	buf   []byte
	inner int // number of the interface of inner packets; less than 0: there is none
	outer int

	packets uint64 // written, inner and outer counted as one
	written [2]uint64
	lost    uint64 // in all
	untold  uint64 // of these, the reader does not know yet
	last    uint64 // id of the packet that the filter chose last
}

// flushAt is how much is written at a time, in bytes.
const flushAt = 64 << 10

// Stream writes pcapng to a sink until ctx ends, the packets that were asked for are
// written, or the capture is ended, whose reason it returns then. What it has written
// is whole unless the sink failed. It may be called once.
func (t *Tap) Stream(ctx context.Context, out Sink) error {
	w := &writer{t: t, out: out, inner: -1, outer: -1}
	w.begin()
	if err := w.flush(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { t.End(ctx.Err()) })
	defer stop()
	defer t.End(nil) // nobody reads any more
	var b batch
	var left bool
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		if left {
			again.Reset(leftAgain)
		}
		select {
		case <-t.wake:
		case <-again.C:
		}
		var ended bool
		var why error
		b, left, ended, why = t.take(b)
		done, err := w.batch(&b)
		if err != nil {
			return err
		}
		if ended || done {
			w.statistics(why)
			if err := w.flush(); err != nil {
				return err
			}
			return why
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
}

// begin writes what a file begins with. What is in parts is named by the tunnel.
func (w *writer) begin() {
	r := &w.t.request
	w.buf = pcapng.AppendHeader(w.buf, "sixfourd "+version.String())
	link := uint16(pcapng.LinkRaw)
	if r.Sides == Both {
		link = pcapng.LinkRawDLT
	}
	number := 0
	for _, side := range []struct {
		sides      Sides
		name, what string
		number     *int
	}{
		{Inner, "inner", "what is carried", &w.inner},
		{Outer, "outer", "what is on the wire", &w.outer},
	} {
		if r.Sides != Both && r.Sides != side.sides {
			continue
		}
		*side.number = number
		number++
		w.buf = pcapng.AppendInterface(w.buf, pcapng.Interface{
			Name: r.Tunnel + " " + side.name, Description: "tunnel " + r.Tunnel + ": " + side.what,
			Filter: r.Filter, Link: link, Snap: uint32(r.Snap),
		})
	}
}

// batch writes a batch, and reports whether that is all that was asked for.
func (w *writer) batch(b *batch) (done bool, err error) {
	for i := range b.seen {
		s := &b.seen[i]
		inner, outer := b.of(s)
		if !w.chosen(s, inner, outer) {
			continue
		}
		if s.id != w.last {
			if w.t.request.Count > 0 && w.packets == w.t.request.Count {
				return true, nil
			}
			w.packets++
			w.last = s.id
		}
		w.packet(s, w.inner, inner)
		w.packet(s, w.outer, outer)
		if len(w.buf) > flushAt {
			if err := w.flush(); err != nil {
				return false, err
			}
		}
	}
	w.lost += b.lost
	w.untold += b.lost
	return w.t.request.Count > 0 && w.packets >= w.t.request.Count, nil
}

// chosen reports whether the filter chooses a packet. Of inner and outer it is enough
// that it chooses one; the fragments of a packet go with it.
func (w *writer) chosen(s *sight, inner, outer []byte) bool {
	if s.id == w.last {
		return true
	}
	in, out := s.direction == pcapng.Inbound, s.direction == pcapng.Outbound
	f := w.t.filter
	if f == nil {
		return true
	}
	return len(inner) > 0 && f.Match(inner, in, out) || len(outer) > 0 && f.Match(outer, in, out)
}

// packet writes one packet of an interface, if there are both.
func (w *writer) packet(s *sight, at int, pkt []byte) {
	if at < 0 || len(pkt) == 0 {
		return
	}
	p := pcapng.Packet{
		Interface: at, Time: w.t.begun.Add(s.at), Data: pkt, Length: len(pkt),
		Direction: s.direction, ID: s.id, Dropped: w.untold,
	}
	if snap := w.t.request.Snap; snap > 0 {
		p.Data = pkt[:min(len(pkt), snap)]
	}
	w.untold = 0
	w.written[at]++
	if text := s.comment(); text != "" {
		p.Comments = append(p.Comments, text)
	}
	w.buf = pcapng.AppendPacket(w.buf, &p)
}

// comment says what the bytes do not.
func (s *sight) comment() string {
	text := s.note
	if s.reason != drop.None {
		text = fmt.Sprintf("dropped: %v: %s", s.reason, s.reason.Means())
		if s.err != nil {
			text += fmt.Sprintf(" (%v)", s.err)
		}
		if s.note != "" {
			text += "; " + s.note
		}
	}
	if s.count > 1 {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("this is %d packets that the kernel handed over as one", s.count)
	}
	return text
}

// statistics writes how it was, with which a file ends.
func (w *writer) statistics(why error) {
	for i := range w.written {
		if i != w.inner && i != w.outer {
			continue
		}
		s := pcapng.Statistics{Interface: i, Time: time.Now(), Start: w.t.begun, Stop: time.Now(), Received: w.written[i], Lost: w.lost}
		if why != nil {
			s.Comment = why.Error()
		}
		w.buf = pcapng.AppendStatistics(w.buf, &s)
	}
	w.untold = 0
}

func (w *writer) flush() error {
	if w.untold > 0 { // nothing has been written since that could say so
		w.statistics(nil)
	}
	_, err := w.out.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return err
	}
	return w.out.Flush()
}
