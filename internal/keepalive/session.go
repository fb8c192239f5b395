package keepalive

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/probe"
	"sixfour/internal/probing"
)

// session is the liveness session with a peer, or with a relay or router of an automatic
// tunnel. Only the goroutine of the Keeper uses it.
type session struct {
	of     *Subject
	index  uint16 // in the sessions of the subject
	target target
	life   *liveness.Session
	seen   uint64        // packets that have arrived on the path, counted so far
	sent   uint64        // packets that were sent on the path, counted so far
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
func (s *session) first() uint16 { return uint16(rand.Uint32()) }

// hasTraffic reports whether packets from the peer come from the session's target. For
// the relays of an automatic tunnel, packets are not counted by source.
func (s *session) hasTraffic() bool { return s.target.layers != nil }

// arrivals reports whether packets have arrived since the last call.
func (s *session) arrivals(now time.Duration) bool {
	n := s.of.In.Packets.Load()
	was := s.seen
	s.seen = n
	if n != was && s.hasTraffic() {
		s.inside = now
	}
	return n != was
}

// countTraffic reports to the liveness session what has arrived and was sent since the last
// call.
func (s *session) countTraffic(now time.Duration) {
	if s.hasTraffic() && s.arrivals(now) {
		s.life.Traffic(false, now)
	}
	s.countSent(now)
}

// countSent reports to the liveness session what was sent since the last call. It must follow
// the report of what has arrived.
func (s *session) countSent(now time.Duration) {
	n := s.of.Out.Packets.Load()
	if was := s.sent; n > was && s.hasTraffic() {
		s.life.Sent(int(min(n-was, math.MaxInt32)), now)
	}
	s.sent = n
}

// never is earlier than any time of a session.
const never time.Duration = math.MinInt64 / 2

// onlyHost reports whether lately only the peer's host has answered, which does not show
// that the tunnel works.
func (s *session) onlyHost(now time.Duration) bool {
	return s.target.layers != nil && s.proven.Way == probing.Outside && now-s.inside > 2*s.target.set.Every
}

// ways returns the ways of probing that apply, the best first.
func (s *session) ways(wire *datapath.Wire) []probing.Way {
	l := wire.Outer()
	if s.target.layers == nil {
		if s.target.self.IsValid() {
			return []probing.Way{probing.Self, probing.Outside}
		}
		return []probing.Way{probing.Outside}
	}
	var ways []probing.Way
	if _, ok := l.Kind.Framing().(framing.Keepaliver); ok && len(wire.Layers) == 1 {
		ways = append(ways, probing.Keepalive)
	}
	if len(s.target.between) > 0 {
		ways = append(ways, probing.Between)
	}
	_, remote, inside := probe.Ends(wire.Layers)
	switch {
	case !inside && l.Kind.Properties().Session: // what is outside its connection does not pass the port
		return ways
	case !inside:
		return append(ways, probing.Outside)
	case s.tries == 0 && s.proven.Way == probing.NoWay: // nearly every peer answers it
		return []probing.Way{probing.Inside}
	case remote.IsLinkLocalUnicast():
		ways = append(ways, probing.AllNodes)
	}
	return append([]probing.Way{probing.Inside}, ways...)
}

// probe sends a probe in every way that may be answered, but in none worse than the
// proven s. A probe that cannot be sent counts as unanswered.
func (s *session) probe(seq uint16, now time.Duration) {
	wire := s.of.Wire.Load()
	if wire == nil {
		return
	}
	s.resetMethod()
	for _, w := range s.ways(wire) {
		if w > s.proven.Way {
			break
		}
		q := probing.Request{Way: w, Seq: seq, Session: s.index, Local: s.target.local, Remote: s.target.remote, Self: s.target.self, Stack: wire.Stack}
		if w != probing.Between {
			s.ask(wire, q, now)
			continue
		}
		for i, pair := range s.target.between {
			if s.proven.Way == probing.Between && i != s.proven.Pair {
				continue
			}
			q.Between, q.Pair = pair, uint8(i)
			s.ask(wire, q, now)
		}
	}
	s.probeMarks(wire, seq)
	s.tries++
}

// Probes of congestion marks accompany the first liveness probes of a target, and later one
// of many.
const (
	marksFirst = 8
	marksEvery = 16
)

// probeMarks sends a probe of congestion marks, if it is due and the peer has answered echo
// requests through the tunnel. In connections, outer packets are not ours to mark.
func (s *session) probeMarks(wire *datapath.Wire, seq uint16) {
	_, connections := wire.Outer().Kind.Framing().(framing.InSession)
	if connections || wire.Options.ECNCompat || s.target.layers == nil || s.tries > marksFirst && s.tries%marksEvery != 0 {
		return
	}
	q := probing.Request{Way: s.proven.Way, Seq: seq, Session: s.index, Local: s.target.local, Remote: s.target.remote, Stack: wire.Stack}
	switch s.proven.Way {
	case probing.Inside:
	case probing.Between:
		q.Between, q.Pair = s.target.between[s.proven.Pair], uint8(s.proven.Pair)
	default:
		return
	}
	_ = s.of.echo.SendMarked(wire, q) // that packets cannot be sent is reported for liveness probes
}

// resetMethod makes the next probe go in every way through the tunnel, when the peer does not
// answer any more in the one in which it did: another system may have its address by now.
func (s *session) resetMethod() {
	if _, missed := s.life.State(); missed >= s.target.set.After && s.proven.Way < probing.Self {
		s.proven = probing.Proof{Way: probing.Self}
		s.of.echo.SetProof(probing.Unproven)
	}
}

// ask sends one packet of a probe.
func (s *session) ask(wire *datapath.Wire, q probing.Request, now time.Duration) {
	if err := s.of.echo.SendLiveness(wire, q); err != nil {
		s.of.Path.Owner.SendFailed(err)
		s.life.SendFailed(now)
	}
}
