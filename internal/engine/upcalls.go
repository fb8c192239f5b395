package engine

import (
	"net/netip"
	"time"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/probing"
)

// ReportedTooBig handles a router's report about the path MTU. In an automatic tunnel each
// destination has its own path MTU.
func (p *path) ReportedTooBig(mtu encap.PathMTU, q encap.Quote, err icmp.Error) {
	if !q.To.IsValid() {
		p.t.prober.tooBig(p, mtu, q.Inner, header.IPv4Len+icmp.HeaderLen+len(err.Quote))
		return
	}
	if p.reports.Allow() {
		p.narrowTo(q.To, mtu)
	}
}

// narrowTo stores the path MTU to one destination of an automatic tunnel.
func (p *path) narrowTo(dst netip.Addr, mtu encap.PathMTU) {
	p.narrow.Lock()
	defer p.narrow.Unlock()
	p.Record.Narrow(dst, mtu, time.Now())
}

// widen removes stored path MTUs that are due to be tested again.
func (p *path) widen(now time.Time) {
	p.narrow.Lock()
	defer p.narrow.Unlock()
	p.Record.Widen(now)
}

// ReportedUnreachable handles an ICMP error that says that the peer cannot be reached.
func (p *path) ReportedUnreachable(from netip.Addr, err icmp.Error) {
	p.noteICMP(from, err)
	p.doubtName()
	p.doubted.Store(true)
	p.t.keeper.mark(p)
}

// Reported handles an ICMP error about a probe of the peer's outer address.
func (p *path) Reported(from netip.Addr, err icmp.Error) { p.noteICMP(from, err) }

// LargeSent makes the prober watch the path, to which large packets were sent.
func (p *path) LargeSent() { p.t.prober.watch(p) }

// HopRefused reports to the control loop a destination of an automatic tunnel that is
// behind another device than the rest, with a smaller MTU.
func (p *path) HopRefused(dst netip.Addr) {
	select {
	case p.t.toLoop <- tooLong{p, dst}:
	default: // the sender will retry
	}
}

// Notify tells the prober and the keeper, if they wait for it, that a packet has arrived.
func (p *path) Notify(flags uint32) {
	if flags&wantedByProber != 0 {
		p.arrived.Store(true)
		p.t.prober.watch(p)
	}
	if flags&wantedByKeeper != 0 {
		p.packetArrived.Store(true)
		p.t.keeper.mark(p)
	}
}

// AnsweredMTU passes an answer to a path MTU probe to the prober.
func (p *path) AnsweredMTU(seq uint16) {
	select {
	case p.t.prober.answers <- answer{p, seq}:
	default: // more than were asked for: drop it
	}
}

// AnsweredLiveness passes an answer to a liveness probe to the keeper.
func (p *path) AnsweredLiveness(a probing.LivenessAnswer) { p.t.keeper.answer(p, a) }

// Recovered counts and reports a panic while doing something for the tunnel.
func (t *tunnel) Recovered(doing string) {
	t.repairs[repairPanic].Add(1)
	if t.troubles.Allow() {
		t.event(api.EventError, "panic: a bug in sixfourd while "+doing+"; the log has the stack")
	}
}
