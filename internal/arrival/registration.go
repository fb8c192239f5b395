package arrival

import (
	"sync/atomic"
	"time"

	"sixfour/internal/datapath"
)

// formerLife is how long packets from a peer's former address are accepted after its name
// has changed (mechanisms 2.7): some are in flight, or the peer has not moved yet.
const formerLife = 30 * time.Second

// Registration is how the packets of a path are received. Its Path must be set; the Set owns
// the rest.
type Registration struct {
	*datapath.Path
	registered *datapath.Wire // the wire for which packets are received; nil: none
	// arrives is the wire that decapsulates these packets: the latest with the same ends
	// as registered. A wire with other ends gets another pointer.
	arrives     *atomic.Pointer[datapath.Wire]
	former      *former        // nil: none
	conflicting *datapath.Path // its packets cannot be told from this path's; one of the two receives them

	end, formerEnd *datapath.End // the entries in the table; nil: none
}

// former is the wire to a former address of a path.
type former struct {
	arrives *atomic.Pointer[datapath.Wire]
	until   time.Time // when its packets are no longer accepted
}

// Registered returns the wire for which packets are received; nil: there is none.
func (r *Registration) Registered() *datapath.Wire { return r.registered }

// Conflicting reports whether the packets of the path cannot be told from those of another one.
func (r *Registration) Conflicting() bool { return r.conflicting != nil }

// Update makes a wire, which was published, decapsulate the packets if it has the same ends
// as the registered one.
func (r *Registration) Update(w *datapath.Wire) {
	if w != nil && r.registered != nil && *w.Outer() == *r.registered.Outer() {
		r.arrives.Store(w)
	}
}

// Register makes a wire the one by which a path's packets are received.
func (s *Set) Register(p Path, now *datapath.Wire) {
	r := p.Arrival()
	old, arrives := r.registered, r.arrives
	r.registered = now
	if old != nil && *old.Outer() == *now.Outer() {
		arrives.Store(now)
		if r.Listening.Load() && old.Hop.Port == now.Hop.Port && (old.Hop.Device == now.Hop.Device || datapath.Groups(now.Outer()) == nil) {
			return
		}
	} else { // until the table is replaced, packets use the old pointer
		r.arrives = new(atomic.Pointer[datapath.Wire])
		r.arrives.Store(now)
	}
	if old != nil && p.HasName() && elsewhere(old, now) {
		r.former = &former{arrives: arrives, until: time.Now().Add(formerLife)}
	}
	s.moved = append(s.moved, p)
}

// elsewhere reports whether two wires have different far ends. A peer behind a NAT may have
// changed its port only.
func elsewhere(a, b *datapath.Wire) bool {
	of, now := a.Outer(), b.Outer()
	return of.Remote != now.Remote || of.Kind.Properties().Ports.Remote != now.Kind.Properties().Ports.Remote
}

// place puts the entries of a path into the table, in place of those that it had there. A
// former address of one peer may now belong to another, which then takes precedence.
func place(p Path, t *datapath.Table, now time.Time) {
	r := p.Arrival()
	old := r.ends()
	r.formerEnd = nil
	if r.former != nil && now.Before(r.former.until) {
		r.formerEnd = datapath.NewEnd(r.Path, r.former.arrives, true, p.HasAddress)
	} else {
		r.former = nil
	}
	r.end = datapath.NewEnd(r.Path, r.arrives, false, p.HasAddress)
	reportConflict(p, t.Conflict(r.end))
	t.Replace(old, r.ends())
}

// ends returns the entries in the table.
func (r *Registration) ends() (ends []*datapath.End) {
	if r.formerEnd != nil {
		ends = append(ends, r.formerEnd)
	}
	if r.end != nil {
		ends = append(ends, r.end)
	}
	return ends
}

// reportConflict records and reports a path whose packets cannot be told from those of p;
// nil: there is none. The entry of a former address is no conflict.
func reportConflict(p Path, e *datapath.End) {
	var other *datapath.Path
	if e != nil {
		if q, ok := e.Path.Owner.(Path); ok && e.Arrives == q.Arrival().arrives {
			other = e.Path
		}
	}
	r := p.Arrival()
	if other != nil && other != r.conflicting {
		p.Conflicts(other)
		other.Owner.(Path).Arrival().conflicting = r.Path
	}
	r.conflicting = other
}

// Displace removes the entries of a path, which no longer belongs to a tunnel, from the table.
func (s *Set) Displace(p Path) {
	r := p.Arrival()
	if t := s.plane.Table.Load(); t != nil {
		t.Replace(r.ends(), nil)
	}
	r.end, r.formerEnd = nil, nil
}

// Expire ends what is limited in time in the reception of a path's packets. Arrange then does
// everything again if something has ended.
func (s *Set) Expire(p Path, now time.Time) {
	r := p.Arrival()
	if r.former != nil && !now.Before(r.former.until) {
		s.stale = true
	}
	changed, pause := r.Ways.Part(now)
	if pause > 0 {
		p.Parted(pause)
	}
	if changed {
		s.stale = true
	}
}
