package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sixfour/internal/api"
)

// Duration is a time.Duration whose JSON form is text as in the configuration, such as
// "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// pingRequest is the JSON form of api.PingRequest. Missing fields have defaults.
type pingRequest struct {
	Peer     string   `json:"peer"`
	Count    int      `json:"count,omitzero"`
	Interval Duration `json:"interval,omitzero"`
	Timeout  Duration `json:"timeout,omitzero"`
	Size     int      `json:"size,omitzero"`
}

type mtuRequest struct {
	Peer string `json:"peer"`
}

func (s *Server) reload(w *answer, r *request) error {
	plan, err := s.daemon.Reload(r.Context())
	if err != nil {
		return err
	}
	return w.json(plan)
}

func (s *Server) ping(w *answer, r *request) error {
	var q pingRequest
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
	var q mtuRequest
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

var errSlow = errors.New("the answers are not read as fast as they come")

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

// Reload makes the daemon read its configuration again, and returns what changed.
func (c *Client) Reload(ctx context.Context) (api.Plan, error) {
	var p api.Plan
	return p, c.ask(ctx, "reload", nil, &p)
}

// Ping sends probes through a tunnel, and calls each with the outcome of every probe.
func (c *Client) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply) error) error {
	q := pingRequest{Peer: r.Peer, Count: r.Count, Interval: Duration(r.Interval), Timeout: Duration(r.Timeout), Size: r.Size}
	return values(ctx, c, http.MethodPost, "ping", nil, q, each)
}

// ProbeMTU searches for the path MTU to a peer, and calls each for every size tried.
func (c *Client) ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe) error) (result api.MTUResult, err error) {
	err = values(ctx, c, http.MethodPost, "mtu", nil, mtuRequest{peer}, func(line struct {
		api.MTUProbe
		api.MTUResult
	}) error {
		if line.PathMTU > 0 {
			result = line.MTUResult
			return nil
		}
		return each(line.MTUProbe)
	})
	return result, err
}
