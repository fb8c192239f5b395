package fragment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Timeout is how long after its first fragment the rest of a packet may come
// (RFC 8200 section 4.5).
const Timeout = 60 * time.Second

// Limits bound what a Reassembler holds. A field of 0 or less stands for that of
// DefaultLimits.
type Limits struct {
	Bytes   int // in all, a fixed cost for each packet and each fragment included
	Packets int // incomplete ones
	Pieces  int // fragments of one packet
}

// DefaultLimits have room for fifteen packets of 65,535 bytes, or for some
// hundreds of the size that tunnels usually have; 64 fragments are enough for
// 65,535 bytes over a path of 1280.
var DefaultLimits = Limits{Bytes: 1 << 20, Packets: 1024, Pieces: 64}

// Reassembler puts IPv6 packets together from their fragments (RFC 8200 section
// 4.5). It holds copies, within its limits: when there is no room, the oldest
// incomplete packet is given up. It is not safe for concurrent use.
//
// It takes fragments of tunnel packets between known endpoints: addresses are
// for the caller to check, first. With one for each peer, none can take another's
// room. It sends no ICMP errors, but see OnTimeout.
type Reassembler struct {
	limits   Limits
	lost     func(drop.Reason, int)
	timedOut func(first func() []byte)

	packets        map[key]*partial
	oldest, newest *partial // in the order in which their time runs out

	used      int // bytes, of all that is held
	allocated int // bytes, of the free lists too
	blocks    *block
	partials  *partial // the free ones

	whole []byte // what Add returns
}

// key is what all fragments of a packet have in common.
type key struct {
	addrs [32]byte // source, destination
	id    uint32
}

// partial is a packet of which something is still missing; or, if it is dead,
// one of which everything that may still come is refused.
type partial struct {
	key
	born         time.Time
	older, newer *partial // newer is also the link of the free list

	first, last *block // fragments by offset: the first block of each
	pieces      int    // fragments
	used        int    // bytes, of its blocks and its own
	held        int    // bytes of payload held
	total       int    // bytes of payload in all; 0: not known
	head        int    // bytes in front of the payload, in the fragment of offset 0
	named       int    // which of them is to name the next header
	next        byte   // that header, from the fragment header of offset 0
	ecn         uint8  // a bit for each ECN codepoint that was seen
	dead        drop.Reason
}

// partialCost is what a partial takes with its entry in the map, in bytes,
// rounded up.
const partialCost = 320

// block is a part of a fragment; its size is an allocator's size class.
type block struct {
	next  *block // of the same fragment, or of the free list
	after *block // the next fragment, by offset
	off   uint16 // of the fragment's payload in the packet's, in bytes
	size  uint16 // of the fragment's payload
	used  uint16 // bytes of data
	data  [blockData]byte
}

const (
	blockCost = 512
	blockData = blockCost - 22
)

// piece is what a fragment's headers say.
type piece struct {
	key
	head    []byte // what stands in front of the fragment header
	named   int    // the byte of head that names it
	next    byte   // the header behind it
	off     int    // of the payload, in bytes
	more    bool
	ecn     byte
	payload []byte
}

func (p *piece) end() int { return p.off + len(p.payload) }

// NewReassembler makes a reassembler. Add says of the fragment at hand why it is
// refused; lost is told how many of those that had been taken are given up, and
// why, so that each fragment that is not carried is counted once. It may be nil,
// and must not call back.
func NewReassembler(l Limits, lost func(r drop.Reason, fragments int)) *Reassembler {
	set := func(v *int, preset int) {
		if *v <= 0 {
			*v = preset
		}
	}
	set(&l.Bytes, DefaultLimits.Bytes)
	set(&l.Packets, DefaultLimits.Packets)
	set(&l.Pieces, DefaultLimits.Pieces)
	if lost == nil {
		lost = func(drop.Reason, int) {}
	}
	return &Reassembler{limits: l, lost: lost, packets: make(map[key]*partial)}
}

// OnTimeout has f called for each packet whose time is over though its fragment of
// offset 0 came: its sender is to be told (RFC 8200 section 4.5). First makes that
// fragment again, and may be called until f returns. F must not call back.
func (r *Reassembler) OnTimeout(f func(first func() []byte)) { r.timedOut = f }

// firstFragment is the fragment of offset 0, which is there.
func (t *partial) firstFragment() []byte {
	var pkt []byte
	for b := t.first; b != nil; b = b.next {
		pkt = append(pkt, b.data[:b.used]...)
	}
	h := [HeaderLen]byte{0: t.next, 3: moreFlag}
	binary.BigEndian.PutUint32(h[4:], t.id)
	return slices.Insert(pkt, t.head, h[:]...)
}

// Held is how many bytes the incomplete packets take, never more than
// Limits.Bytes. If it is 0, nothing waits for Expire.
func (r *Reassembler) Held() int { return r.used }

// Add takes a fragment, a packet from header.ParseIPv6, and copies what it needs.
// If the packet is complete with it, it is returned: without fragment header, in
// memory that is valid until the next call. Otherwise whole is nil, and the
// reason None if the fragment is held. A packet without fragment header is
// returned as it is.
//
// Reasons: BadExtension for headers in front of the fragment header that lead
// out of the packet; Fragment for a fragment that cannot be part of a packet, or
// contradicts the length that others have told, or is an exact duplicate, which
// costs itself alone (RFC 8200 section 4.5); FragmentOverlap, which costs the
// packet: what is held, and what comes until its time is over (RFC 5722);
// FragmentLimit; and Congestion, if some fragments are marked and others cannot
// be (RFC 3168 section 5.3), which costs the packet too.
func (r *Reassembler) Add(pkt header.IPv6, now time.Time) (whole []byte, reason drop.Reason) {
	r.expire(now)
	p, reason := parse(pkt)
	switch {
	case reason != drop.None:
		return nil, reason
	case p.head == nil:
		return pkt, drop.None
	case p.off == 0 && !p.more: // an atomic fragment has nothing to do with others (RFC 6946)
		return r.atomic(&p), drop.None
	}
	t := r.packets[p.key]
	var before *block
	if t != nil {
		if t.dead != drop.None {
			return nil, t.dead
		}
		before, reason = t.place(&p)
		if reason == drop.None && t.pieces == r.limits.Pieces {
			reason = drop.FragmentLimit
		}
	}
	cost := blocksFor(&p) * blockCost
	if reason == drop.None && !r.reserve(t, cost) {
		reason = drop.FragmentLimit
	}
	if reason != drop.None {
		if t != nil && reason != drop.Fragment {
			r.kill(t, reason)
		}
		return nil, reason
	}
	if t == nil {
		t = r.open(p.key, now)
	}
	t.insert(&p, before, r.fill(&p))
	t.used += cost
	if t.total == 0 || t.held < t.total { // nothing overlaps, so that sums tell
		return nil, drop.None
	}
	return r.complete(t)
}

// parse finds the fragment header, and refuses what is wrong with a fragment
// whatever the others are.
func parse(ip header.IPv6) (p piece, reason drop.Reason) {
	_, end, ok := split(ip)
	switch {
	case !ok:
		return p, drop.BadExtension
	case ip[end.named] != header.FragmentHdr:
		return p, drop.None
	case len(ip) < end.at+HeaderLen:
		return p, drop.BadExtension
	}
	h := ip[end.at:]
	field := binary.BigEndian.Uint16(h[2:])
	p = piece{
		key:  key{[32]byte(ip[8:40]), binary.BigEndian.Uint32(h[4:])},
		head: ip[:end.at], named: end.named, next: h[0],
		off: int(field & offsetMask), more: field&moreFlag != 0,
		ecn: ip.TrafficClass() & header.ECNMask, payload: h[HeaderLen:],
	}
	if len(p.payload) == 0 || p.more && len(p.payload)%8 != 0 || tooLong(len(p.head), p.end()) {
		return p, drop.Fragment
	}
	return p, drop.None
}

// tooLong reports whether the payload length field cannot say how long a packet
// is.
func tooLong(head, payload int) bool { return head-header.IPv6Len+payload > 65535 }

// place finds the fragment after which p belongs; nil: in front of all.
func (t *partial) place(p *piece) (before *block, reason drop.Reason) {
	at := t.first
	if int(t.last.off) < p.off { // nearly always they come in order
		before, at = t.last, nil
	}
	for at != nil && int(at.off) < p.off {
		before, at = at, at.after
	}
	switch {
	case at != nil && t.same(at, p):
		return nil, drop.Fragment
	case before != nil && int(before.off)+int(before.size) > p.off, at != nil && int(at.off) < p.end():
		return nil, drop.FragmentOverlap
	case t.total != 0 && (!p.more || p.end() > t.total), // beyond the end, or another end
		!p.more && at != nil: // an end in front of what is there
		return nil, drop.Fragment
	}
	return before, drop.None
}

// same reports whether p is a duplicate of the fragment at b.
func (t *partial) same(b *block, p *piece) bool {
	if int(b.off) != p.off || int(b.size) != len(p.payload) || p.more == (p.end() == t.total) {
		return false
	}
	skip, rest := 0, p.payload
	if p.off == 0 {
		skip = t.head
	}
	for ; b != nil; b = b.next {
		data := b.data[:b.used]
		n := min(skip, len(data))
		skip -= n
		data = data[n:]
		if !bytes.Equal(data, rest[:len(data)]) {
			return false
		}
		rest = rest[len(data):]
	}
	return true
}

// insert puts a fragment behind another.
func (t *partial) insert(p *piece, before, b *block) {
	if before == nil {
		b.after, t.first = t.first, b
	} else {
		b.after, before.after = before.after, b
	}
	if b.after == nil {
		t.last = b
	}
	t.pieces++
	t.held += len(p.payload)
	t.ecn |= 1 << p.ecn
	if !p.more {
		t.total = p.end()
	}
	if p.off == 0 {
		t.head, t.named, t.next = len(p.head), p.named, p.next
	}
}

// stored is what of the headers must be kept: those of offset 0 are the
// packet's.
func (p *piece) stored() []byte {
	if p.off == 0 {
		return p.head
	}
	return nil
}

func blocksFor(p *piece) int { return (len(p.stored()) + len(p.payload) + blockData - 1) / blockData }

// fill copies a fragment into blocks, for which there is room.
func (r *Reassembler) fill(p *piece) *block {
	var first *block
	to := &first
	var b *block
	for _, src := range [...][]byte{p.stored(), p.payload} {
		for len(src) > 0 {
			if b == nil || b.used == blockData {
				b = r.block()
				*to, to = b, &b.next
			}
			n := copy(b.data[b.used:], src)
			b.used += uint16(n)
			src = src[n:]
		}
	}
	first.off, first.size = uint16(p.off), uint16(len(p.payload))
	return first
}

// complete makes a packet of its fragments.
func (r *Reassembler) complete(t *partial) ([]byte, drop.Reason) {
	const mixed = 1<<header.CE | 1<<header.NotECT
	reason := drop.None
	switch {
	case tooLong(t.head, t.total):
		reason = drop.Fragment
	case t.ecn&mixed == mixed:
		reason = drop.Congestion
	}
	if reason != drop.None {
		r.lost(reason, t.pieces-1) // the last one is the caller's
		r.remove(t)
		return nil, reason
	}
	r.whole = slices.Grow(r.whole[:0], t.head+t.total)
	for p := t.first; p != nil; p = p.after {
		for b := p; b != nil; b = b.next {
			r.whole = append(r.whole, b.data[:b.used]...)
		}
	}
	r.seal(t.named, t.next)
	if t.ecn&(1<<header.CE) != 0 {
		header.IPv6(r.whole).SetECN(header.CE)
	}
	r.remove(t)
	return r.whole, drop.None
}

// atomic takes the fragment header out of a packet that is whole.
func (r *Reassembler) atomic(p *piece) []byte {
	r.whole = append(append(r.whole[:0], p.head...), p.payload...)
	r.seal(p.named, p.next)
	return r.whole
}

// seal writes what a packet's headers say once it is whole.
func (r *Reassembler) seal(named int, next byte) {
	r.whole[named] = next
	binary.BigEndian.PutUint16(r.whole[4:], uint16(len(r.whole)-header.IPv6Len))
}

// Expire gives up the packets whose time is over, and when nothing is held, all
// memory. Add does the former too; Expire is for when no fragment comes, once a
// second or so.
func (r *Reassembler) Expire(now time.Time) {
	r.expire(now)
	if r.oldest == nil && (r.allocated > 0 || r.whole != nil) {
		*r = Reassembler{limits: r.limits, lost: r.lost, timedOut: r.timedOut, packets: make(map[key]*partial)}
	}
}

func (r *Reassembler) expire(now time.Time) {
	for r.oldest != nil && now.Sub(r.oldest.born) >= Timeout {
		if n := r.oldest.pieces; n > 0 {
			r.lost(drop.FragmentTimeout, n)
		}
		if t := r.oldest; t.first != nil && t.first.off == 0 && r.timedOut != nil {
			r.timedOut(t.firstFragment)
		}
		r.remove(r.oldest)
	}
}
