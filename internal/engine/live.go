package engine

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

// keeper runs the liveness sessions of all peers on one goroutine, which sleeps until
// something is due. A peer needs no goroutine and no timer of its own, and its packets
// cost nothing extra: the keeper reads their counters.
type keeper struct {
	begun   time.Time // start of the time that liveness.Session uses
	wake    chan struct{}
	answers chan probeAnswer

	mu    sync.Mutex
	fresh []*path // peers to check

	// Used by the goroutine only.
	due   schedule
	limit *rate.Limiter // limits probes
	pause time.Time     // no work before this time

	changed func() // called when packets must use another address
}

// probeAnswer is an answer to a liveness probe of a path.
type probeAnswer struct {
	p *path
	probing.LivenessAnswer
}

// Limits of probes per second: each of a hub's hundred thousand peers can be probed every
// 25 seconds. If all fail at the same time, it takes longer to detect it.
const (
	probesPerSecond = 5000
	probesAtOnce    = 100
	probesPause     = 20 * time.Millisecond
)

func newKeeper(changed func()) *keeper {
	return &keeper{
		begun: time.Now(), wake: make(chan struct{}, 1), answers: make(chan probeAnswer, 1024),
		limit: rate.NewLimiter(probesPerSecond, probesAtOnce), changed: changed,
	}
}

// mark makes the keeper check a peer: its path has changed, or a packet came from it. Any
// goroutine may call it.
func (k *keeper) mark(p *path) {
	if k == nil || p.marked.Swap(true) {
		return
	}
	k.mu.Lock()
	k.fresh = append(k.fresh, p)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run runs the keeper until ctx ends.
func (k *keeper) run(ctx context.Context) {
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
func (k *keeper) since(at time.Time) time.Duration { return at.Sub(k.begun) }

// handleAnswers handles an answer, and those that wait behind it.
func (k *keeper) handleAnswers(s probeAnswer) {
	for range cap(k.answers) {
		k.guard(s.p, func() { k.handleAnswer(s) })
		select {
		case s = <-k.answers:
		default:
			return
		}
	}
}

// handleAnswer handles an answer. An answer to a probe from before the last restart says nothing
// of the present path.
func (k *keeper) handleAnswer(s probeAnswer) {
	if int(s.Session) >= len(s.p.sessions) || !s.p.sessions[s.Session].life.Recent(s.Seq) {
		return
	}
	pl := s.p.sessions[s.Session]
	now := k.since(s.At)
	only := pl.onlyHost(now)
	if pl.proven.Improve(s.Way, s.Pair, pl.target.between) {
		s.p.echo.SetProof(pl.proven)
	}
	if s.Way < probing.Outside {
		pl.inside = now
	}
	if pl.life.Answer(s.Seq, now) {
		pl.seen = s.p.In.Packets.Load() // the answer may be counted there
		k.update(pl)
	} else if only {
		k.update(pl)
	}
}

// checkMarked checks the peers that were marked.
func (k *keeper) checkMarked() {
	k.mu.Lock()
	fresh := k.fresh
	k.fresh = nil
	k.mu.Unlock()
	now := k.since(time.Now())
	for _, p := range fresh {
		p.marked.Store(false) // a mark from now on is a new one
		k.guard(p, func() { k.check(p, now) })
	}
}

// check checks one marked peer.
func (k *keeper) check(p *path, now time.Duration) {
	k.renew(p, now)
	heard, doubted := p.packetArrived.Swap(false), p.doubted.Swap(false)
	for _, pl := range p.sessions {
		if heard && pl.hasTraffic() {
			pl.arrivals(now)
			pl.life.Traffic(true, now)
		}
		if doubted {
			pl.life.UnreachableError(now)
		}
		k.update(pl)
	}
}

// guard calls f, which works on a peer. After a panic the peer's liveness sessions are
// dropped; they start again when the peer is next marked.
func (k *keeper) guard(p *path, f func()) {
	if !recovery.Guard(p.t.Log, "probing peers", f) {
		return
	}
	p.t.Recovered("probing a peer")
	for _, pl := range p.sessions {
		if pl.place >= 0 {
			heap.Remove(&k.due, pl.place)
		}
	}
	p.sessions = nil
}

// renew updates a peer's liveness sessions to its path. Without a path there are none; a
// session whose target has changed starts again.
func (k *keeper) renew(p *path, now time.Duration) {
	targets := p.targets()
	for i, t := range targets {
		if i == len(p.sessions) {
			p.sessions = append(p.sessions, &session{p: p, index: uint16(i), place: -1})
		}
		pl := p.sessions[i]
		switch {
		case pl.life == nil:
			pl.life = liveness.New(t.set, pl.first(), now)
		case pl.place >= 0 && pl.target.sameEnds(t):
			if pl.target.set != t.set {
				pl.life.Set(t.set, now)
			}
			if !slices.Equal(pl.target.between, t.between) && pl.proven.Way == probing.Between {
				pl.proven = probing.Unproven
				p.echo.SetProof(probing.Unproven)
			}
			pl.target = t
			continue
		default:
			pl.life.Restart(t.set, now)
		}
		pl.target, pl.proven, pl.tries = t, probing.Unproven, 0
		p.echo.SetProof(probing.Unproven)
		pl.arrivals(now)
		pl.inside = never
		if pl.place < 0 {
			heap.Push(&k.due, pl)
		} else {
			heap.Fix(&k.due, pl.place) // at once: a heap can fix only one moved element at a time
		}
	}
	for i := len(targets); i < len(p.sessions); i++ {
		if pl := p.sessions[i]; pl.place >= 0 {
			heap.Remove(&k.due, pl.place)
		}
	}
}

// step does all work that is due, and returns when the next is due, if there is any.
func (k *keeper) step() (next time.Time, ok bool) {
	for len(k.due) > 0 {
		at, pl := time.Now(), k.due[0]
		due := k.begun.Add(pl.life.Due())
		if due.Before(k.pause) {
			due = k.pause
		}
		if at.Before(due) {
			return due, true
		}
		k.guard(pl.p, func() { k.next(pl, at) })
	}
	return next, false
}

// next does the work that is due for one liveness session.
func (k *keeper) next(pl *session, at time.Time) {
	now := k.since(at)
	if pl.hasTraffic() && pl.arrivals(now) {
		pl.life.Traffic(false, now)
	}
	seq, probe := pl.life.Next(now)
	if probe {
		pl.probe(seq)
		if !k.limit.Allow() {
			k.pause = at.Add(probesPause)
		}
	}
	k.update(pl)
}

// update is called after a liveness session has changed. It moves the session in the
// schedule, and updates the state of the peer.
func (k *keeper) update(pl *session) {
	if pl.place >= 0 {
		heap.Fix(&k.due, pl.place)
		pl.p.updateState(k)
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
	pl := x.(*session)
	pl.place = len(*s)
	*s = append(*s, pl)
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	pl := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	pl.place = -1
	return pl
}
