package seal

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Joiner puts the pieces of packets together. It keeps a limited number of pieces: a new one takes
// the place of the oldest. The zero value is ready to use. Any goroutine may use it.
type Joiner struct {
	mu   sync.Mutex
	held [maxHeld]held
	next int // the oldest entry
}

const (
	// maxHeld is how many packets may wait for their other piece. The two pieces of a packet follow
	// each other on the way.
	maxHeld = 64
	// Timeout is how long a piece waits for the other one.
	Timeout = 60 * time.Second
	// maxWhole is the largest packet that pieces of two can be: more memory is not given to one.
	maxWhole = 2 * 9216
)

// held is a piece that waits for the other one; the buffer is empty if there is none.
type held struct {
	id  uint32
	at  time.Time
	pkt []byte
}

// Window checks the identifications of the pieces from one sender, which it increments, against
// those of the last pieces: who does not see them cannot easily guess one. It is forgotten a while
// after the last piece, so that a sender may start again. The zero value is ready to use.
type Window struct {
	last  uint32
	until time.Time
}

// The distance of an identification from the last one, and how long the last one counts.
const (
	windowSize = 1 << 16
	windowTime = 5 * time.Second
)

// admit reports whether an identification may follow the last ones.
func (w *Window) admit(id uint32, now time.Time) bool {
	if now.Before(w.until) && id-w.last+windowSize > 2*windowSize {
		return false
	}
	if !now.Before(w.until) || int32(id-w.last) > 0 {
		w.last = id
	}
	w.until = now.Add(windowTime)
	return true
}

// Add takes a piece, for which IsPiece is true, from the sender of a window, and returns the packet
// if it is complete. Otherwise the packet is nil, and the reason is drop.None if the piece waits for
// the other one. The packet is a new one; its IP header is the piece's, with the length and the
// protocol of the whole. Other is the reason for a piece that the new one has replaced because there
// was no room, or drop.None.
func (j *Joiner) Add(pkt []byte, w *Window, now time.Time) (whole []byte, r, other drop.Reason) {
	head := headOf(pkt)
	h, ok := Parse(pkt[head:])
	part := len(pkt) - head - HeaderLen
	switch {
	case !ok, part == 0, h.More && (h.Offset != 0 || part%8 != 0), head+h.Offset+part > maxWhole:
		return nil, drop.Fragment, drop.None
	case !h.More && h.Offset == 0: // a packet in one piece
		return join(pkt, h.Next, pkt[head+HeaderLen:], nil), drop.None, drop.None
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !w.admit(h.ID, now) {
		return nil, drop.Sequence, drop.None
	}
	for i := range j.held {
		o := &j.held[i]
		if o.id != h.ID || len(o.pkt) == 0 || !samePacket(o.pkt, pkt) {
			continue
		}
		before, _ := Parse(o.pkt[head:])
		if now.Sub(o.at) > Timeout || before.More == h.More { // too old, or sent twice
			o.keep(h.ID, pkt, now)
			return nil, drop.None, drop.None
		}
		first, second := o.pkt, pkt
		if h.More {
			first, second = pkt, o.pkt
		}
		o.pkt = o.pkt[:0]
		last, _ := Parse(second[head:])
		if last.Offset != len(first)-head-HeaderLen {
			return nil, drop.Fragment, drop.None
		}
		whole = join(first, h.Next, first[head+HeaderLen:], second[head+HeaderLen:])
		if isCE(second) { // RFC 3168 section 5.3
			markCE(whole)
		}
		return whole, drop.None, drop.None
	}
	o := &j.held[j.next]
	if len(o.pkt) > 0 {
		other = drop.FragmentLimit
		if now.Sub(o.at) > Timeout {
			other = drop.FragmentTimeout
		}
	}
	o.keep(h.ID, pkt, now)
	j.next = (j.next + 1) % maxHeld
	return nil, drop.None, other
}

// keep stores a copy of a piece.
func (o *held) keep(id uint32, pkt []byte, now time.Time) {
	o.id, o.at, o.pkt = id, now, append(o.pkt[:0], pkt...)
}

// samePacket reports whether two pieces are of one packet, if their identifications are the same.
func samePacket(a, b []byte) bool {
	if header.Version(a) != header.Version(b) || headOf(a) != headOf(b) || a[headOf(a)] != b[headOf(b)] {
		return false
	}
	if header.Version(a) == 6 {
		return bytes.Equal(a[8:header.IPv6Len], b[8:header.IPv6Len])
	}
	return bytes.Equal(a[12:header.IPv4Len], b[12:header.IPv4Len])
}

// join returns a packet with the IP header of a piece.
func join(piece []byte, next byte, first, second []byte) []byte {
	head := headOf(piece)
	whole := make([]byte, 0, head+len(first)+len(second))
	whole = append(append(append(whole, piece[:head]...), first...), second...)
	if header.Version(piece) == 6 {
		whole[6] = next
		binary.BigEndian.PutUint16(whole[4:], uint16(len(whole)-header.IPv6Len))
	} else {
		whole[9] = next
		binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
		header.IPv4(whole[:head]).SetChecksum()
	}
	return whole
}

// isCE and markCE are for the congestion mark in an IP header.
func isCE(pkt []byte) bool {
	if header.Version(pkt) == 6 {
		return header.IPv6(pkt).TrafficClass()&header.ECNMask == header.CE
	}
	return header.IPv4(pkt).TOS()&header.ECNMask == header.CE
}

func markCE(pkt []byte) {
	if header.Version(pkt) == 6 {
		header.IPv6(pkt).SetECN(header.CE)
	} else {
		header.IPv4(pkt).SetECN(header.CE)
	}
}
