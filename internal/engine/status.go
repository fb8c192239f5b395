package engine

import (
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/report"
	"slices"
)

// reportWire reports the wire that is in use.
func (p *path) reportWire(wire *datapath.Wire) {
	s := report.StateOf(wire)
	if spec := p.spec(); spec.Encap != config.NoEncapsulation {
		at := wire.Outer().Kind.Properties().Ports
		s.Encap, s.LocalPort, s.Port = spec.Encap, at.Local, at.Remote
	}
	p.report.Uses(s, p.Life.HasChecks(wire), p.t.MTU.Load())
	p.peer.choose() // without probes the path is up only now
}

func (t *tunnel) status() api.TunnelStatus {
	s := api.TunnelStatus{Name: t.cfg.Name, Mode: t.cfg.Mode.Name, Interface: t.cfg.Name, Namespace: t.cfg.Netns}
	t.CountOverflow()
	s.In, s.Out = t.In.Traffic(), t.Out.Traffic()
	for _, p := range t.peers {
		one := p.status()
		if t.only == nil {
			s.Peers = append(s.Peers, one)
		}
		report.Merge(&s, one)
		if t.only != nil {
			s.Liveness, s.LastError, s.LastDown, s.Paths = one.Liveness, one.LastError, one.LastDown, one.Paths
		}
	}
	if t.only == nil {
		s.Liveness.Loss = report.Loss(s.Peers)
	}
	s.ICMP.SentTypes = t.Reply.Sent.Types()
	s.ICMP.Sent = s.ICMP.SentTypes.Total()
	s.ICMP.Limited = t.Reply.Limited.Load()
	s.Repairs = t.report.Repairs()
	if a := t.agent.Running(); a != nil {
		s.Neighbours = report.Neighbours(a.Entries())
	}
	return s
}

// status returns the status of a peer. Its counts are those of all paths that it has or had.
func (p *peer) status() api.PeerStatus {
	s := p.statusOfPaths()
	p.past.AddTo(&s)
	return s
}

func (p *peer) statusOfPaths() api.PeerStatus {
	list := make([]api.PeerStatus, len(p.paths))
	for i, one := range p.paths {
		list[i] = one.status()
	}
	s := report.Sum(list, max(0, slices.Index(p.paths, p.inUse())))
	if len(list) > 1 {
		s.Paths = p.choice.Load().Status(list)
	}
	return s
}

func (p *path) status() api.PeerStatus {
	probes, answered := p.Echo.Counts()
	return p.report.Status(api.Probes{Sent: probes, Answered: answered}, int(p.t.MTU.Load()))
}
