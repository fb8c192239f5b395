package engine

import (
	"fmt"

	"sixfour/internal/report"
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

// replaceReceiver closes a broken receiver and the other shards of its port, and counts a
// repair for each tunnel that it served. The next full evaluation opens the port again.
// Paths that sent through it wait until then.
func (e *Engine) replaceReceiver(b broken) {
	port, ok := e.arrivals.Replace(b.rx, b.err)
	if !ok {
		return
	}
	repaired := make(map[*tunnel]bool)
	for _, p := range port.Of {
		if t := p.(*path).t; !repaired[t] {
			repaired[t] = true
			t.report.Repaired(report.Socket, fmt.Sprintf("the receiver %s failed (%v): another one was opened", port.Name, b.err))
		}
	}
	for _, p := range port.Sends {
		p.(*path).publish(nil)
	}
}
