// Package keepalive runs the liveness sessions of all paths: it sends the probes that
// package liveness asks for, and passes it the answers and the traffic of the paths.
package keepalive

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sixfour/internal/liveness"
	"sixfour/internal/probing"
	"sixfour/internal/recovery"
)

// Keeper runs the liveness sessions of all paths on one goroutine, which sleeps until
// something is due. A path needs no goroutine and no timer of its own, and its packets
// cost nothing extra: the Keeper reads their counters.
//
// A nil Keeper does nothing.
type Keeper struct {
	begun   time.Time // start of the time that liveness.Session uses
	wake    chan struct{}
	answers chan answer

	mu    sync.Mutex
	fresh []*Subject // paths to check

	// Used by the goroutine only.
	due   schedule
	limit *rate.Limiter // limits probes
	pause time.Time     // no work before this time

	changed func()
}

// answer is an answer to a probe of a path.
type answer struct {
	of *Subject
	probing.LivenessAnswer
}

// Limits of probes per second: each of a hub's hundred thousand peers can be probed every
// 25 seconds. If all fail at the same time, it takes longer to detect it.
const (
	probesPerSecond = 5000
	probesAtOnce    = 100
	probesPause     = 20 * time.Millisecond
)

// New returns a Keeper that has no paths yet. It calls changed when packets must use
// another address. Run must follow.
func New(changed func()) *Keeper {
	return &Keeper{
		begun: time.Now(), wake: make(chan struct{}, 1), answers: make(chan answer, 1024),
		limit: rate.NewLimiter(probesPerSecond, probesAtOnce), changed: changed,
	}
}

// Mark makes the Keeper check a path: it has another wire, or is received now. It never
// blocks. Any goroutine may call it.
func (k *Keeper) Mark(s *Subject) {
	if k == nil || s.marked.Swap(true) {
		return
	}
	k.mu.Lock()
	k.fresh = append(k.fresh, s)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Arrived is called when a packet has arrived on a path after a request for
// datapath.NoticeLiveness. It never blocks.
func (k *Keeper) Arrived(s *Subject) {
	s.packetArrived.Store(true)
	k.Mark(s)
}

// Departed is called when a packet was sent on a path after a request for
// datapath.NoticeSent. It never blocks.
func (k *Keeper) Departed(s *Subject) {
	s.packetSent.Store(true)
	k.Mark(s)
}

// SetRole sets for what a path is used. It never blocks. Any goroutine may call it.
func (k *Keeper) SetRole(s *Subject, r liveness.Role) {
	if s.role.Swap(uint32(r)) != uint32(r) {
		k.Mark(s)
	}
}

// Unreachable is called for an error that says that the peer cannot be reached. It never
// blocks.
func (k *Keeper) Unreachable(s *Subject) {
	s.unreachable.Store(true)
	k.Mark(s)
}

// Answered passes on an answer to a probe. It never blocks. Any goroutine may call it.
func (k *Keeper) Answered(s *Subject, a probing.LivenessAnswer) {
	if k == nil {
		return
	}
	select {
	case k.answers <- answer{s, a}:
	default: // more than were asked for: drop it
	}
}

// Run runs the liveness sessions until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.wake:
		case s := <-k.answers:
			k.handleAnswers(s)
		}
		k.checkMarked()
		if next, ok := k.step(); ok {
			timer.Reset(time.Until(next))
		}
	}
}

// since converts a time for liveness.Session.
func (k *Keeper) since(at time.Time) time.Duration { return at.Sub(k.begun) }

// handleAnswers handles an answer, and those that wait behind it.
func (k *Keeper) handleAnswers(a answer) {
	for range cap(k.answers) {
		k.guard(a.of, func() { k.handleAnswer(a) })
		select {
		case a = <-k.answers:
		default:
			return
		}
	}
}

// handleAnswer handles an answer. It ignores an answer to a probe from before the last
// restart of the session, which says nothing of the present wire.
func (k *Keeper) handleAnswer(a answer) {
	s := a.of
	if int(a.Session) >= len(s.sessions) || !s.sessions[a.Session].life.Recent(a.Seq) {
		return
	}
	one := s.sessions[a.Session]
	now := k.since(a.At)
	only := one.onlyHost(now)
	if one.proven.Improve(a.Way, a.Pair, one.target.between) {
		s.echo.SetProof(one.proven)
	}
	if a.Way < probing.Outside {
		one.inside = now
	}
	if one.life.Answer(a.Seq, now) {
		one.seen = s.In.Packets.Load() // the answer may be counted there
		k.update(one)
	} else if only {
		k.update(one)
	}
}

// checkMarked checks the paths that were marked.
func (k *Keeper) checkMarked() {
	k.mu.Lock()
	fresh := k.fresh
	k.fresh = nil
	k.mu.Unlock()
	now := k.since(time.Now())
	for _, s := range fresh {
		s.marked.Store(false) // a mark from now on is a new one
		k.guard(s, func() { k.check(s, now) })
	}
}

// check checks one marked path.
func (k *Keeper) check(s *Subject, now time.Duration) {
	k.renew(s, now)
	arrived, sent, unreachable := s.packetArrived.Swap(false), s.packetSent.Swap(false), s.unreachable.Swap(false)
	role := liveness.Role(s.role.Load())
	for _, one := range s.sessions {
		one.life.SetRole(role, now)
		if arrived && one.hasTraffic() {
			one.arrivals(now)
			one.life.Traffic(true, now)
		}
		if sent {
			one.countTraffic(now)
		}
		if unreachable {
			one.life.UnreachableError(now)
		}
		k.update(one)
	}
}

// guard calls f, which works on a path. After a panic the liveness sessions of the path are
// dropped; they start again when the path is next marked.
func (k *Keeper) guard(s *Subject, f func()) {
	if !recovery.Guard(s.Tunnel.Log, "probing peers", f) {
		return
	}
	s.Tunnel.Owner.Recovered("probing a peer")
	for _, one := range s.sessions {
		if one.place >= 0 {
			heap.Remove(&k.due, one.place)
		}
	}
	s.sessions = nil
}

// renew updates the liveness sessions of a path to its wire. Without a wire there are none;
// a session whose target has changed starts again.
func (k *Keeper) renew(s *Subject, now time.Duration) {
	targets := s.targets()
	for i, t := range targets {
		if i == len(s.sessions) {
			s.sessions = append(s.sessions, &session{of: s, index: uint16(i), place: -1})
		}
		one := s.sessions[i]
		switch {
		case one.life == nil:
			one.life = liveness.New(t.set, one.first(), now)
		case one.place >= 0 && one.target.sameEnds(t):
			if one.target.set != t.set {
				one.life.Set(t.set, now)
			}
			if !slices.Equal(one.target.between, t.between) && one.proven.Way == probing.Between {
				one.proven = probing.Unproven
				s.echo.SetProof(probing.Unproven)
			}
			one.target = t
			continue
		default:
			one.life.Restart(t.set, now)
		}
		one.target, one.proven, one.tries = t, probing.Unproven, 0
		s.echo.ForgetMarks()
		s.echo.SetProof(probing.Unproven)
		one.arrivals(now)
		one.inside = never
		if one.place < 0 {
			heap.Push(&k.due, one)
		} else {
			heap.Fix(&k.due, one.place) // at once: a heap can fix only one moved element at a time
		}
	}
	for i := len(targets); i < len(s.sessions); i++ {
		if one := s.sessions[i]; one.place >= 0 {
			heap.Remove(&k.due, one.place)
		}
	}
}

// step does all work that is due, and returns when the next is due, if there is any.
func (k *Keeper) step() (next time.Time, ok bool) {
	for len(k.due) > 0 {
		at, one := time.Now(), k.due[0]
		due := k.begun.Add(one.life.Due())
		if due.Before(k.pause) {
			due = k.pause
		}
		if at.Before(due) {
			return due, true
		}
		k.guard(one.of, func() { k.next(one, at) })
	}
	return next, false
}

// next does the work that is due for one liveness session.
func (k *Keeper) next(one *session, at time.Time) {
	now := k.since(at)
	one.countTraffic(now)
	seq, probe := one.life.Next(now)
	if probe {
		one.probe(seq, now)
		if !k.limit.Allow() {
			k.pause = at.Add(probesPause)
		}
	}
	k.update(one)
}

// update is called after a liveness session has changed. It moves the session in the
// schedule, and passes on the result.
func (k *Keeper) update(one *session) {
	if one.place >= 0 {
		heap.Fix(&k.due, one.place)
		k.report(one.of)
	}
}

// schedule is a heap of liveness sessions, ordered by when work is due.
type schedule []*session

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].life.Due() < s[j].life.Due() }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

func (s *schedule) Push(x any) {
	one := x.(*session)
	one.place = len(*s)
	*s = append(*s, one)
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	one := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	one.place = -1
	return one
}
