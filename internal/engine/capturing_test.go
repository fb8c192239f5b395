package engine

import (
	"context"
	"strings"

	"sixfour/internal/capture"

	"bytes"
	"testing"

	"sixfour/internal/config"
)

// memory is a sink that stores a capture.
type memory struct{ bytes.Buffer }

func (*memory) Flush() error { return nil }

func TestCaptureRequests(t *testing.T) {
	e := &Engine{running: running{tunnels: []*tunnel{tunnelOf(config.Tunnel{Name: "t0"})}}}
	for _, c := range []struct {
		r    capture.Request
		want string
	}{
		{capture.Request{Tunnel: "t9"}, `there is no tunnel "t9": choose t0`},
		{capture.Request{Tunnel: "t0", Filter: "host"}, "filter"},
	} {
		if err := e.Capture(t.Context(), c.r, new(memory)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.r, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error)
	for range capture.MaxTaps {
		go func() { ends <- e.Capture(ctx, capture.Request{Tunnel: "t0"}, new(memory)) }()
	}
	for {
		if c := e.Captures.Taps(); c.Len() == capture.MaxTaps {
			break
		}
	}
	if err := e.Capture(ctx, capture.Request{Tunnel: "t0"}, new(memory)); err == nil || !strings.Contains(err.Error(), "captures are already running") {
		t.Errorf("one more: %v", err)
	}
	e.endCaptures("other")
	e.endCaptures("t0")
	for range capture.MaxTaps {
		if err := <-ends; err == nil || !strings.Contains(err.Error(), "tunnel t0 was removed") {
			t.Errorf("%v", err)
		}
	}
	cancel()
	if e.Captures.Taps() != nil {
		t.Error("captures are left")
	}
	e.Captures.Close(errDaemonEnds)
	if err := e.Capture(t.Context(), capture.Request{Tunnel: "t0"}, new(memory)); err == nil {
		t.Error("a capture of an engine that has ended")
	}
}
