package datapath

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// index finds entries by the pair of their addresses. One goroutine at a time may change it;
// any number may read it meanwhile, without a lock: a bucket is a list to whose end or
// beginning an entry is linked when it is complete, and a removed entry still leads its
// readers on. The number of buckets never changes.
type index struct {
	buckets []atomic.Pointer[End]
	shift   int // a hash has this many bits too many
	n       int // entries
}

// newIndex returns an index for about n entries.
func newIndex(n int) index {
	size := bits.Len(uint(2 * n)) // of the number of buckets, as a power of two
	return index{buckets: make([]atomic.Pointer[End], 1<<size), shift: 64 - size}
}

// fits reports whether the buckets are enough for n more entries.
func (x *index) fits(n int) bool { return x.n+n <= 4*len(x.buckets) }

// address is what an entry is found by: the peer's address and ours, in the order of a
// packet. Zone is that of our link-local address, or 0.
type address struct {
	pair [4]uint64 // IPv4: only the first word
	zone uint32
}

// pair4 returns the address of a packet with an IPv4 header.
func pair4(b []byte) address { return address{pair: [4]uint64{binary.BigEndian.Uint64(b)}} }

// pair6 returns the address of a packet whose two IPv6 addresses b begins with.
func pair6(b []byte, zone uint32) address {
	_ = b[31]
	return address{[4]uint64{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])}, zone}
}

// bucket returns the list in which entries with an address are. The addresses come from
// the configuration, so that nobody can make the lists long.
func (x *index) bucket(a *address) *atomic.Pointer[End] {
	const odd = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	h := a.pair[0] * odd
	if a.pair[3] != 0 {
		h = (bits.RotateLeft64(h, 32) ^ a.pair[1]) * odd
		h = (bits.RotateLeft64(h, 32) ^ a.pair[2]) * odd
		h = (bits.RotateLeft64(h, 32) ^ a.pair[3]) * odd
	}
	return &x.buckets[h>>x.shift]
}

// add adds an entry: in front of the others or, if it is for a former address, behind them.
func (x *index) add(e *End) {
	x.n++
	at := x.bucket(&e.at)
	if e.former {
		for n := at.Load(); n != nil; n = at.Load() {
			at = &n.next
		}
	} else {
		e.next.Store(at.Load())
	}
	at.Store(e)
}

// remove removes an entry, if it is there.
func (x *index) remove(e *End) {
	at := x.bucket(&e.at)
	for n := at.Load(); n != nil; n = at.Load() {
		if n == e {
			at.Store(e.next.Load())
			x.n--
			return
		}
		at = &n.next
	}
}

// find returns the first entry with an address for which is returns true.
func (x *index) find(a address, is func(*End) bool) *End {
	for e := x.bucket(&a).Load(); e != nil; e = e.next.Load() {
		if e.at == a && is(e) {
			return e
		}
	}
	return nil
}

// match4 returns the entry that matches a packet over IPv4, among those with its addresses.
// Payload is what follows the delivery header. A packet that matches no framing, such as
// GRE with an unknown key, goes to the first entry of its protocol, which drops it; then ok is
// false.
func (x *index) match4(pkt []byte, protocol byte, payload []byte) (first *End, ok bool) {
	a := pair4(pkt[12:])
	for e := x.bucket(&a).Load(); e != nil; e = e.next.Load() {
		if e.at.pair[0] != a.pair[0] || e.protocol != protocol {
			continue
		}
		if e.framing == nil || e.framing.Matches(payload) {
			return e, true
		}
		if first == nil {
			first = e
		}
	}
	return first, false
}

// match6 is match4 for a packet over IPv6.
func (x *index) match6(a address, protocol byte, payload []byte) (first *End, ok bool) {
	for e := x.bucket(&a).Load(); e != nil; e = e.next.Load() {
		if e.protocol != protocol || e.at != a {
			continue
		}
		if e.framing == nil || e.framing.Matches(payload) {
			return e, true
		}
		if first == nil {
			first = e
		}
	}
	return first, false
}
