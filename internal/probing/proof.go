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
// is known to answer, or a ping of the peer's outer address says as much: it takes the same
// way as the tunnel's packets, except for packets with ports.
func (e *Echo) ends(wire *datapath.Wire) (local, remote netip.Addr, ok bool) {
	local, remote, ok = probe.Ends(wire.Layers)
	ports := wire.Outer().Kind.Properties().Ports.Local != 0
	if pair, known := e.between(wire); known && (ok || ports || inConnection(wire)) {
		return pair.Local, pair.Remote, true
	}
	if ok && e.Proof().Way == AllNodes {
		remote = allNodes
	}
	return local, remote, ok
}

// between returns the pair of inner addresses that has answered or, if nothing has and only
// such pairs can be asked, the first one that may answer.
func (e *Echo) between(wire *datapath.Wire) (pair probe.Pair, ok bool) {
	if pr := e.Proof(); pr.Way == Between {
		return pr.between, true
	}
	if _, _, inside := probe.Ends(wire.Layers); !inside && inConnection(wire) && len(wire.Between) > 0 {
		return wire.Between[0], true
	}
	return pair, false
}

// inConnection reports whether packets travel inside a connection: then nothing else leaves
// its port, such as an echo request to the outer address.
func inConnection(wire *datapath.Wire) bool {
	return wire.Outer().Kind.Properties().Session
}
