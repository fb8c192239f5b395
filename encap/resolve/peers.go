package resolve

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap/header"
)

// Peers are the prefixes behind each of an interface's many peers: which peer a
// packet is for, and whether a peer may send it. It is immutable and may be used by
// any number of goroutines; a change makes a new one, which replaces the old behind
// an atomic pointer.
type Peers[P comparable] struct{ allowed bart.Table[P] }

// Peer is one of them: what the user of Peers knows it by, and the inner addresses
// behind it.
type Peer[P comparable] struct {
	Peer    P
	Allowed []netip.Prefix
}

// NewPeers makes the table of a list. That the same prefix is behind two peers is
// an error for each; of overlapping prefixes the longest holds.
func NewPeers[P comparable](list []Peer[P]) (*Peers[P], error) {
	t := new(Peers[P])
	var errs []error
	for _, p := range list {
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

// Toward is the peer for an inner address.
func (t *Peers[P]) Toward(a netip.Addr) (P, bool) { return t.allowed.Lookup(a.WithZone("")) }

// To is the peer for an inner packet, by the longest prefix that holds its
// destination. The packet was checked by header.Parse.
func (t *Peers[P]) To(inner []byte) (P, bool) {
	if header.Version(inner) == 4 {
		return t.allowed.Lookup(header.IPv4(inner).Dst())
	}
	return t.allowed.Lookup(header.IPv6(inner).Dst())
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
