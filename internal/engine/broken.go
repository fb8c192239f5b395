package engine

import (
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
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

// replaceReceiver closes a broken receiver and the other shards of its group. The next
// full evaluation opens new ones.
func (e *Engine) replaceReceiver(b broken) {
	reads := func(in *datapath.Inbound) bool { return in.Rx == b.rx }
	for l, shards := range maps.Clone(e.inbounds) {
		if slices.ContainsFunc(shards, reads) {
			e.stopListening(l)
			e.replaced(b, fmt.Sprintf("for protocol %d at %v", l.protocol, l.local), func(p *datapath.Wire) bool { return listenerOf(p) == l })
		}
	}
	for local, rx := range maps.Clone(e.errors) {
		if rx == b.rx {
			rx.Close()
			delete(e.errors, local)
			e.replaced(b, fmt.Sprintf("for ICMP errors at %v", local), func(p *datapath.Wire) bool { return p.Outer().Local == local })
		}
	}
	for device, port := range maps.Clone(e.ports) {
		if port.err == nil && slices.ContainsFunc(port.inbounds, reads) {
			e.closePort(port)
			delete(e.ports, device)
			e.replaced(b, "of AF_XDP", func(p *datapath.Wire) bool { return p.Hop.Port == port.Port })
		}
	}
}

// replaced logs that a receiver is being replaced, and counts a repair for each tunnel
// with a registered path for which uses is true.
func (e *Engine) replaced(b broken, which string, uses func(*datapath.Wire) bool) {
	e.stale = true
	e.log.Warn("a receiver "+which+" fails again and again: opening another one", zap.Error(b.err))
	for _, t := range e.tunnels {
		if slices.ContainsFunc(t.paths, func(p *path) bool { return p.registered != nil && uses(p.registered) }) {
			t.repaired(repairSocket, fmt.Sprintf("the receiver %s failed (%v): another one was opened", which, b.err))
		}
	}
}
