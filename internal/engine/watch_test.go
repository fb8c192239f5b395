package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A watch that fails or panics is restarted, and the same error is logged only once.
func TestKeepWatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zap.WarnLevel)
		e := &Engine{log: zap.New(core), signals: signals{notify: make(chan struct{}, 1)}}
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		e.keepWatching(ctx, "", "things", func() error {
			switch tries++; tries {
			case 3:
				panic("a fault")
			case 4:
				cancel()
				return nil
			}
			return errors.New("too many open files")
		})
		if tries != 4 || len(e.notify) != 1 {
			t.Errorf("%d tries, %d changes", tries, len(e.notify))
		}
		if n := seen.FilterMessage("cannot follow changes of things: they are noticed late").Len(); n != 2 {
			t.Errorf("said %d times: %v", n, seen.All())
		}
	})
}
