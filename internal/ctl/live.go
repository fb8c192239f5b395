package ctl

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

// period is how often the live view requests the status.
const period = time.Second

// watchScreen shows the live view until ctx ends.
func watchScreen(ctx context.Context, c *client.Client, tunnel string, tty *os.File, p painter) error {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGTSTP)
	defer signal.Stop(signals)
	events, ended := make(chan api.Event), make(chan error, 1)
	var following sync.WaitGroup
	following.Go(func() {
		f := &follower{client: c, tunnel: tunnel, notify: func(string) {}} // the status shows it
		ended <- f.run(ctx, func(ev api.Event) error {
			select {
			case events <- ev:
			case <-ctx.Done():
			}
			return nil
		})
	})
	s := &screen{tty: tty, paint: p}
	s.enter()
	defer s.leave()
	following.Go(func() { untilQuit(ctx, cancel) })
	v := view{tunnel: tunnel}
	err := v.run(ctx, c, s, signals, events, ended)
	cancel()
	following.Wait()
	return err
}

// run redraws every second, and after each event.
func (v *view) run(ctx context.Context, c *client.Client, s *screen, signals <-chan os.Signal, events <-chan api.Event, ended <-chan error) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	if err := v.ask(ctx, c); err != nil {
		return err
	}
	for {
		columns, rows := size(s.tty)
		if err := s.draw(v.frame(columns, rows), columns); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case ev := <-events:
			v.note(ev, events)
		case <-tick.C:
			if err := v.ask(ctx, c); err != nil {
				return err
			}
		case sig := <-signals:
			if sig == unix.SIGTSTP { // Ctrl-Z must restore the screen first
				s.leave()
				_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
				s.enter()
			}
		}
	}
}

// ask requests a new status. A missing daemon is shown, and is not an error.
func (v *view) ask(ctx context.Context, c *client.Client) error {
	st, err := c.Status(ctx, v.tunnel)
	v.now = time.Now()
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // ended by the user
	case err == nil:
		v.gone = nil
		v.before, v.beforeAt = v.status, v.statusAt
		v.status, v.statusAt = st, v.now
	case v.statusAt.IsZero() || !errors.Is(err, client.ErrNoDaemon) && v.gone == nil:
		return err
	default:
		v.gone = err
		v.before, v.beforeAt = api.Status{}, time.Time{}
	}
	return nil
}

// maxEvents is how many events the view stores.
const maxEvents = 100

// note stores an event, and those already waiting.
func (v *view) note(ev api.Event, more <-chan api.Event) {
	for {
		v.events = append(v.events, ev)
		if n := len(v.events) - maxEvents; n > 0 {
			v.events = append(v.events[:0], v.events[n:]...)
		}
		select {
		case ev = <-more:
		default:
			return
		}
	}
}
