package capture

import (
	"context"
	"fmt"
	"time"

	"sixfour/encap/drop"
	"sixfour/internal/pcapng"
	"sixfour/internal/version"
)

// writer writes what a tap has collected as pcapng.
type writer struct {
	t     *Tap
	out   Sink
	buf   []byte
	inner int // number of the interface of inner packets; -1: none
	outer int

	packets    uint64 // packets written, inner and outer counted as one
	written    [2]uint64
	lost       uint64 // total
	unreported uint64 // lost packets not yet reported to the reader
	last       uint64 // ID of the last packet that the filter matched
}

// flushAt is the amount written at a time, in bytes.
const flushAt = 64 << 10

// Stream writes pcapng to a sink until ctx ends, the requested number of packets is
// written, or the capture ends; it then returns the cause. The output is complete unless
// the sink failed. Stream may be called once.
func (t *Tap) Stream(ctx context.Context, out Sink) error {
	w := &writer{t: t, out: out, inner: -1, outer: -1}
	w.begin()
	if err := w.flush(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { t.End(ctx.Err()) })
	defer stop()
	defer t.End(nil) // nothing is read any more
	var b batch
	var left bool
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		if left {
			again.Reset(recheckAfter)
		}
		select {
		case <-t.wake:
		case <-again.C:
		}
		var ended bool
		var cause error
		b, left, ended, cause = t.take(b)
		done, err := w.batch(&b)
		if err != nil {
			return err
		}
		if ended || done {
			w.statistics(cause)
			if err := w.flush(); err != nil {
				return err
			}
			return cause
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
}

// begin writes the file header and the interfaces, which are named after the tunnel.
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

// batch writes a batch, and reports whether the requested number of packets is reached.
func (w *writer) batch(b *batch) (done bool, err error) {
	for i := range b.records {
		s := &b.records[i]
		inner, outer := b.packets(s)
		if !w.matches(s, inner, outer) {
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
	w.unreported += b.lost
	return w.t.request.Count > 0 && w.packets >= w.t.request.Count, nil
}

// matches reports whether the filter matches the inner or the outer packet. The fragments of
// a packet that matched are included.
func (w *writer) matches(s *record, inner, outer []byte) bool {
	if s.id == w.last {
		return true
	}
	in, out := s.direction == pcapng.Inbound, s.direction == pcapng.Outbound
	f := w.t.filter
	if f == nil {
		return true
	}
	return len(inner) > 0 && f.Match(inner, in, out, s.path) || len(outer) > 0 && f.Match(outer, in, out, s.path)
}

// packet writes a packet of one interface, unless the interface or the packet is missing.
func (w *writer) packet(s *record, at int, pkt []byte) {
	if at < 0 || len(pkt) == 0 {
		return
	}
	p := pcapng.Packet{
		Interface: at, Time: w.t.start.Add(s.at), Data: pkt, Length: len(pkt),
		Direction: s.direction, ID: s.id, Dropped: w.unreported,
	}
	if snap := w.t.request.Snap; snap > 0 {
		p.Data = pkt[:min(len(pkt), snap)]
	}
	w.unreported = 0
	w.written[at]++
	if text := s.comment(); text != "" {
		p.Comments = append(p.Comments, text)
	}
	if s.path > 0 {
		p.Comments = append(p.Comments, fmt.Sprintf("path %d", s.path))
	}
	w.buf = pcapng.AppendPacket(w.buf, &p)
}

// comment returns the comment of a packet: the reason of a drop, and notes.
func (s *record) comment() string {
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

// statistics writes the counts of each interface, with which a file ends.
func (w *writer) statistics(cause error) {
	for i := range w.written {
		if i != w.inner && i != w.outer {
			continue
		}
		s := pcapng.Statistics{Interface: i, Time: time.Now(), Start: w.t.start, Stop: time.Now(), Received: w.written[i], Lost: w.lost}
		if cause != nil {
			s.Comment = cause.Error()
		}
		w.buf = pcapng.AppendStatistics(w.buf, &s)
	}
	w.unreported = 0
}

func (w *writer) flush() error {
	if w.unreported > 0 { // no packet was written that could report the loss
		w.statistics(nil)
	}
	_, err := w.out.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return err
	}
	return w.out.Flush()
}
