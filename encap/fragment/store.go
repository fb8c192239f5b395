package fragment

import (
	"time"

	"sixfour/encap/drop"
)

// reserve makes room for more bytes of t, or of a packet that is not stored yet (nil),
// by giving up the oldest other packets. It returns false if the bytes exceed the limit
// by themselves.
func (r *Reassembler) reserve(t *partial, bytes int) bool {
	own := bytes
	if t != nil {
		own += t.used
	} else {
		bytes += partialCost
		own = bytes
	}
	if own > r.limits.Bytes {
		return false
	}
	for r.used+bytes > r.limits.Bytes || t == nil && len(r.packets) >= r.limits.Packets {
		v := r.oldest
		if v == t {
			v = v.newer // the packet's own bytes fit, so there is another one
		}
		if v.pieces > 0 {
			r.lost(drop.FragmentLimit, v.pieces)
		}
		r.remove(v)
	}
	return true
}

// open creates the entry for a packet.
func (r *Reassembler) open(k key, now time.Time) *partial {
	t := r.partials
	if t != nil {
		r.partials = t.newer
	} else {
		r.allocate(partialCost)
		t = new(partial)
	}
	*t = partial{key: k, born: now, older: r.newest, used: partialCost}
	if r.newest != nil {
		r.newest.newer = t
	} else {
		r.oldest = t
	}
	r.newest = t
	r.packets[k] = t
	r.used += partialCost
	return t
}

// kill gives up what is held of a packet, and marks the entry so that later fragments
// are refused.
func (r *Reassembler) kill(t *partial, reason drop.Reason) {
	r.lost(reason, t.pieces)
	r.empty(t)
	t.dead = reason
}

// remove deletes the entry of a packet.
func (r *Reassembler) remove(t *partial) {
	r.empty(t)
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		r.oldest = t.newer
	}
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		r.newest = t.older
	}
	delete(r.packets, t.key)
	r.used -= partialCost
	t.newer, r.partials = r.partials, t
}

// empty frees a packet's blocks.
func (r *Reassembler) empty(t *partial) {
	for p := t.first; p != nil; {
		after := p.after
		for b := p; b != nil; {
			next := b.next
			b.next, r.blocks = r.blocks, b
			r.used -= blockCost
			b = next
		}
		p = after
	}
	t.first, t.last, t.pieces, t.used = nil, nil, 0, partialCost
}

// block returns an empty block.
func (r *Reassembler) block() *block {
	b := r.blocks
	if b != nil {
		r.blocks = b.next
	} else {
		r.allocate(blockCost)
		b = new(block)
	}
	b.next, b.after, b.used = nil, nil, 0
	r.used += blockCost
	return b
}

// allocate counts bytes that are about to be allocated. The bytes in use stay within the
// limit with them; free entries of the other kind may have to be released.
func (r *Reassembler) allocate(bytes int) {
	r.allocated += bytes
	for r.allocated > r.limits.Bytes && r.blocks != nil {
		r.blocks = r.blocks.next
		r.allocated -= blockCost
	}
	for r.allocated > r.limits.Bytes && r.partials != nil {
		r.partials = r.partials.newer
		r.allocated -= partialCost
	}
}
