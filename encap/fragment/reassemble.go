package fragment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Timeout is how long after the first fragment of a packet the others may arrive (RFC
// 8200 section 4.5).
const Timeout = 60 * time.Second

// Limits bound what a Reassembler holds. A field of 0 or less means the value of
// DefaultLimits.
type Limits struct {
	Bytes   int // in all, including a fixed cost for each packet and each fragment
	Packets int // incomplete packets
	Pieces  int // fragments of one packet
}

// DefaultLimits have room for fifteen packets of 65,535 bytes, or for some hundreds of
// the usual size in tunnels. 64 fragments are enough for 65,535 bytes over a path with
// an MTU of 1280.
var DefaultLimits = Limits{Bytes: 1 << 20, Packets: 1024, Pieces: 64}

// Reassembler reassembles IPv6 packets from their fragments (RFC 8200 section 4.5). It
// holds copies, within its limits: when there is no room, it gives up the oldest
// incomplete packet. It is not safe for concurrent use.
//
// It takes fragments of tunnel packets between known endpoints: the caller must check
// the addresses first. With one Reassembler for each peer, no peer can take another
// peer's room. It sends no ICMP errors; see OnTimeout.
type Reassembler struct {
	limits   Limits
	lost     func(drop.Reason, int)
	timedOut func(first func() []byte)

	packets        map[key]*partial
	oldest, newest *partial // in the order of their timeouts

	used      int // bytes held
	allocated int // bytes allocated, including the free lists
	blocks    *block
	partials  *partial // free list

	whole []byte // what Add returns
}

// key is what all fragments of a packet have in common.
type key struct {
	addrs [32]byte // source, destination
	id    uint32
}

// partial is an incomplete packet. If it is dead, all further fragments of the packet
// are refused.
type partial struct {
	key
	born         time.Time
	older, newer *partial // newer also links the free list

	first, last *block // the first block of the first and of the last fragment, by offset
	pieces      int    // fragments
	used        int    // bytes, of its blocks and of the entry itself
	held        int    // bytes of payload held
	total       int    // bytes of the complete payload; 0: not known
	head        int    // bytes in front of the payload, in the fragment of offset 0
	named       int    // offset in these bytes of the field that names the next header
	next        byte   // value of that field, from the fragment header of offset 0
	ecn         uint8  // a bit for each ECN codepoint in the fragments
	dead        drop.Reason
}

// partialCost is the memory of a partial with its map entry, in bytes, rounded up.
const partialCost = 320

// block is a part of a fragment. Its size is a size class of the Go allocator.
type block struct {
	next  *block // of the same fragment, or of the free list
	after *block // the next fragment, by offset
	off   uint16 // offset of the fragment's payload in that of the packet, in bytes
	size  uint16 // of the fragment's payload
	used  uint16 // bytes of data
	data  [blockData]byte
}

const (
	blockCost = 512
	blockData = blockCost - 22
)

// piece is the content of a fragment's headers.
type piece struct {
	key
	head    []byte // what precedes the fragment header
	named   int    // offset in head of the field that names the fragment header
	next    byte   // the next header after it
	off     int    // of the payload, in bytes
	more    bool
	ecn     byte
	payload []byte
}

func (p *piece) end() int { return p.off + len(p.payload) }

// NewReassembler returns a reassembler. Add returns why the fragment it gets is refused.
// lost is called when fragments that were held are given up, with the reason and their
// number, so that each fragment that is not carried is counted once. lost may be nil,
// and must not call the Reassembler.
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

// OnTimeout sets a function that is called for each packet that times out after its
// fragment of offset 0 arrived: its sender must get an ICMPv6 error (RFC 8200 section
// 4.5). first builds that fragment again, and may be called until f returns. f must not
// call the Reassembler.
func (r *Reassembler) OnTimeout(f func(first func() []byte)) { r.timedOut = f }

// firstFragment rebuilds the fragment of offset 0, which must be held.
func (t *partial) firstFragment() []byte {
	var pkt []byte
	for b := t.first; b != nil; b = b.next {
		pkt = append(pkt, b.data[:b.used]...)
	}
	h := [HeaderLen]byte{0: t.next, 3: moreFlag}
	binary.BigEndian.PutUint32(h[4:], t.id)
	return slices.Insert(pkt, t.head, h[:]...)
}

// Held returns how many bytes the incomplete packets take, at most Limits.Bytes. If it
// is 0, Expire need not be called.
func (r *Reassembler) Held() int { return r.used }

// Add takes a fragment, a packet from header.ParseIPv6, and copies what it needs. If the
// fragment completes its packet, Add returns the packet without fragment header, in
// memory that is valid until the next call. Otherwise whole is nil, and the reason is
// None if the fragment is held. A packet without fragment header is returned unchanged.
//
// Reasons: BadExtension for headers before the fragment header that do not fit into the
// packet; Fragment for a fragment that cannot be part of a packet, contradicts the
// length that other fragments gave, or is an exact duplicate: only this fragment is
// dropped (RFC 8200 section 4.5); FragmentOverlap, which drops the whole packet and all
// its later fragments until the timeout (RFC 5722); FragmentLimit; and Congestion if
// some fragments are marked and others are not ECN capable (RFC 3168 section 5.3), which
// drops the whole packet too.
func (r *Reassembler) Add(pkt header.IPv6, now time.Time) (whole []byte, reason drop.Reason) {
	r.expire(now)
	p, reason := parse(pkt)
	switch {
	case reason != drop.None:
		return nil, reason
	case p.head == nil:
		return pkt, drop.None
	case p.off == 0 && !p.more: // an atomic fragment is independent of other fragments (RFC 6946)
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
	if t.total == 0 || t.held < t.total { // no fragments overlap, so the sum of their lengths is enough
		return nil, drop.None
	}
	return r.complete(t)
}

// parse finds the fragment header, and refuses a fragment that is wrong by itself.
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

// tooLong reports whether the packet's length exceeds what the payload length field can
// hold.
func tooLong(head, payload int) bool { return head-header.IPv6Len+payload > 65535 }

// place finds the fragment after which p belongs; nil means before all others.
func (t *partial) place(p *piece) (before *block, reason drop.Reason) {
	at := t.first
	if int(t.last.off) < p.off { // fragments nearly always come in order
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
	case t.total != 0 && (!p.more || p.end() > t.total), // beyond the end, or a different end
		!p.more && at != nil: // an end before data that is held
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

// insert links a fragment after another one.
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

// stored returns the part of the headers that must be kept: the packet gets the headers
// of the fragment of offset 0.
func (p *piece) stored() []byte {
	if p.off == 0 {
		return p.head
	}
	return nil
}

func blocksFor(p *piece) int { return (len(p.stored()) + len(p.payload) + blockData - 1) / blockData }

// fill copies a fragment into blocks. The caller has reserved the room.
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

// complete builds the packet from its fragments.
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
		r.lost(reason, t.pieces-1) // Add returns the reason for the last one
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

// atomic removes the fragment header from a packet that is whole.
func (r *Reassembler) atomic(p *piece) []byte {
	r.whole = append(append(r.whole[:0], p.head...), p.payload...)
	r.seal(p.named, p.next)
	return r.whole
}

// seal updates the header fields of a reassembled packet.
func (r *Reassembler) seal(named int, next byte) {
	r.whole[named] = next
	binary.BigEndian.PutUint16(r.whole[4:], uint16(len(r.whole)-header.IPv6Len))
}

// Expire gives up the packets that have timed out and, when nothing is held, frees all
// memory. Add does the former too; call Expire about once a second for the time when no
// fragments come.
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
