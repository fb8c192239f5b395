package config

import (
	"iter"
	"net/netip"

	"sixfour/internal/config/problem"
)

// Path is one way to a peer: the outer addresses between which packets are exchanged.
type Path struct {
	Local  netip.Addr // zero: "auto"
	Remote Host       // zero: a Mechanism finds it

	At problem.Pos // in the file: of the remote end, or of the table if there is none
}

// AllPaths returns every path of a tunnel with its peer.
func (t *Tunnel) AllPaths() iter.Seq2[*Peer, *Path] {
	return func(yield func(*Peer, *Path) bool) {
		for i := range t.Peers {
			p := &t.Peers[i]
			for j := range p.Paths {
				if !yield(p, &p.Paths[j]) {
					return
				}
			}
		}
	}
}

// Equal reports whether two configurations of a path are equivalent.
func (p *Path) Equal(o *Path) bool {
	a, b := *p, *o
	a.At, b.At = problem.Pos{}, problem.Pos{}
	return a == b
}
