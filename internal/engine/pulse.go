package engine

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/probe"
	"sixfour/internal/probing"
)

// session is a liveness session with a peer, or with a relay or router of an automatic
// tunnel. The keeper owns it.
type session struct {
	p      *path
	index  uint16 // index in the peer's pulses
	target target
	life   *liveness.Session
	seen   uint64        // packets from the peer counted so far
	proven probing.Proof // the best way in which probes were answered
	tries  int           // probes sent to the present target
	inside time.Duration // when the last packet came through the tunnel, in the keeper's time
	place  int           // index in the schedule; -1: not in it
}

// target is where liveness probes go, and how.
type target struct {
	layers        []encap.Layer // of the path; nil: the target is a relay
	local, remote netip.Addr    // outer addresses
	self          netip.Addr    // our address to which a relay returns packets; invalid: it does not
	between       []probe.Pair  // inner addresses
	set           liveness.Settings
}

// sameEnds reports whether two targets have the same addresses and layers.
func (t target) sameEnds(o target) bool {
	return t.local == o.local && t.remote == o.remote && t.self == o.self && slices.Equal(t.layers, o.layers)
}

// targets returns the liveness targets of a peer: none without a path, or if answers
// could not be received.
func (p *path) targets() []target {
	wire := p.Wire.Load()
	if wire == nil || wire.Life.Every == 0 || !p.Listening.Load() || p.t.Retired.Load() {
		return nil
	}
	l := wire.Outer()
	t := target{layers: wire.Layers, local: l.Local, remote: l.Remote, between: wire.Between, set: wire.Life}
	if !p.t.automatic() {
		return []target{t}
	}
	var list []target
	relays := p.t.mech.relays()
	for _, a := range relays.addrs {
		list = append(list, target{local: l.Local, remote: a, self: relays.self, set: wire.Life})
	}
	return list
}

// isWatched reports whether the peer has liveness checks. An automatic tunnel without
// relays or routers has none: its peer stands for any endpoint.
func (p *path) isWatched(wire *datapath.Wire) bool {
	return wire.Life.Every > 0 && (!p.t.automatic() || len(p.t.mech.relays().addrs) > 0)
}

// isAbout reports whether the path still leads to the session's target.
func (pl *session) isAbout(wire *datapath.Wire) bool {
	l := wire.Outer()
	if pl.target.layers == nil {
		return l.Local == pl.target.local
	}
	return l.Remote == pl.target.remote && slices.Equal(wire.Layers, pl.target.layers)
}

// first returns the number of the first probe. It is random, and it also spreads the
// probes of different peers over time.
func (pl *session) first() uint16 { return uint16(rand.Uint32()) }

// hasTraffic reports whether packets from the peer come from the session's target. For
// the relays of an automatic tunnel, packets are not counted by source.
func (pl *session) hasTraffic() bool { return pl.target.layers != nil }

// arrivals reports whether packets have arrived since the last call.
func (pl *session) arrivals(now time.Duration) bool {
	n := pl.p.In.Packets.Load()
	was := pl.seen
	pl.seen = n
	if n != was && pl.hasTraffic() {
		pl.inside = now
	}
	return n != was
}

// never is earlier than any time of the keeper.
const never time.Duration = math.MinInt64 / 2

// onlyHost reports whether lately only the peer's host has answered, which does not show
// that the tunnel works.
func (pl *session) onlyHost(now time.Duration) bool {
	return pl.target.layers != nil && pl.proven.Way == probing.Outside && now-pl.inside > 2*pl.target.set.Every
}

// ways returns the ways of probing that apply, the best first.
func (pl *session) ways(wire *datapath.Wire) []probing.Way {
	l := wire.Outer()
	if pl.target.layers == nil {
		if pl.target.self.IsValid() {
			return []probing.Way{probing.Self, probing.Outside}
		}
		return []probing.Way{probing.Outside}
	}
	var ways []probing.Way
	if _, ok := l.Kind.Framing().(encap.Keepaliver); ok && len(wire.Layers) == 1 {
		ways = append(ways, probing.Keepalive)
	}
	if len(pl.target.between) > 0 {
		ways = append(ways, probing.Between)
	}
	_, remote, inside := probe.Ends(wire.Layers)
	switch {
	case !inside:
		return append(ways, probing.Outside)
	case pl.tries == 0 && pl.proven.Way == probing.NoWay: // nearly every peer answers it
		return []probing.Way{probing.Inside}
	case remote.IsLinkLocalUnicast():
		ways = append(ways, probing.AllNodes)
	}
	return append([]probing.Way{probing.Inside}, ways...)
}

// probe sends a probe in every way that may be answered, but in none worse than the
// proven one. A probe that cannot be sent counts as unanswered.
func (pl *session) probe(seq uint16) {
	wire := pl.p.Wire.Load()
	if wire == nil {
		return
	}
	pl.resetMethod()
	for _, w := range pl.ways(wire) {
		if w > pl.proven.Way {
			break
		}
		q := probing.Request{Way: w, Seq: seq, Session: pl.index, Local: pl.target.local, Remote: pl.target.remote, Self: pl.target.self, Stack: wire.Stack}
		if w != probing.Between {
			pl.ask(wire, q)
			continue
		}
		for i, pair := range pl.target.between {
			if pl.proven.Way == probing.Between && i != pl.proven.Pair {
				continue
			}
			q.Between, q.Pair = pair, uint8(i)
			pl.ask(wire, q)
		}
	}
	pl.tries++
}

// resetMethod makes the next probe go in every way through the tunnel, when the peer does not
// answer any more in the one in which it did: another system may have its address by now.
func (pl *session) resetMethod() {
	if _, missed := pl.life.State(); missed >= pl.target.set.After && pl.proven.Way < probing.Self {
		pl.proven = probing.Proof{Way: probing.Self}
		pl.p.echo.SetProof(probing.Unproven)
	}
}

// ask sends one packet of a probe.
func (pl *session) ask(wire *datapath.Wire, q probing.Request) {
	if err := pl.p.echo.SendLiveness(wire, q); err != nil {
		pl.p.SendFailed(err)
		pl.life.SendFailed()
	}
}

// answer passes an answer to a probe to the keeper. It never blocks. Any goroutine may
// call it.
func (k *keeper) answer(p *path, a probing.LivenessAnswer) {
	if k == nil {
		return
	}
	select {
	case k.answers <- probeAnswer{p, a}:
	default: // more than were asked for: drop it
	}
}
