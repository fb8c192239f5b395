package engine

import (
	"net/netip"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/internal/arrival"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/meeting"
	"sixfour/internal/names"
	"sixfour/internal/observing"
	"sixfour/internal/report"
)

// path is one way to a peer. That of an automatic tunnel stands for the ways to all its
// peers.
type path struct {
	arrival.Registration
	t       *tunnel
	peer    *peer
	at      int // index in the peer's paths; follows the rule of tunnel.cfg
	far     names.Remote
	meeting atomic.Pointer[meeting.Path] // nil: both ends are configured
	observed
	*observing.Observer
	report *report.Path
}

// observed is what was last seen of a path. The control loop owns it.
type observed struct {
	through  *tunnel           // the tunnel into which the outer packets are routed
	knownMTU *discovery.Update // the last MTU update; nil: none
}

func newPath(p *peer) *path {
	w := &path{t: p.t, peer: p}
	w.Path = &datapath.Path{PathOf: datapath.PathOf{Peer: &p.Peer, Tunnel: p.t.Tunnel}, Record: encap.NewRecord(), Owner: w}
	w.Observer = observing.New(w.Path, w, &p.t.workers)
	w.report = report.NewPath(p.t.report, p.cfg.Name, w.Path)
	return w
}

// spec returns the configuration of the path. It follows the rule of tunnel.cfg.
func (p *path) spec() *config.Path { return &p.peer.cfg.Paths[p.at] }

// remote returns the configured outer address or name of the path's remote end.
func (p *path) remote() config.Host { return p.spec().Remote }

// local returns our configured outer address; invalid: the route decides.
func (p *path) local() netip.Addr { return p.spec().Local }

// outerVersion returns the IP version of the outermost header.
func (t *tunnel) outerVersion() int { return t.cfg.Mode.Layers[len(t.cfg.Mode.Layers)-1].Over() }

// automatic reports whether outer destinations are derived from the packets.
func (t *tunnel) automatic() bool { return t.mech != nil }
