package engine

import (
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/liveness"
	"sixfour/internal/recovery"
)

// The goroutines that do not carry packets survive a panic.
func TestPanicsBeside(t *testing.T) {
	tn := tunnelOf(config.Tunnel{})
	p := tn.only.paths[0]
	k := newKeeper(func() {})
	sick, well := &session{p: p, place: 0, life: liveness.New(liveness.Settings{}, 0, 0)}, &session{p: addPath(tn, config.Peer{}), place: 1, life: liveness.New(liveness.Settings{}, 0, 0)}
	k.due = schedule{sick, well}
	p.sessions, well.p.sessions = []*session{sick}, []*session{well}
	k.guard(p, func() { panic("a fault") })
	if len(k.due) != 1 || k.due[0] != well || p.sessions != nil || tn.repairs[repairPanic].Load() != 1 {
		t.Errorf("%d pulses are left, %d panics", len(k.due), tn.repairs[repairPanic].Load())
	}

	failed := false
	s := &speaker{p: p, s: nil, failed: func() { failed = true }} // using the nil resolver panics
	if !recovery.Guard(nil, "", func() { s.Hold(nil) }) || !failed || !s.mu.TryLock() {
		t.Error("a speaker whose resolver panics keeps it, or its lock")
	}
}
