package engine

import (
	"net/netip"

	"sixfour/internal/config"
	"sixfour/internal/probe"
)

// proof is how a peer answers probes.
type proof struct {
	way     way
	pair    int         // with wayBetween: which of the path's pairs
	between config.Pair // that pair
}

// unproven is that of a peer that has answered none.
var unproven = proof{way: noWay}

// improve takes in that a probe was answered, and reports whether that was in a better
// way than before.
func (pr *proof) improve(by way, pair int, between []config.Pair) bool {
	switch {
	case by >= pr.way, by == wayBetween && pair >= len(between):
		return false
	case by == wayBetween:
		*pr = proof{by, pair, between[pair]}
	default:
		*pr = proof{way: by}
	}
	return true
}

// answersBy is the way in which the peer answers probes.
func (p *peer) answersBy() proof {
	if pr := p.proven.Load(); pr != nil {
		return *pr
	}
	return unproven
}

// ends are the addresses between which the peer answers echo requests through the
// tunnel: those of the layer, or others if it has answered at these alone. Not ok means
// that nobody need be there.
func (p *peer) ends(path *path) (local, remote netip.Addr, ok bool) {
	local, remote, ok = probe.Ends(path.layers)
	if !ok {
		return local, remote, false
	}
	switch pr := p.answersBy(); pr.way {
	case wayBetween:
		local, remote = pr.between.Local, pr.between.Remote
	case wayAllNodes:
		remote = allNodes
	}
	return local, remote, true
}
