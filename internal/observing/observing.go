// Package observing follows a path: it passes what the datapath and the answers to probes
// report of the path to the search of its MTU and to its liveness sessions.
package observing

import (
	"sixfour/encap"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/keepalive"
	"sixfour/internal/liveness"
	"sixfour/internal/probing"
)

// Workers are those that work for all paths of a tunnel.
type Workers struct {
	Finder *discovery.Finder
	Keeper *keepalive.Keeper // nil: no liveness checks
}

// Observer follows one path. Any goroutine may call its methods, which never block. Most of
// them are those of datapath.PathOwner and probing.Receiver.
type Observer struct {
	*Workers
	Echo   *probing.Echo
	Search *discovery.Subject
	Life   *keepalive.Subject
}

// New returns the Observer of a path, whose Probes it sets. The owner is told of the results of
// liveness checks.
func New(p *datapath.Path, owner keepalive.Owner, w *Workers) *Observer {
	o := &Observer{Workers: w}
	o.Echo = probing.New(p, o)
	p.Probes = o.Echo
	o.Search, o.Life = discovery.NewSubject(p, o.Echo), keepalive.NewSubject(p, o.Echo, owner)
	return o
}

// Changed must be called when the path has another wire, or is received from now on.
func (o *Observer) Changed() {
	o.Finder.Notify()
	o.Keeper.Mark(o.Life)
}

// IsForgotten reports whether the path was removed.
func (o *Observer) IsForgotten() bool { return o.Finder.HasForgotten(o.Search) }

// ReportedTooBig handles a router's report about the path MTU.
func (o *Observer) ReportedTooBig(mtu encap.PathMTU, q encap.Quote, err icmp.Error) {
	o.Finder.ReportedTooBig(o.Search, mtu, q, err)
}

// LargeSent starts the search for the path MTU: large packets were sent on the path.
func (o *Observer) LargeSent() { o.Finder.Watch(o.Search) }

// Doubt makes the liveness sessions probe at once: an error says that the peer cannot be
// reached.
func (o *Observer) Doubt() { o.Keeper.Unreachable(o.Life) }

// SetRole sets for what the path is used.
func (o *Observer) SetRole(r liveness.Role) { o.Keeper.SetRole(o.Life, r) }

// Notify tells those that wait for it that a packet has arrived or was sent.
func (o *Observer) Notify(flags uint32) {
	if flags&datapath.NoticeMTU != 0 {
		o.Finder.Arrived(o.Search)
	}
	if flags&datapath.NoticeLiveness != 0 {
		o.Keeper.Arrived(o.Life)
	}
	if flags&datapath.NoticeSent != 0 {
		o.Keeper.Departed(o.Life)
	}
}

// AnsweredMTU passes on an answer to a path MTU probe.
func (o *Observer) AnsweredMTU(seq uint16) { o.Finder.Answered(o.Search, seq) }

// AnsweredLiveness passes on an answer to a probe of a liveness session.
func (o *Observer) AnsweredLiveness(a probing.LivenessAnswer) { o.Keeper.Answered(o.Life, a) }
