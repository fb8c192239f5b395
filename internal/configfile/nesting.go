package configfile

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// node is a tunnel whose outer packets may go through other tunnels.
type node struct {
	*draft
	carriers []*carrier
	depth    int // the largest number of encapsulations of a packet; values above encap.MaxDepth are all the same
}

// carrier is a tunnel through which the outer packets of another tunnel go, and one of the
// paths on which they do.
type carrier struct {
	to   *node
	path *config.Path
}

// checkNesting reports tunnels whose outer packets go through other tunnels of the file
// in a circle, or are encapsulated too often. It knows only the routes in the file; the
// daemon checks the host's other routes when it runs. Tunnels with a mark are not
// checked, because routing rules may use the mark.
func checkNesting(r *problem.Report, drafts []*draft) {
	all := carriers(drafts)
	for range encap.MaxDepth { // each round follows one more tunnel
		for _, n := range all {
			for _, w := range n.carriers {
				n.depth = min(max(n.depth, n.own()+w.to.depth), encap.MaxDepth+1)
			}
		}
	}
	for _, n := range all {
		for _, w := range n.carriers {
			if n.own()+w.to.depth <= encap.MaxDepth {
				continue
			}
			if last := w.to.loopsThrough(n, encap.MaxDepth-n.own()); last != nil {
				r.Add(w.path.At, "remote %v is reached through tunnel %s (line %d), whose own packets come back into this one: "+
					"give one of them another remote, or route that elsewhere", w.path.Remote.Addr, problem.Quote(last.Name), last.Source.Header.Line)
				continue
			}
			r.Add(w.path.At, "remote %v is reached through tunnel %s (line %d), and packets would be encapsulated more than %d times, or endlessly: "+
				"give it another remote, or route that elsewhere", w.path.Remote.Addr, problem.Quote(w.to.Name), w.to.Source.Header.Line, encap.MaxDepth)
		}
	}
}

// carriers finds the tunnels through which outer packets go.
func carriers(drafts []*draft) []*node {
	var behind bart.Table[*node] // the tunnel with the longest prefix that contains an address
	all := make([]*node, len(drafts))
	for i, d := range drafts {
		all[i] = &node{draft: d}
		all[i].depth = all[i].own()
		if d.Netns != "" || d.state.Bad["netns"] {
			continue // its routes do not affect outer packets
		}
		for _, prefixes := range [][]netip.Prefix{d.Address, d.Routes} {
			for _, p := range prefixes {
				behind.Insert(p.Masked(), all[i])
			}
		}
	}
	for _, n := range all {
		if n.FwMark != 0 || n.state.Bad["fwmark"] {
			continue
		}
		seen := map[*node]bool{}
		for _, path := range n.AllPaths() {
			a := path.Remote.Addr
			if !a.IsValid() {
				continue
			}
			if to, ok := behind.Lookup(a); ok && to != n && !seen[to] { // checkLoop checks a tunnel's own routes
				seen[to] = true
				n.carriers = append(n.carriers, &carrier{to, path})
			}
		}
	}
	return all
}

// own returns how many layers the tunnel itself adds, or one if its mode is invalid.
func (n *node) own() int { return max(1, len(n.layers)) }

// loopsThrough returns the tunnel, n or one through which n's packets go, whose packets go
// through the tunnel first within left encapsulations, or nil.
func (n *node) loopsThrough(first *node, left int) *node {
	if left -= n.own(); left < 0 {
		return nil
	}
	for _, w := range n.carriers {
		if w.to == first {
			return n
		}
	}
	for _, w := range n.carriers {
		if last := w.to.loopsThrough(first, left); last != nil {
			return last
		}
	}
	return nil
}
