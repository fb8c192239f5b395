package discovery

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/probing"
)

// Subject is a path whose MTU is to be found.
type Subject struct {
	*datapath.Path
	echo *probing.Echo

	reports atomic.Pointer[rate.Limiter] // limits the reports of routers, which anyone can forge; nil: none so far
	narrow  sync.Mutex                   // held to add and remove destinations with a smaller MTU
	arrived atomic.Bool                  // a packet arrived: the Finder must check
	watched atomic.Bool                  // the Finder knows the path
	retired bool                         // the Finder must forget it; guarded by its mu
}

// NewSubject returns a path, and what sends its probes, as a subject.
func NewSubject(p *datapath.Path, e *probing.Echo) *Subject {
	return &Subject{Path: p, echo: e}
}

// reportsPerSecond limits how many reports about a path are examined.
const reportsPerSecond = 100

// mayReport reports whether another report may be examined.
func (s *Subject) mayReport() bool {
	if s.reports.Load() == nil {
		s.reports.CompareAndSwap(nil, rate.NewLimiter(reportsPerSecond, reportsPerSecond))
	}
	return s.reports.Load().Allow()
}

// learns reports whether to search the MTU of a wire: it is needed, and answers to probes
// can be received. An automatic tunnel has too many paths.
func (s *Subject) learns(wire *datapath.Wire) bool {
	return wire.Stack.NeedsPathMTU() && !wire.Automatic() && s.Listening.Load()
}

// NarrowTo stores the path MTU to one destination of an automatic tunnel.
func (s *Subject) NarrowTo(dst netip.Addr, mtu encap.PathMTU) {
	s.narrow.Lock()
	defer s.narrow.Unlock()
	s.Record.SetMTU(dst, mtu, time.Now())
}

// Widen removes stored path MTUs that are due to be tested again.
func (s *Subject) Widen(now time.Time) {
	s.narrow.Lock()
	defer s.narrow.Unlock()
	s.Record.ExpireMTUs(now)
}

// tooBig is the report of a router about the MTU of a path.
type tooBig struct {
	of    *Subject
	mtu   encap.PathMTU
	inner []byte // the quoted packet, as far as it was quoted
	proof bool   // it quotes a probe, which an attacker off the path cannot know
	size  int    // of the report, in bytes
}

// answer is an answer to a path MTU probe.
type answer struct {
	of  *Subject
	seq uint16
}

// ReportedTooBig handles the report of a router about the path MTU, as
// datapath.PathOwner.ReportedTooBig. In an automatic tunnel each destination has its own
// path MTU. If there are too many reports, some are dropped: routers repeat them.
func (f *Finder) ReportedTooBig(s *Subject, mtu encap.PathMTU, q encap.Quote, err icmp.Error) {
	if !s.mayReport() {
		return
	}
	if q.To.IsValid() {
		s.NarrowTo(q.To, mtu)
		return
	}
	select {
	case f.reports <- tooBig{s, mtu, bytes.Clone(q.Inner), s.echo.Proves(q.Inner), header.IPv4Len + icmp.HeaderLen + len(err.Quote)}:
	default:
	}
}

// Answered passes on an answer to a path MTU probe. It never blocks.
func (f *Finder) Answered(s *Subject, seq uint16) {
	select {
	case f.answers <- answer{s, seq}:
	default: // more than were asked for: drop it
	}
}

// Arrived is called when a packet has arrived on a path after a request for
// datapath.NoticeMTU.
func (f *Finder) Arrived(s *Subject) {
	s.arrived.Store(true)
	f.Watch(s)
}
