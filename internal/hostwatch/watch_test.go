package hostwatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"sixfour/internal/netcfg"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A watch that fails or panics is restarted, and the same error is logged only once.
func TestKeepWatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zap.WarnLevel)
		changes := 0
		w := NewWatcher(t.Context(), nil, zap.New(core), func(string, netcfg.Change) { changes++ })
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		w.keep(ctx, "", "things", func() error {
			switch tries++; tries {
			case 3:
				panic("a fault")
			case 4:
				cancel()
				return nil
			}
			return errors.New("too many open files")
		})
		if tries != 4 || changes != 3 {
			t.Errorf("%d tries, %d changes", tries, changes)
		}
		if n := seen.FilterMessage("cannot follow changes of things: they are noticed late").Len(); n != 2 {
			t.Errorf("said %d times: %v", n, seen.All())
		}
	})
}
