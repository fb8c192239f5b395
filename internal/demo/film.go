package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

// film is a series of states of a tunnel's paths.
type film struct {
	frames []frame
	cancel context.CancelFunc
	done   chan struct{}
}

// frame is the state of the paths at one time since the film began.
type frame struct {
	at    time.Duration
	paths [len(rungs)]struct{ used, up bool }
}

// filmEvery is the time between two frames.
const filmEvery = 100 * time.Millisecond

// start starts to record what a daemon reports. Call stop after use.
func (f *film) start(socket string, began time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan struct{})
	go func() {
		defer close(f.done)
		tick := time.NewTicker(filmEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s, err := client.Status(ctx, socket)
			if err != nil || len(s.Tunnels[0].Paths) != len(rungs) {
				continue
			}
			now := frame{at: time.Since(began)}
			for i, p := range s.Tunnels[0].Paths {
				now.paths[i].used, now.paths[i].up = p.Used, p.State.Phase == api.Up
			}
			f.frames = append(f.frames, now)
		}
	}()
}

// stop ends the recording. After it, the frames may be read.
func (f *film) stop() {
	if f.cancel != nil {
		f.cancel()
		<-f.done
	}
}

// last returns the last frame before a time.
func (f *film) last(before time.Duration) (last frame) {
	for _, fr := range f.frames {
		if fr.at < before {
			last = fr
		}
	}
	return last
}

const (
	mostColumns = 66
	column      = 500 * time.Millisecond // at least
)

// draw draws the states of the paths over time, and what the provider dropped.
func (l *ladder) draw() {
	width := column
	for l.flow.ended/width >= mostColumns {
		width += filmEvery
	}
	columns := int(l.flow.ended / width)
	line := func(name string, mark func(begin, end time.Duration) string) {
		fmt.Fprintf(l.w, "  %-14s", name)
		for i := range columns {
			fmt.Fprint(l.w, mark(time.Duration(i)*width, time.Duration(i+1)*width))
		}
		fmt.Fprintln(l.w)
	}
	fmt.Fprintln(l.w)
	for i, name := range rungs {
		line(name, func(begin, end time.Duration) string {
			p := l.film.last(end).paths[i]
			switch {
			case p.used && 2*l.flow.lost(begin, end) > l.flow.count(begin, end):
				return "x"
			case p.used:
				return "#"
			case p.up:
				return "."
			}
			return " "
		})
	}
	axis := []byte(strings.Repeat(" ", columns+8))
	for s := 0; s < int(l.flow.ended/time.Second); s += 5 {
		copy(axis[int(time.Duration(s)*time.Second/width):], fmt.Sprintf("|%d s", s))
	}
	fmt.Fprintf(l.w, "  %-14s%s\n", "", strings.TrimRight(string(axis), " "))
	for _, s := range l.measured.Steps[1:] {
		fmt.Fprintf(l.w, "  %-14s%s^ %s\n", "", strings.Repeat(" ", int(s.begin/width)), s.What)
	}
	fmt.Fprintln(l.w, "\n  # carries the packets   x carries them, and they are lost   . is up   (empty) is not up")
}
