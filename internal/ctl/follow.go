package ctl

import (
	"context"
	"errors"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control"
)

const (
	// again is how long a follower waits before it asks again a daemon that went away.
	again = time.Second
	// retold is how many events a daemon tells at most that were before it was asked.
	retold = 100
)

// follower follows the events of a daemon, also through its restarts.
type follower struct {
	client *control.Client
	tunnel string       // only of this one; "": of all
	say    func(string) // that the daemon went, or is there again
	last   time.Time    // of the latest event
}

// run calls each with every event until ctx ends, which is no error.
func (f *follower) run(ctx context.Context, each func(api.Event) error) error {
	for {
		var broken error // each's
		known, n := f.last, 0
		err := f.client.Events(ctx, func(ev api.Event) error {
			if n++; n <= retold && !ev.At.After(known) {
				return nil // told before the connection broke
			}
			f.last = ev.At
			if f.tunnel == "" || ev.Tunnel == "" || ev.Tunnel == f.tunnel {
				broken = each(ev)
			}
			return broken
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was ended as it should be
		case broken != nil:
			return broken
		case err != nil && !errors.Is(err, control.ErrNoDaemon):
			return err
		}
		f.say("the daemon has gone: waiting for it")
		if !f.wait(ctx) {
			return nil
		}
		f.say("the daemon answers again")
	}
}

// wait waits until a daemon answers, and reports false if ctx ends before. While it
// starts, its socket may be there and not yet open to us.
func (f *follower) wait(ctx context.Context) bool {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(again):
		}
		_, err := f.client.Version(ctx)
		if err == nil {
			return true
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			f.say("waiting: " + text)
		}
	}
}
