package resolve

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap/header"
)

// Peers is the resolver of an interface with many peers: which of them a packet
// is for, which one it is from, and whether that one may send it. It is
// immutable and may be used by any number of goroutines; a change makes a new
// one, which replaces the old behind an atomic pointer.
type Peers[P comparable] struct {
	allowed bart.Table[P]
	remotes map[netip.Addr]P
}

// Peer is one of them: what the user of Peers knows it by, its outer address,
// and the inner addresses behind it.
type Peer[P comparable] struct {
	Peer    P
	Remote  netip.Addr
	Allowed []netip.Prefix
}

// NewPeers makes the tables of a list. That two peers have the same outer
// address, or that the same prefix is behind both, is an error for each; of
// overlapping prefixes the longest holds.
func NewPeers[P comparable](list []Peer[P]) (*Peers[P], error) {
	t := &Peers[P]{remotes: make(map[netip.Addr]P, len(list))}
	var errs []error
	for _, p := range list {
		if _, ok := t.remotes[p.Remote]; ok {
			errs = append(errs, fmt.Errorf("two peers have the remote address %v", p.Remote))
		}
		t.remotes[p.Remote] = p.Peer
		for _, prefix := range p.Allowed {
			prefix = prefix.Masked()
			if other, ok := t.allowed.Get(prefix); ok && other != p.Peer {
				errs = append(errs, fmt.Errorf("%v is behind two peers", prefix))
			}
			t.allowed.Insert(prefix, p.Peer)
		}
	}
	return t, errors.Join(errs...)
}

// To is the peer for an inner packet, by the longest prefix that holds its
// destination. The packet was checked by header.Parse.
func (t *Peers[P]) To(inner []byte) (P, bool) {
	if header.Version(inner) == 4 {
		return t.allowed.Lookup(header.IPv4(inner).Dst())
	}
	return t.allowed.Lookup(header.IPv6(inner).Dst())
}

// From is the peer with an outer address.
func (t *Peers[P]) From(remote netip.Addr) (P, bool) {
	p, ok := t.remotes[remote]
	return p, ok
}

// Allows reports whether a packet that came out of the tunnel may come from a
// peer: whether an answer would go there (RFC 3704's strict reverse path).
func (t *Peers[P]) Allows(peer P, inner []byte) bool {
	var p P
	var ok bool
	if header.Version(inner) == 4 {
		p, ok = t.allowed.Lookup(header.IPv4(inner).Src())
	} else {
		p, ok = t.allowed.Lookup(header.IPv6(inner).Src())
	}
	return ok && p == peer
}
