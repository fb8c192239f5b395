package engine

import (
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/recovery"
)

// A panic of a resolver leaves neither the resolver nor a lock behind.
func TestResolverPanic(t *testing.T) {
	p := tunnelOf(config.Tunnel{}).only.paths[0]
	failed := false
	s := &speaker{p: p, s: nil, failed: func() { failed = true }} // using the nil resolver panics
	if !recovery.Guard(nil, "", func() { s.Hold(nil) }) || !failed || !s.mu.TryLock() {
		t.Error("a speaker whose resolver panics keeps it, or its lock")
	}
}
