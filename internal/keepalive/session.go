package keepalive

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

// session is the liveness session with a peer, or with a relay or router of an automatic
// tunnel. Only the goroutine of the Keeper uses it.
type session struct {
	s      *Subject
	index  uint16 // in the sessions of s
	target target
	life   *liveness.Session
	seen   uint64        // packets of the path counted so far
	proven probing.Proof // the best way in which probes were answered
	tries  int           // probes sent to the present target
	inside time.Duration // when the last packet came through the tunnel, since Keeper.begun
	place  int           // index in the schedule; -1: not in it
}

// target is where liveness probes go, and how.
type target struct {
	layers        []encap.Layer // of the wire; nil: the target is a relay
	local, remote netip.Addr    // outer addresses
	self          netip.Addr    // our address to which a relay returns packets; invalid: it does not
	between       []probe.Pair  // inner addresses
	set           liveness.Settings
}

// sameEnds reports whether two targets have the same addresses and layers.
func (t target) sameEnds(o target) bool {
	return t.local == o.local && t.remote == o.remote && t.self == o.self && slices.Equal(t.layers, o.layers)
}

// isAbout reports whether a wire still leads to the target.
func (t *target) isAbout(wire *datapath.Wire) bool {
	l := wire.Outer()
	if t.layers == nil {
		return l.Local == t.local
	}
	return l.Remote == t.remote && slices.Equal(wire.Layers, t.layers)
}

// first returns the number of the first probe. It is random, and it also spreads the
// probes of different peers over time.
func (one *session) first() uint16 { return uint16(rand.Uint32()) }

// hasTraffic reports whether packets from the peer come from the session's target. For
// the relays of an automatic tunnel, packets are not counted by source.
func (one *session) hasTraffic() bool { return one.target.layers != nil }

// arrivals reports whether packets have arrived since the last call.
func (one *session) arrivals(now time.Duration) bool {
	n := one.s.In.Packets.Load()
	was := one.seen
	one.seen = n
	if n != was && one.hasTraffic() {
		one.inside = now
	}
	return n != was
}

// never is earlier than any time of a session.
const never time.Duration = math.MinInt64 / 2

// onlyHost reports whether lately only the peer's host has answered, which does not show
// that the tunnel works.
func (one *session) onlyHost(now time.Duration) bool {
	return one.target.layers != nil && one.proven.Way == probing.Outside && now-one.inside > 2*one.target.set.Every
}

// ways returns the ways of probing that apply, the best first.
func (one *session) ways(wire *datapath.Wire) []probing.Way {
	l := wire.Outer()
	if one.target.layers == nil {
		if one.target.self.IsValid() {
			return []probing.Way{probing.Self, probing.Outside}
		}
		return []probing.Way{probing.Outside}
	}
	var ways []probing.Way
	if _, ok := l.Kind.Framing().(encap.Keepaliver); ok && len(wire.Layers) == 1 {
		ways = append(ways, probing.Keepalive)
	}
	if len(one.target.between) > 0 {
		ways = append(ways, probing.Between)
	}
	_, remote, inside := probe.Ends(wire.Layers)
	switch {
	case !inside:
		return append(ways, probing.Outside)
	case one.tries == 0 && one.proven.Way == probing.NoWay: // nearly every peer answers it
		return []probing.Way{probing.Inside}
	case remote.IsLinkLocalUnicast():
		ways = append(ways, probing.AllNodes)
	}
	return append([]probing.Way{probing.Inside}, ways...)
}

// probe sends a probe in every way that may be answered, but in none worse than the
// proven one. A probe that cannot be sent counts as unanswered.
func (one *session) probe(seq uint16) {
	wire := one.s.Wire.Load()
	if wire == nil {
		return
	}
	one.resetMethod()
	for _, w := range one.ways(wire) {
		if w > one.proven.Way {
			break
		}
		q := probing.Request{Way: w, Seq: seq, Session: one.index, Local: one.target.local, Remote: one.target.remote, Self: one.target.self, Stack: wire.Stack}
		if w != probing.Between {
			one.ask(wire, q)
			continue
		}
		for i, pair := range one.target.between {
			if one.proven.Way == probing.Between && i != one.proven.Pair {
				continue
			}
			q.Between, q.Pair = pair, uint8(i)
			one.ask(wire, q)
		}
	}
	one.tries++
}

// resetMethod makes the next probe go in every way through the tunnel, when the peer does not
// answer any more in the one in which it did: another system may have its address by now.
func (one *session) resetMethod() {
	if _, missed := one.life.State(); missed >= one.target.set.After && one.proven.Way < probing.Self {
		one.proven = probing.Proof{Way: probing.Self}
		one.s.echo.SetProof(probing.Unproven)
	}
}

// ask sends one packet of a probe.
func (one *session) ask(wire *datapath.Wire, q probing.Request) {
	if err := one.s.echo.SendLiveness(wire, q); err != nil {
		one.s.Path.Owner.SendFailed(err)
		one.life.SendFailed()
	}
}
