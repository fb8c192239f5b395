package engine

import (
	"slices"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/kernelpath"
)

// followKernel makes what is carried in the kernel follow all tunnels and the host.
func (e *Engine) followKernel() {
	n := e.carrier.Wanted()
	for _, t := range e.tunnels {
		t.kernel.SetUp(kernelpath.SetupOf(&t.cfg, t.Present(), t.addresses(), e.addresses.List(t.cfg.Netns), n))
		e.followKernelPeers(t, t.peers)
		t.SetRouteProgram(t.kernel.RouteProgram())
	}
	e.carrier.Sweep()
}

// followKernelPeers is followKernel for some peers of a tunnel.
func (e *Engine) followKernelPeers(t *tunnel, peers []*peer) {
	if !kernelpath.Wanted(&t.cfg) {
		return
	}
	behind, must := t.behind(), t.cfg.IO == config.IOKernel
	for part := range slices.Chunk(peers, kernelpath.AtOnce) {
		list, settings := make([]*kernelpath.Peer, len(part)), make([]kernelpath.Settings, len(part))
		for i, p := range part {
			if p.kernel.Load() == nil {
				p.kernel.Store(t.kernel.Add(&p.Peer))
			}
			list[i] = p.kernel.Load()
			settings[i] = kernelpath.Settings{Prefixes: kernelpath.PrefixesOf(&t.cfg, &p.cfg, behind), Outer: p.received(), Must: must, Report: e.inKernel}
			if slices.ContainsFunc(p.paths, func(one *path) bool { return one.Conflicting() }) {
				settings[i].Why = "another peer has the same outer addresses"
			}
		}
		t.kernel.Set(list, settings)
		e.heartbeat()
	}
}

// received returns the outermost layers of the packets that this process receives as those of
// the peer.
func (p *peer) received() (outer []encap.Layer) {
	for _, one := range p.paths {
		if w := one.Registered(); w != nil {
			outer = append(outer, *w.Outer())
		}
	}
	return outer
}

// inKernel is kernelpath.Settings.Report. Any goroutine may call it.
func (e *Engine) inKernel(d *datapath.Path, is bool, why string, must bool) {
	d.Owner.(*path).report.InKernel(is, why, must && why != kernelpath.WhyCaptured)
	if why != "" && why != kernelpath.WhyCaptured && !is && !must {
		e.somethingChanged() // AF_XDP may do
	}
}
