package node

import (
	"sync/atomic"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/header"
	"sixfour/encap/sixbed4"
)

// Times of direct peering (draft-vanrein-6bed4-04 section 4). A NAT is taken to keep a mapping
// for 30 s.
const (
	probePause   = time.Second // between the probes of initial and polling
	initProbes   = 3
	peerTime     = 25 * time.Second // of peer, and between two attempts in failed
	pollProbes   = 2
	natTime      = 30 * time.Second
	seenTime     = natTime - peerTime - pollProbes*probePause - time.Second // for how long after a packet of ours a remote may be told that its packets arrive
	heardTime    = 5 * time.Second                                          // and after one of its packets: later the way may have been lost
	idleTime     = 2 * natTime                                              // after which a remote to which nothing is sent is forgotten
	tickInterval = 250 * time.Millisecond
)

// phase is what is known of the direct way to a remote.
type phase uint8

const (
	initial phase = iota // it is tried
	failed               // it does not work, or not any more
	peering              // the remote receives direct packets
	polling              // it did so a while ago, and is asked again
)

// String returns the word for status.
func (p phase) String() string {
	return [...]string{"probe", "through_router", "direct", "direct"}[p]
}

// remote is another peer. What To and From use is atomic.
type remote struct {
	addr    header.Word6 // to which packets were sent first
	direct  atomic.Bool  // packets go to it directly
	failed  atomic.Bool  // the phase is failed
	tell    atomic.Bool  // packets to it say that its direct ones arrive
	sent    atomic.Bool  // packets were sent to it since the last tick
	heard   atomic.Bool  // direct packets have come from it since the last tick
	seen    atomic.Bool  // it has said that ours arrive, since the last tick
	through atomic.Bool  // packets that it sent through the router have come since the last tick

	// Used only by the methods of Agent.
	phase    phase
	probes   int       // sent in this phase
	next     time.Time // end of the phase, or the time of its next probe
	lastSent time.Time // of a direct packet or a probe
	lastIn   time.Time // of a direct packet from it
	lastUsed time.Time
	last     time.Time // when anything came from it
}

// at returns the mapping of the remote.
func (r *remote) at() header.Mapping { return sixbed4.MappingOf(r.addr) }

// mark sets a flag. It writes only if that changes something, because others read it.
func mark(flag *atomic.Bool) {
	if !flag.Load() {
		flag.Store(true)
	}
}

// key returns the key of a mapping in a table.
func key(m header.Mapping) header.Word6 {
	return header.Word6{Lo: uint64(m.Addr)<<16 | uint64(m.Port)}
}

// enter changes the phase.
func (r *remote) enter(p phase, now time.Time) {
	r.phase, r.probes, r.next = p, 0, now
	if p == peering || p == failed {
		r.next = now.Add(peerTime)
	}
	r.direct.Store(p == peering || p == polling)
	r.failed.Store(p == failed)
}

// tick does what is due. It reports whether a probe is to be sent, and whether the remote is
// to be kept.
func (r *remote) tick(now time.Time) (probe, keep bool) {
	if r.sent.Swap(false) {
		r.lastUsed = now
		if r.direct.Load() {
			r.lastSent = now
		}
	}
	heard := r.heard.Swap(false)
	if heard {
		r.lastIn, r.last = now, now
	}
	if r.through.Swap(false) {
		r.last = now
	}
	if r.seen.Swap(false) {
		r.enter(peering, now)
	}
	if now.Sub(r.lastUsed) >= idleTime {
		return false, false
	}
	if !r.next.After(now) {
		probe = r.advance(now)
	}
	// The remote can be told that its packets arrive only for a short time after one of ours.
	if probe = probe || heard && !r.direct.Load() && now.Sub(r.lastSent) > seenTime; probe {
		r.lastSent = now
	}
	r.tell.Store(!r.lastIn.IsZero() && now.Sub(r.lastIn) < heardTime && now.Sub(r.lastSent) <= seenTime)
	return probe, true
}

// advance goes on to the next probe or phase, and reports whether a probe is to be sent.
func (r *remote) advance(now time.Time) (probe bool) {
	switch r.phase {
	case peering:
		r.enter(polling, now)
	case failed:
		if now.Sub(r.lastUsed) >= peerTime { // nothing to send
			r.next = now.Add(probePause)
			return false
		}
		r.next = now.Add(peerTime)
		return true
	case initial:
		if r.probes == initProbes {
			r.enter(failed, now)
			return false
		}
	case polling:
		if r.probes == pollProbes {
			r.enter(failed, now)
			return true
		}
	}
	r.probes, r.next = r.probes+1, now.Add(probePause)
	return true
}

// remotes are the remotes of a peer.
type remotes struct{ *agent.Table[remote] }

// maxRemotes is how many remotes a peer knows at the same time.
const maxRemotes = 1 << 10

func newRemotes() remotes { return remotes{agent.NewTable[remote](maxRemotes)} }

// add returns a remote, and makes it if it is not known: nil if there is no room, because
// others are in use.
func (t remotes) add(a header.Word6, now time.Time) *remote {
	k := key(sixbed4.MappingOf(a))
	if r := t.Find(k); r != nil {
		return r
	}
	return t.Add(k, func(r *remote) {
		r.addr, r.lastUsed = a, now
		r.enter(initial, now)
	}, func(r *remote) bool {
		return !r.sent.Load() && now.Sub(r.lastUsed) >= peerTime
	}, func(r, o *remote) bool { return r.lastUsed.Before(o.lastUsed) })
}

// goesDirect reports whether a packet with a policy goes directly.
func (r *remote) goesDirect(p sixbed4.Policy) bool {
	switch p {
	case sixbed4.Prohibited:
		return false
	case sixbed4.Presumptuous, sixbed4.Persistent:
		return !r.failed.Load()
	}
	return r.direct.Load()
}
