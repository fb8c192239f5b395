package source

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap/header"
)

// Peers maps inner prefixes to the peers of one interface. It says which peer a packet
// is for, and whether a peer may send it. It is immutable and may be used concurrently;
// to change it, make a new one and replace the old one through an atomic pointer.
type Peers[P comparable] bart.Table[P]

func (t *Peers[P]) allowed() *bart.Table[P] { return (*bart.Table[P])(t) }

// Peer is one peer: the caller's identifier for it, and the inner addresses behind it.
type Peer[P comparable] struct {
	Peer    P
	Allowed []netip.Prefix
}

// NewPeers builds the table from a list. It is an error if two peers have the same
// prefix; for overlapping prefixes, the longest match is used.
func NewPeers[P comparable](list []Peer[P]) (*Peers[P], error) {
	t := new(bart.Table[P])
	var errs []error
	for _, p := range list {
		for _, prefix := range p.Allowed {
			prefix = prefix.Masked()
			if other, ok := t.Get(prefix); ok && other != p.Peer {
				errs = append(errs, fmt.Errorf("%v is behind two peers", prefix))
			}
			t.Insert(prefix, p.Peer)
		}
	}
	return (*Peers[P])(t), errors.Join(errs...)
}

// NewPeersOf is NewPeers for n peers, which at returns.
func NewPeersOf[P comparable](n int, at func(i int) (P, []netip.Prefix)) (*Peers[P], error) {
	list := make([]Peer[P], n)
	for i := range list {
		list[i].Peer, list[i].Allowed = at(i)
	}
	return NewPeers(list)
}

// Replace returns a table in which old peers have none of their prefixes any more, and fresh
// ones have theirs. A peer whose prefixes change is in both lists. It takes the same time
// however many peers the table has. The error is that of NewPeers.
func (t *Peers[P]) Replace(old, fresh []Peer[P]) (*Peers[P], error) {
	next := t.allowed()
	for _, p := range old {
		for _, prefix := range p.Allowed {
			if who, ok := next.Get(prefix.Masked()); ok && who == p.Peer {
				next = next.DeletePersist(prefix.Masked())
			}
		}
	}
	var errs []error
	for _, p := range fresh {
		for _, prefix := range p.Allowed {
			prefix = prefix.Masked()
			if who, ok := next.Get(prefix); ok && who != p.Peer {
				errs = append(errs, fmt.Errorf("%v is behind two peers", prefix))
			}
			next = next.InsertPersist(prefix, p.Peer)
		}
	}
	return (*Peers[P])(next), errors.Join(errs...)
}

// Toward returns the peer for an inner address.
func (t *Peers[P]) Toward(a netip.Addr) (P, bool) { return t.allowed().Lookup(a.WithZone("")) }

// To returns the peer for an inner packet, by the longest prefix that contains its
// destination. header.Parse must have accepted the packet.
func (t *Peers[P]) To(inner []byte) (P, bool) {
	if header.Version(inner) == 4 {
		return t.allowed().Lookup(header.IPv4(inner).Dst())
	}
	return t.allowed().Lookup(header.IPv6(inner).Dst())
}

// Allows reports whether a packet from the tunnel may come from a peer: an answer to its
// source would go to the same peer (RFC 3704's strict reverse path).
func (t *Peers[P]) Allows(peer P, inner []byte) bool {
	var p P
	var ok bool
	if header.Version(inner) == 4 {
		p, ok = t.allowed().Lookup(header.IPv4(inner).Src())
	} else {
		p, ok = t.allowed().Lookup(header.IPv6(inner).Src())
	}
	return ok && p == peer
}
