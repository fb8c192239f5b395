package leases

import "net/netip"

// prefixes is a set of IPv6 prefixes that do not overlap. It is a binary tree in which each
// node knows the largest prefix that is free below it, so that neither a search nor a change
// depends on how many prefixes there are. The zero value is the empty set.
type prefixes struct{ root *node }

// node stands for a prefix. A nil *node is one that is free, and full is one that is used.
type node struct {
	child [2]*node
	free  uint8 // length of the largest free prefix below; noFree: there is none
}

const noFree = 255

var full = &node{free: noFree}

// free returns the length of the largest free prefix of n, whose own length is bits.
func (n *node) largest(bits int) uint8 {
	if n == nil {
		return uint8(bits)
	}
	return n.free
}

// bit returns the bit of an address after a prefix length.
func bit(a *[16]byte, after int) byte { return a[after/8] >> (7 - after%8) & 1 }

// insert adds a prefix, and reports false if it overlaps one of the set.
func (s *prefixes) insert(p netip.Prefix) bool {
	a := p.Addr().As16()
	n, ok := insert(s.root, &a, 0, p.Bits())
	s.root = n
	return ok
}

func insert(n *node, a *[16]byte, at, bits int) (*node, bool) {
	switch {
	case n == full || at == bits && n != nil:
		return n, false
	case at == bits:
		return full, true
	case n == nil:
		n = &node{}
	}
	b, ok := bit(a, at), false
	n.child[b], ok = insert(n.child[b], a, at+1, bits)
	return n.join(at), ok
}

// join returns what stands for a node whose children have changed.
func (n *node) join(at int) *node {
	switch {
	case n.child[0] == nil && n.child[1] == nil:
		return nil
	case n.child[0] == full && n.child[1] == full:
		return full
	}
	n.free = min(n.child[0].largest(at+1), n.child[1].largest(at+1))
	return n
}

// remove removes a prefix that was inserted.
func (s *prefixes) remove(p netip.Prefix) {
	a := p.Addr().As16()
	s.root = remove(s.root, &a, 0, p.Bits())
}

func remove(n *node, a *[16]byte, at, bits int) *node {
	switch {
	case n == nil || at == bits:
		return nil
	case n == full:
		n = &node{child: [2]*node{full, full}, free: noFree}
	}
	b := bit(a, at)
	n.child[b] = remove(n.child[b], a, at+1, bits)
	return n.join(at)
}

// find returns the node of a prefix; if the prefix lies in a free or used one, that.
func (s *prefixes) find(p netip.Prefix) *node {
	n, a := s.root, p.Addr().As16()
	for at := 0; at < p.Bits() && n != nil && n != full; at++ {
		n = n.child[bit(&a, at)]
	}
	return n
}

// overlaps reports whether a prefix overlaps one of the set.
func (s *prefixes) overlaps(p netip.Prefix) bool { return s.find(p) != nil }

// lowest returns the free prefix with a length in bits that is the first one in a pool.
func (s *prefixes) lowest(pool netip.Prefix, bits int) (netip.Prefix, bool) {
	n, a := s.find(pool), pool.Masked().Addr().As16()
	if bits < pool.Bits() || int(n.largest(pool.Bits())) > bits {
		return netip.Prefix{}, false
	}
	for at := pool.Bits(); at < bits && n != nil; at++ {
		if int(n.child[0].largest(at+1)) <= bits {
			n = n.child[0]
			continue
		}
		n = n.child[1]
		a[at/8] |= 0x80 >> (at % 8)
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits), true
}

// count returns how many free prefixes with a length in bits a pool has.
func (s *prefixes) count(pool netip.Prefix, bits int) uint64 {
	if bits < pool.Bits() {
		return 0
	}
	return s.find(pool).count(pool.Bits(), bits)
}

func (n *node) count(at, bits int) uint64 {
	switch {
	case int(n.largest(at)) > bits:
		return 0
	case n == nil:
		return 1 << min(bits-at, 63)
	}
	return n.child[0].count(at+1, bits) + n.child[1].count(at+1, bits)
}
