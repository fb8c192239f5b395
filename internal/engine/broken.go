package engine

import (
	"fmt"

	"go.uber.org/zap"

	"sixfour/internal/ports"
	"sixfour/internal/report"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// broken is a receiver that only fails.
type broken struct {
	rx  transport.Receiver
	err error
}

// isBroken asks the control loop to replace a receiver, which is no longer read.
func (e *Engine) isBroken(rx transport.Receiver, err error) {
	select {
	case e.broken <- broken{rx, err}:
	case <-e.ctx.Done():
	}
}

// replaceReceiver closes a broken receiver and the other shards of its port. The next full
// evaluation opens the port again.
func (e *Engine) replaceReceiver(b broken) {
	if k, ok := e.sockets.Replace(b.rx); ok {
		e.replaced(b, k.String(), func(p *path) bool {
			icmp, _ := wiring.ICMPPort(p.registered.Outer().Local)
			return p.port(p.registered) == k || icmp == k
		})
		e.sendAgain(k)
	}
	if port := e.xdp.Replace(b.rx); port != nil {
		e.replaced(b, "of AF_XDP", func(p *path) bool { return p.registered.Hop.Port == port })
	}
}

// sendAgain makes paths that send through a port of UDP, which was closed, open it again:
// they wait until then.
func (e *Engine) sendAgain(k ports.Key) {
	for _, t := range e.tunnels {
		for p := range t.paths() {
			if w := p.Wire.Load(); w != nil && wiring.HasPorts(w.Outer().Kind) && p.port(w) == k {
				p.publish(nil)
			}
		}
	}
}

// replaced logs that a receiver is being replaced, and counts a repair for each tunnel
// with a registered path for which uses is true.
func (e *Engine) replaced(b broken, which string, uses func(*path) bool) {
	e.stale = true
	e.log.Warn("a receiver "+which+" fails again and again: opening another one", zap.Error(b.err))
	for _, t := range e.tunnels {
		if t.anyPath(func(p *path) bool { return p.registered != nil && uses(p) }) {
			t.report.Repaired(report.Socket, fmt.Sprintf("the receiver %s failed (%v): another one was opened", which, b.err))
		}
	}
}
