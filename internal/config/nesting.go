package config

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap"
)

// node is a tunnel whose outer packets may go through others.
type node struct {
	*draft
	through []*way
	depth   int // how often a packet is encapsulated at most; more than encap.MaxDepth is all one
}

// way is one of the tunnels that the outer packets of another go through, and one
// of the peers for which they do.
type way struct {
	to   *node
	peer *Peer
}

// checkNesting reports tunnels whose outer packets go through other tunnels of
// the file, and so on, in a circle, or too deep. It sees the routes of the file
// only: others, which may lead elsewhere, the daemon looks at when it runs.
// Tunnels with a mark are left to the rules that use it.
func checkNesting(r *report, drafts []*draft) {
	all := ways(drafts)
	for range encap.MaxDepth { // each round sees one tunnel further
		for _, n := range all {
			for _, w := range n.through {
				n.depth = min(max(n.depth, n.own()+w.to.depth), encap.MaxDepth+1)
			}
		}
	}
	for _, n := range all {
		for _, w := range n.through {
			if n.own()+w.to.depth <= encap.MaxDepth {
				continue
			}
			if last := w.to.cameFrom(n, encap.MaxDepth-n.own()); last != nil {
				r.add(w.peer.at, "remote %v is reached through tunnel %s (line %d), whose own packets come back into this one: "+
					"give one of them another remote, or route that elsewhere", w.peer.outermost().Addr, quote(last.Name), last.header.line)
				continue
			}
			r.add(w.peer.at, "remote %v is reached through tunnel %s (line %d), and packets would be encapsulated more than %d times, or in a circle: "+
				"give it another remote, or route that elsewhere", w.peer.outermost().Addr, quote(w.to.Name), w.to.header.line, encap.MaxDepth)
		}
	}
}

// ways finds the tunnels that outer packets go through.
func ways(drafts []*draft) []*node {
	var behind bart.Table[*node] // who has the longest prefix around an address
	all := make([]*node, len(drafts))
	for i, d := range drafts {
		all[i] = &node{draft: d}
		all[i].depth = all[i].own()
		if d.Netns != "" || d.state.bad["netns"] {
			continue // its routes do not concern outer packets
		}
		for _, prefixes := range [][]netip.Prefix{d.Address, d.Routes} {
			for _, p := range prefixes {
				behind.Insert(p.Masked(), all[i])
			}
		}
	}
	for _, n := range all {
		if n.FwMark != 0 || n.state.bad["fwmark"] {
			continue
		}
		seen := map[*node]bool{}
		for i := range n.Peers {
			p := &n.Peers[i]
			a := p.outermost().Addr
			if !a.IsValid() {
				continue
			}
			if to, ok := behind.Lookup(a); ok && to != n && !seen[to] { // its own routes checkLoop sees
				seen[to] = true
				n.through = append(n.through, &way{to, p})
			}
		}
	}
	return all
}

// own is how often the tunnel itself encapsulates; once if its mode is wrong.
func (n *node) own() int { return max(1, len(n.layers)) }

// cameFrom is the tunnel, this one or one that its packets go through, whose
// packets go through the given one, if so many encapsulations suffice; or nil.
func (n *node) cameFrom(first *node, left int) *node {
	if left -= n.own(); left < 0 {
		return nil
	}
	for _, w := range n.through {
		if w.to == first {
			return n
		}
	}
	for _, w := range n.through {
		if last := w.to.cameFrom(first, left); last != nil {
			return last
		}
	}
	return nil
}
