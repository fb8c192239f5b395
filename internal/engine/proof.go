package engine

import (
	"net/netip"

	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// proof is the best way in which a peer has answered probes.
type proof struct {
	way     way
	pair    int        // with wayBetween: index in the path's pairs
	between probe.Pair // that pair
}

// unproven means that the peer has answered no probe.
var unproven = proof{way: noWay}

// improve records that a probe was answered, and reports whether its way was better than
// the best before.
func (pr *proof) improve(by way, pair int, between []probe.Pair) bool {
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

// answersBy returns the way in which the peer answers probes.
func (p *path) answersBy() proof {
	if pr := p.proven.Load(); pr != nil {
		return *pr
	}
	return unproven
}

// ends returns the addresses for echo requests to the peer through the tunnel: those of
// the layer, or others if the peer has answered only at these. If ok is false, no address
// is known to answer.
func (p *path) ends(wire *datapath.Wire) (local, remote netip.Addr, ok bool) {
	local, remote, ok = probe.Ends(wire.Layers)
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
