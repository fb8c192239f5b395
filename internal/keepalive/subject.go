package keepalive

import (
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/probe"
	"sixfour/internal/probing"
)

// Subject is a path whose liveness is checked.
type Subject struct {
	*datapath.Path
	echo  *probing.Echo
	owner Owner

	packetArrived atomic.Bool // a packet arrived: the Keeper must check
	packetSent    atomic.Bool // a packet was sent: the Keeper must check
	unreachable   atomic.Bool // an error reported that the peer cannot be reached
	marked        atomic.Bool // the Keeper will check the path
	role          atomic.Uint32
	sessions      []*session // used by the goroutine of the Keeper only
}

// Owner uses the liveness of a path. Its methods never block. The goroutine of the Keeper
// calls RelaysDown and Liveness, and any goroutine Relays.
type Owner interface {
	// Relays returns the relays and routers of an automatic tunnel, each of which has a
	// liveness session, and our inner address to which relays return probes; invalid: they
	// do not.
	Relays() (relays []netip.Addr, self netip.Addr)
	// RelaysDown is passed the relays and routers that are down, and the one to which
	// packets go. It reports whether packets must use another address.
	RelaysDown(down []netip.Addr, inUse netip.Addr) (changed bool)
	// Liveness is passed what is known now. It reports whether packets must use another
	// address.
	Liveness(r *Result) (changed bool)
}

// NewSubject returns a path, and what sends its probes, as a subject.
func NewSubject(p *datapath.Path, e *probing.Echo, o Owner) *Subject {
	return &Subject{Path: p, echo: e, owner: o}
}

// Result is what is known of the liveness of a path. That of an automatic tunnel is the
// liveness of the relay or router to which packets go.
type Result struct {
	State  liveness.State
	Counts api.Liveness
	RTT    time.Duration // smoothed round-trip time; 0: unknown
	Remote netip.Addr    // outer address of the peer or relay

	// OneWay means that packets arrive, but that probes are no longer answered. OnlyHost
	// means that lately only the outer address has answered, which does not show that the
	// tunnel works. Unanswered means that no probe was ever answered.
	// Doubt means that the last probe was lost, or that an error has reported since the last
	// answer that the peer cannot be reached.
	OneWay, OnlyHost, Unanswered, Doubt bool

	target *target
}

// IsAbout reports whether a wire still leads to the address whose liveness it is.
func (r *Result) IsAbout(wire *datapath.Wire) bool { return r.target.isAbout(wire) }

// HasChecks reports whether a wire of the path has liveness checks. An automatic tunnel
// without relays or routers has none: its path stands for those to any endpoint. Nor has a
// connection through which no probe can be sent: the port itself detects that it has ended,
// and the path then has no wire.
func (s *Subject) HasChecks(wire *datapath.Wire) bool {
	switch {
	case wire.Life.Every == 0:
		return false
	case wire.Automatic():
		relays, _ := s.owner.Relays()
		return len(relays) > 0
	case wire.Outer().Kind.Properties().Session:
		_, _, inside := probe.Ends(wire.Layers)
		return inside || len(wire.Between) > 0
	}
	return true
}

// targets returns the targets of the liveness sessions: none without a wire that has checks,
// or if answers could not be received.
func (s *Subject) targets() []target {
	wire := s.Wire.Load()
	if wire == nil || !s.HasChecks(wire) || !s.Listening.Load() || s.Tunnel.Retired.Load() {
		return nil
	}
	l := wire.Outer()
	t := target{layers: wire.Layers, local: l.Local, remote: l.Remote, between: wire.Between, set: wire.Life}
	if !wire.Automatic() {
		return []target{t}
	}
	var list []target
	relays, self := s.owner.Relays()
	for _, a := range relays {
		list = append(list, target{local: l.Local, remote: a, self: self, set: wire.Life})
	}
	return list
}

// report passes the liveness of a path to its owner. The path must have sessions.
func (k *Keeper) report(s *Subject) {
	one := s.sessions[0]
	changed := false
	if one.target.layers == nil {
		var down []netip.Addr
		one, down = s.relayInUse()
		changed = s.owner.RelaysDown(down, one.target.remote)
	}
	now := k.since(time.Now())
	s.Notices.Request(datapath.NoticeLiveness, one.hasTraffic() && one.life.WantsNextPacket())
	s.Notices.Request(datapath.NoticeSent, one.hasTraffic() && one.life.WantsNextSent())
	state, missed := one.life.State()
	r := Result{
		State: state, RTT: one.life.RTT(), Remote: one.target.remote, target: &one.target,
		OneWay: one.life.OneWay(), OnlyHost: one.onlyHost(now), Unanswered: one.proven.Way == probing.NoWay, Doubt: one.life.Doubt(),
		Counts: api.Liveness{Missed: missed, RTT: one.life.RTT().Seconds(), Loss: one.life.Loss(), Marks: s.echo.Marks()},
	}
	for _, one := range s.sessions {
		sent, lost := one.life.Probes()
		r.Counts.Sent, r.Counts.Lost = r.Counts.Sent+sent, r.Counts.Lost+lost
	}
	if at, ok := one.life.LastPacket(); ok {
		r.Counts.LastPacket = wall(k.begun.Add(at))
	}
	if s.owner.Liveness(&r) || changed {
		k.changed()
	}
}

// relayInUse returns the session of the relay or router to which packets go: the first that
// is not down, or the first if all are down. It also returns those that are down, or none
// if all are down, because packets then go on as before.
func (s *Subject) relayInUse() (inUse *session, down []netip.Addr) {
	scheduled := 0
	for _, one := range s.sessions {
		if one.place < 0 {
			continue
		}
		scheduled++
		if state, _ := one.life.State(); state == liveness.Down {
			down = append(down, one.target.remote)
		} else if inUse == nil {
			inUse = one
		}
	}
	if len(down) == scheduled {
		return s.sessions[0], nil
	}
	return inUse, down
}

// wall converts a time to the present wall clock, which may have been set since.
func wall(at time.Time) time.Time { return time.Now().Add(-time.Since(at)) }
