package probing

import (
	"net/netip"

	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// Proof is the best way in which a peer has answered probes.
type Proof struct {
	Way     Way
	Pair    int        // with Between: index in the path's pairs
	between probe.Pair // that pair
}

// Unproven means that the peer has answered no probe.
var Unproven = Proof{Way: NoWay}

// Improve records that a probe was answered, and reports whether its way was better than
// the best before.
func (pr *Proof) Improve(by Way, pair int, between []probe.Pair) bool {
	switch {
	case by >= pr.Way, by == Between && pair >= len(between):
		return false
	case by == Between:
		*pr = Proof{by, pair, between[pair]}
	default:
		*pr = Proof{Way: by}
	}
	return true
}

// Proof returns the way in which the peer answers probes.
func (e *Echo) Proof() Proof {
	if pr := e.proof.Load(); pr != nil {
		return *pr
	}
	return Unproven
}

// SetProof sets the way in which the peer answers probes.
func (e *Echo) SetProof(pr Proof) {
	if pr.Way == NoWay {
		e.proof.Store(nil)
	} else {
		e.proof.Store(&pr)
	}
}

// ends returns the addresses for echo requests to the peer through the tunnel: those of
// the layer, or others if the peer has answered only at these. If ok is false, no address
// is known to answer.
func (e *Echo) ends(wire *datapath.Wire) (local, remote netip.Addr, ok bool) {
	local, remote, ok = probe.Ends(wire.Layers)
	if !ok {
		return local, remote, false
	}
	switch pr := e.Proof(); pr.Way {
	case Between:
		local, remote = pr.between.Local, pr.between.Remote
	case AllNodes:
		remote = allNodes
	}
	return local, remote, true
}
