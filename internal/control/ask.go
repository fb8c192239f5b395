package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sixfour/internal/api"
)

func (s *Server) reload(w *answer, r *request) error {
	plan, err := s.daemon.Reload(r.Context())
	if err != nil {
		return err
	}
	return w.json(plan)
}

func (s *Server) ping(w *answer, r *request) error {
	var q api.PingBody
	if err := r.decode(&q); err != nil {
		return err
	}
	return w.lines(r, func(ctx context.Context, emit func(any) error) error {
		return queued(ctx, emit, func(ctx context.Context, put func(any)) error {
			return s.daemon.Ping(ctx, api.PingRequest{Peer: q.Peer, Count: q.Count, Interval: time.Duration(q.Interval), Timeout: time.Duration(q.Timeout), Size: q.Size},
				func(reply api.PingReply) { put(reply) })
		})
	})
}

func (s *Server) mtu(w *answer, r *request) error {
	var q api.MTUBody
	if err := r.decode(&q); err != nil {
		return err
	}
	return w.lines(r, func(ctx context.Context, emit func(any) error) error {
		return queued(ctx, emit, func(ctx context.Context, put func(any)) error {
			result, err := s.daemon.ProbeMTU(ctx, q.Peer, func(p api.MTUProbe) { put(p) })
			if err == nil {
				put(result)
			}
			return err
		})
	})
}

// maxQueue is how many values may wait for the client.
const maxQueue = 256

var errSlow = errors.New("the answers are read too slowly")

// queued calls do, whose values must not wait for the client: put never blocks, and ends
// do's context if the client is too slow.
func queued(ctx context.Context, emit func(any) error, do func(ctx context.Context, put func(any)) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue, ended := make(chan any, maxQueue), make(chan error, 1)
	go func() {
		defer close(queue)
		defer func() { // net/http recovers panics in its own goroutine only
			if v := recover(); v != nil {
				ended <- fmt.Errorf("a bug in the daemon: %v", v)
			}
		}()
		ended <- do(ctx, func(v any) {
			select {
			case queue <- v:
			default:
				cancel(errSlow)
			}
		})
	}()
	for v := range queue {
		if context.Cause(ctx) != nil {
			continue
		}
		if err := emit(v); err != nil {
			cancel(err)
		}
	}
	err := <-ended
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
