package ctl

import (
	"context"
	"errors"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

const (
	// again is the pause before a follower tries again to reach a daemon that ended.
	again = time.Second
	// maxPast is the most past events that a daemon sends to a new reader.
	maxPast = 100
)

// follower follows the events of a daemon, even through restarts.
type follower struct {
	client *client.Client
	tunnel string       // show events of this tunnel only; "": of all
	notify func(string) // reports that the daemon has ended or is back
	last   time.Time    // time of the latest event
}

// run calls each with every event until ctx ends, which is not an error.
func (f *follower) run(ctx context.Context, each func(api.Event) error) error {
	for {
		var broken error // the error of each
		known, n := f.last, 0
		err := f.client.Events(ctx, func(ev api.Event) error {
			if n++; n <= maxPast && !ev.At.After(known) {
				return nil // seen before the connection broke
			}
			f.last = ev.At
			if f.tunnel == "" || ev.Tunnel == "" || ev.Tunnel == f.tunnel {
				broken = each(ev)
			}
			return broken
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ended by the user
		case broken != nil:
			return broken
		case err != nil && !errors.Is(err, client.ErrNoDaemon):
			return err
		}
		f.notify("the daemon has stopped: waiting until it runs again")
		if !f.wait(ctx) {
			return nil
		}
		f.notify("the daemon is running again")
	}
}

// wait waits until a daemon answers; it returns false if ctx ends before. While the daemon
// starts, its socket may exist before we may open it.
func (f *follower) wait(ctx context.Context) bool {
	reported := ""
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
		if text := err.Error(); text != reported && ctx.Err() == nil {
			reported = text
			f.notify("waiting: " + text)
		}
	}
}
