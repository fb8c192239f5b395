package engine

import (
	"context"
	"errors"
	"fmt"

	"sixfour/internal/capture"
	"sixfour/internal/report"
)

var errDaemonEnds = errors.New("the daemon is stopping")

// Capture writes a tunnel's packets to out as pcapng. It ends when ctx ends, when the
// requested number of packets is written, or with an error when the tunnel is removed. An
// error before the first byte concerns the request. Any goroutine may call it.
func (e *Engine) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	tap, err := capture.New(r)
	if err == nil {
		err = e.beginCapture(r.Tunnel, tap)
	}
	if err != nil {
		return err
	}
	defer e.Captures.EndTap(tap)
	return tap.Stream(ctx, out)
}

// beginCapture starts a capture of an existing tunnel. The lock keeps a reload from
// removing the tunnel meanwhile.
func (e *Engine) beginCapture(tunnel string, tap *capture.Tap) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var names []string
	for _, t := range e.tunnels {
		if t.cfg.Name == tunnel {
			return e.Captures.Begin(tunnel, tap)
		}
		names = append(names, t.cfg.Name)
	}
	return fmt.Errorf("there is no tunnel %q: choose %s", tunnel, report.AnyOf(names))
}

// endCaptures ends the captures of a tunnel that was removed from the configuration.
func (e *Engine) endCaptures(tunnel string) {
	e.Captures.EndTunnel(tunnel, fmt.Errorf("tunnel %s was removed", tunnel))
}
