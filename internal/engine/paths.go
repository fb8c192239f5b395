package engine

import (
	"net/netip"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/internal/arrival"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/keepalive"
	"sixfour/internal/meeting"
	"sixfour/internal/names"
	"sixfour/internal/probing"
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
	echo   *probing.Echo
	search *discovery.Subject
	life   *keepalive.Subject
	report *report.Path
}

// observed is what was last seen and reported of a path. The control loop owns it, except
// for refused.
type observed struct {
	through    *tunnel           // the tunnel into which the outer packets are routed
	knownMTU   *discovery.Update // the last MTU update; nil: none
	odd, wraps uint64            // values of the record's counters when they were last logged
}

func newPath(p *peer) *path {
	w := &path{t: p.t, peer: p}
	w.Path = &datapath.Path{PathOf: datapath.PathOf{Peer: &p.Peer, Tunnel: p.t.Tunnel}, Record: encap.NewRecord(), Owner: w}
	w.echo = probing.New(w.Path, w)
	w.Probes = w.echo
	w.search = discovery.NewSubject(w.Path, w.echo)
	w.life = keepalive.NewSubject(w.Path, w.echo, w)
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

// logIrregularities logs irregularities that were counted since the last call.
func (p *path) logIrregularities() {
	if n := p.Record.OddECN(); n > p.odd {
		p.report.Log().Warn("packets arrived with a combination of inner and outer ECN fields that is not valid (RFC 6040 section 4.2): a router on the path, or the peer, sets them wrongly", zap.Uint64("packets", n-p.odd))
		p.odd = n
	}
	if n := p.Record.Wraps(); n > p.wraps {
		p.report.Log().Warn("fragments are sent so fast that their identifications repeat while earlier fragments may still be on their way (RFC 6864): give the tunnel a smaller mtu, so that packets are not fragmented", zap.Uint64("times", n-p.wraps))
		p.wraps = n
	}
}
